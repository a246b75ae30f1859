//! What the report of a package tells: decided here, laid out by the worker.

use super::{
    build::Told,
    files::{HEAD, Population, text},
    source::Source,
};
use crate::{
    domain::evidence::Standing,
    evidence::{Attachment, Figure, Report, Section, Table},
};
use serde_json::Value;

/// All attachments together are at most this large; what does not fit is named with its hash.
const MOST_ATTACHED: u64 = 32 * 1024 * 1024;

/// What is shown of a population: its title, the columns with their widths.
struct Shown {
    population: &'static str,
    title: &'static str,
    columns: &'static [(&'static str, u32)],
}

const INVENTORY: &[Shown] = &[Shown {
    population: "subscriptions",
    title: "Subscriptions",
    columns: &[
        ("provider", 2),
        ("externalId", 4),
        ("name", 4),
        ("enabled", 2),
        ("lastScanAt", 4),
        ("lastScanState", 2),
    ],
}];
const COVERAGE: &[Shown] = &[
    Shown {
        population: "scans",
        title: "Scans",
        columns: &[("id", 5), ("mode", 2), ("state", 2), ("completedAt", 4), ("scopes", 2), ("scopesSucceeded", 3)],
    },
    Shown {
        population: "gaps",
        title: "Gaps: what this package cannot tell",
        columns: &[("gap", 4), ("region", 3), ("kind", 4), ("path", 4), ("code", 4), ("detail", 6)],
    },
];
const AUDIT: &[Shown] = &[
    Shown {
        population: "approvals",
        title: "Approvals",
        columns: &[("action", 3), ("state", 2), ("requestedById", 4), ("decidedById", 4), ("decidedAt", 4)],
    },
    Shown {
        population: "users",
        title: "Users, by reference",
        columns: &[("id", 5), ("role", 2), ("disabled", 2), ("signIn", 2), ("createdAt", 4)],
    },
];

/// The report, with as many of the CSV files as may travel in it named as attachments.
pub fn report(source: &Source<'_>, told: &Told, version: &str, verifier_key: &str) -> Report {
    let package = source.package;
    let organisation = match source.organisation() {
        "" => "(not named by the operator)".to_owned(),
        name => name.to_owned(),
    };
    let actor = [
        Some(package.requested_by_type.to_string()),
        package.requested_by_name.clone(),
        package.requested_by_id.clone(),
    ];
    let actor: Vec<String> = actor.into_iter().flatten().collect();
    let about = match (source.subscriptions.len(), package.restricted) {
        (n, true) => format!("{n} subscriptions, those that whoever asked may see"),
        (n, false) if source.everything => format!("everything: {n} subscriptions"),
        (n, false) => format!("{n} subscriptions, those that were asked for"),
    };
    let spelled = super::request::spelled;
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let cover = vec![
        fact("Organisation", organisation),
        fact("Scope", about),
        fact("Period", format!("{} to {}", spelled(package.period_from), spelled(package.as_of))),
        fact("Exported at", spelled(package.created_at)),
        fact("Requested by", actor.join(", ")),
        fact("Package", package.id.to_string()),
        fact("Made by", format!("Keywright {version}")),
        fact("Signed by", verifier_key.to_owned()),
    ];
    Report {
        title: "Evidence package".to_owned(),
        package: package.id.to_string(),
        exported_at: package.created_at,
        cover,
        sections: sections(source, told),
        assertion: assertion(source),
        attachments: Vec::new(),
    }
}

/// Which CSV files travel in the report: the first ones that fit.
pub fn attached(told: &Told) -> Vec<&Population> {
    let mut left = MOST_ATTACHED;
    let fits = |population: &&Population| {
        let fits = population.csv.size <= left;
        left -= if fits { population.csv.size } else { 0 };
        fits
    };
    told.populations.iter().filter(fits).collect()
}

/// A CSV as an attachment.
pub fn attachment(population: &Population, bytes: Vec<u8>) -> Attachment {
    Attachment {
        name: format!("{}.csv", population.name),
        description: format!("{} rows, SHA-256 {}", population.rows, population.csv.sha256),
        bytes,
    }
}

fn sections(source: &Source<'_>, told: &Told) -> Vec<Section> {
    let mut sections = vec![contents(told)];
    let title = |name: &str| match name {
        "policy" => "Policy",
        "inventory" => "Inventory",
        "coverage" => "Coverage",
        "audit" => "Audit",
        "score" => "Compliance score",
        "violations" => "Violations",
        "cis" => "CIS benchmarks",
        "exceptions" => "Exceptions",
        "rotation" => "Rotation",
        _ => "Sync",
    };
    for (name, standing) in &told.sections {
        let mut section = Section { title: title(name).to_owned(), ..Section::default() };
        let said = match standing {
            Standing::NotRequested => Some("This section was not asked for."),
            Standing::NotPermitted => Some("Whoever asked for this package may not see what this section would tell."),
            Standing::NotInThisVersion => Some(
                "This version of Keywright does not have this part. Nothing is told, and nothing may be concluded from that.",
            ),
            Standing::Included => None,
        };
        match said {
            Some(said) => section.paragraphs.push(said.to_owned()),
            None => fill(&mut section, name, source, told),
        }
        sections.push(section);
    }
    sections
}

fn fill(section: &mut Section, name: &str, source: &Source<'_>, told: &Told) {
    match name {
        "policy" => section.tables.push(policy(source.frozen("settings"))),
        "inventory" => {
            section.paragraphs.push(format!(
                "Assets as they were known immediately before {}.",
                super::request::spelled(source.as_of())
            ));
            section.figures.extend([
                figure(told, "Assets by type", ("assets", "type")),
                figure(told, "Assets by status", ("assets", "status")),
            ]);
            section.tables.extend(INVENTORY.iter().filter_map(|shown| table(told, shown)));
            section.tables.extend(sample(told));
        }
        "coverage" => {
            section.figures.extend([
                figure(told, "Scopes by outcome", ("scopes", "state")),
                figure(told, "Gaps by kind", ("gaps", "gap")),
            ]);
            section.tables.extend(COVERAGE.iter().filter_map(|shown| table(told, shown)));
        }
        _ => {
            section.paragraphs.push(match &told.events {
                Some(events) => format!(
                    "{} events of the audit log, those from number {} on, are in {} beside this report (SHA-256 {}), each provably in the \
                     log of {} events whose checkpoint is signed in that file. keywright-verify compares them with the jobs below.",
                    events.count(),
                    events.chosen.from,
                    events.file.path,
                    events.file.sha256,
                    events.chosen.covered,
                ),
                None => "Whoever asked for this package may not see the audit log, which tells of everything.".to_owned(),
            });
            section.figures.push(figure(told, "Jobs by outcome", ("jobs", "state")));
            section.tables.extend(AUDIT.iter().filter_map(|shown| table(told, shown)));
        }
    }
}

/// Every CSV with its rows and its hash, and how the rows were counted.
fn contents(told: &Told) -> Section {
    let attached: Vec<&str> = attached(told).iter().map(|population| population.name).collect();
    let file = |population: &Population| {
        let inside = if attached.contains(&population.name) { "yes" } else { "no" };
        vec![
            format!("{}.csv", population.name),
            population.rows.to_string(),
            population.csv.sha256.clone(),
            inside.to_owned(),
        ]
    };
    let counted = told.populations.iter().flat_map(|population| {
        let counts = told.counts.get(population.name).into_iter().flatten();
        counts.map(move |(how, other)| (population, how, *other))
    });
    let count = |(population, how, other): (&Population, &String, u64)| {
        let difference = i128::from(other) - i128::from(population.rows);
        vec![
            population.name.to_owned(),
            population.rows.to_string(),
            how.clone(),
            other.to_string(),
            difference.to_string(),
        ]
    };
    let words = |columns: &[&str]| columns.iter().map(|column| (*column).to_owned()).collect();
    Section {
        title: "Contents".to_owned(),
        paragraphs: vec![
            "The files below are in the package beside this report, byte for byte; those marked are attached to this document too. \
             The hash of a file is what sha256sum prints for it."
                .to_owned(),
        ],
        figures: Vec::new(),
        tables: vec![
            Table {
                title: "Files".to_owned(),
                columns: words(&["file", "rows", "SHA-256", "attached"]),
                widths: vec![3, 2, 8, 2],
                rows: told.populations.iter().map(file).collect(),
                note: String::new(),
            },
            Table {
                title: "How rows were counted".to_owned(),
                columns: words(&["population", "rows", "counted otherwise", "rows", "difference"]),
                widths: vec![3, 2, 7, 2, 2],
                rows: counted.map(count).collect(),
                note: String::new(),
            },
        ],
    }
}

fn policy(settings: &Value) -> Table {
    let mut rows = Vec::new();
    flatten("", settings, &mut rows);
    Table {
        title: "Settings in force when the package was asked for".to_owned(),
        columns: vec!["setting".to_owned(), "value".to_owned()],
        widths: vec![1, 2],
        rows,
        note: String::new(),
    }
}

fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, rows);
            }
        }
        value => rows.push(vec![path.to_owned(), text(value)]),
    }
}

fn figure(told: &Told, title: &str, of: (&'static str, &'static str)) -> Figure {
    let met = told.figures.get(&of).into_iter().flatten();
    let bars = met.map(|(value, n)| (if value.is_empty() { "(none)".to_owned() } else { value.clone() }, *n)).collect();
    Figure { title: title.to_owned(), bars }
}

fn table(told: &Told, shown: &Shown) -> Option<Table> {
    let population = told.population(shown.population)?;
    let note = if population.rows > HEAD as u64 {
        format!("The first {HEAD} of {} rows; all are in {}.csv.", population.rows, population.name)
    } else {
        String::new()
    };
    Some(rows_of(population, shown.title, shown.columns, &population.head, note))
}

fn sample(told: &Told) -> Option<Table> {
    let population = told.population("assets")?;
    let columns = &[("name", 6), ("type", 2), ("region", 2), ("status", 2), ("expiresAt", 4), ("owner", 3)];
    let shown = population.drawn.get(..population.drawn.len().min(HEAD)).unwrap_or_default();
    let note = format!(
        "{} of {} rows, drawn as README.txt describes; all drawn are in sample/assets.csv.",
        population.drawn.len(),
        population.rows
    );
    Some(rows_of(population, "Sample of assets", columns, shown, note))
}

fn rows_of(population: &Population, title: &str, columns: &[(&str, u32)], rows: &[Vec<Value>], note: String) -> Table {
    let places: Vec<Option<usize>> =
        columns.iter().map(|(column, _)| population.columns.iter().position(|name| name == column)).collect();
    let cells = |row: &Vec<Value>| {
        places.iter().map(|place| place.and_then(|place| row.get(place)).map(text).unwrap_or_default()).collect()
    };
    Table {
        title: title.to_owned(),
        columns: columns.iter().map(|(column, _)| (*column).to_owned()).collect(),
        widths: columns.iter().map(|(_, width)| *width).collect(),
        rows: rows.iter().map(cells).collect(),
        note,
    }
}

fn assertion(source: &Source<'_>) -> Vec<String> {
    let package = source.package;
    let spelled = super::request::spelled;
    vec![
        format!(
            "We are responsible for the information in the evidence package {}, which was produced by Keywright at {} and covers the \
             period from {} to {}.",
            package.id,
            spelled(package.created_at),
            spelled(package.period_from),
            spelled(package.as_of),
        ),
        "We assert, in the sense of AT-C section 105, that to the best of our knowledge and belief the package is complete and \
         accurate within the scope and with the gaps that it names; that the accounts, projects and machines listed are those \
         within the scope of the engagement; and that nobody changed the package after it was exported."
            .to_owned(),
        "Exceptions to this assertion, if any:".to_owned(),
    ]
}
