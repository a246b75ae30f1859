use super::*;
use keywright_jobs::evidence::{Figure, Section, Table};

fn report() -> Report {
    let names = [
        "n".repeat(200),
        format!("prod/{}", "\u{633}\u{631}\u{64a}".repeat(60)),
        "\u{5de}\u{5e4}\u{5ea}\u{5d7} \u{5e8}\u{5d0}\u{5e9}\u{5d9}".to_owned(),
        "rocket \u{1f680}\u{1f469}\u{200d}\u{1f4bb} key \u{1f511}".to_owned(),
        "\u{79d8}\u{5bc6} \u{202e}dlrow".to_owned(),
        "#let x = 1; $ @ref [x] *bold* \\ \"quoted\"".to_owned(),
        "e\u{301}\u{323}\u{31b} o\u{308} \u{0}\n\ttab".to_owned(),
    ];
    let rows = (0..200)
        .map(|n| vec![names[n % names.len()].clone(), "secret".to_owned(), names[(n + 3) % names.len()].clone()]);
    let table = Table {
        title: "Assets".to_owned(),
        columns: ["name", "type", "tags"].map(str::to_owned).to_vec(),
        widths: vec![3, 1, 3],
        rows: rows.collect(),
        note: "The first 200 of 1,000,000 rows; all are in assets.csv.".to_owned(),
    };
    let bars = vec![("secret".to_owned(), 812_000), ("\u{1f511}".to_owned(), 3), ("certificate".to_owned(), 0)];
    Report {
        title: "Evidence package".to_owned(),
        package: "0198f3c2-0000-7000-8000-000000000000".to_owned(),
        exported_at: "2026-11-24T20:00:00.000001Z".parse().unwrap(),
        cover: vec![
            ("Organisation".to_owned(), "N".repeat(200)),
            ("Signed by".to_owned(), "keywright/x+0badcafe+".to_owned() + &"A".repeat(44)),
        ],
        sections: vec![Section {
            title: "Inventory".to_owned(),
            paragraphs: vec!["Assets as they were known.".to_owned()],
            figures: vec![Figure { title: "Assets by type".to_owned(), bars }, Figure::default()],
            tables: vec![table, Table { title: "Empty".to_owned(), ..Table::default() }],
        }],
        assertion: vec!["We assert.".to_owned()],
        attachments: vec![Attachment {
            name: "assets.csv".to_owned(),
            description: "2 rows".to_owned(),
            bytes: b"id,name\n1,\xf0\x9f\x94\x91\n".to_vec(),
        }],
    }
}

#[test]
fn the_same_report_makes_the_same_document_whatever_is_in_it() {
    let (one, other) = (Typeset::new(), Typeset::new());
    let first = one.lay_out(&report()).unwrap();
    assert!(first.starts_with(b"%PDF-1.7"), "{:?}", first.get(..8));
    assert_eq!(first, other.lay_out(&report()).unwrap());
    // in the letters that any font has, not in the plain ones that are the way out
    assert_eq!(first, one.compile(&report(), Trust::Any).unwrap());
}

#[test]
fn another_report_is_another_document() {
    let (typeset, mut other) = (Typeset::new(), report());
    let first = typeset.lay_out(&other).unwrap();
    other.sections.clear();
    assert_ne!(first, typeset.lay_out(&other).unwrap());
}
