use super::*;
use crate::{
    checkpoint::Checkpoint,
    event::tests::event,
    keys::{KeyEntry, vouch},
    note::tests::{named, signer},
    tree::{self, Frontier, Node},
    verdict::{Fault, Kind},
};

const ORIGIN: &str = "keywright/test";
const EVERY: u64 = 10;

/// A log with all that an export needs of it.
struct Log {
    leaves: Vec<Hash>,
    details: Vec<String>,
    key: u8,
}

fn log(count: u64) -> Log {
    let mut log = Log { leaves: Vec::new(), details: Vec::new(), key: 1 };
    for seq in 0..count {
        log.append(&format!("e-{seq}"));
    }
    log
}

impl Log {
    fn append(&mut self, id: &str) {
        self.leaves.push(event(self.leaves.len() as u64, id).leaf().unwrap());
        self.details.push(id.to_owned());
    }

    fn frontier(&self, size: u64) -> Frontier {
        let mut frontier = Frontier::default();
        self.leaves[..size as usize].iter().for_each(|leaf| frontier.push(*leaf));
        frontier
    }

    fn hash(&self, node: Node) -> Hash {
        let mut frontier = Frontier::default();
        self.leaves[node.begin() as usize..node.end() as usize].iter().for_each(|leaf| frontier.push(*leaf));
        frontier.root()
    }

    fn checkpoint(&self, size: u64) -> Note {
        let time = Some(format!("2026-11-24T20:{:02}:00+00:00", size % 60));
        let root = self.frontier(size).root();
        Checkpoint { origin: ORIGIN.to_owned(), size, root, time }.sign(&signer(self.key)).unwrap()
    }

    fn export(&self, from: u64, to: u64) -> String {
        self.export_under(from, to, self.leaves.len() as u64)
    }

    fn export_under(&self, from: u64, to: u64, top: u64) -> String {
        let entry = |number: u8, voucher| KeyEntry {
            verifier_key: signer(number).verifier().to_string(),
            created_at: "2026-01-01T00:00:00+00:00".to_owned(),
            retired_at: None,
            voucher,
        };
        let header = Header {
            format: FORMAT.to_owned(),
            origin: ORIGIN.to_owned(),
            exported_at: "2026-11-24T22:00:00+00:00".to_owned(),
            from,
            to,
            checkpoint: self.checkpoint(top).to_string(),
            before: self.frontier(from).peaks(),
            after: tree::cover(to, top).into_iter().map(|node| self.hash(node)).collect(),
            cut: None,
            keys: KeyHistory {
                keys: vec![
                    entry(9, None),
                    entry(
                        1,
                        Some(vouch(&signer(9), signer(1).verifier(), "2026-01-01T00:00:00+00:00").unwrap().to_string()),
                    ),
                ],
            },
        };
        let mut out = Vec::new();
        let mut writer = Writer::begin(&header, &mut out).unwrap();
        for seq in from..to {
            let event = event(seq, &self.details[seq as usize]);
            let actor = (seq % 7 != 0).then(|| Name::new(&[7; SALT], "ada"));
            writer.event(&event, &self.leaves[seq as usize], &Names { actor, subject: None }, &mut out).unwrap();
            if (seq + 1).is_multiple_of(EVERY) {
                writer.checkpoint(&self.checkpoint(seq + 1).to_string(), &mut out).unwrap();
            }
        }
        writer.end(&signer(self.key), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }
}

fn inputs(key: u8) -> Inputs {
    Inputs { keys: vec![signer(key).verifier().clone()], ..Inputs::default() }
}

fn check(file: &str, inputs: &Inputs) -> Result<Report, Fault> {
    verify(file.as_bytes(), inputs)
}

#[test]
fn a_whole_log_is_valid_with_its_key_and_with_one_that_vouches() {
    let file = log(25).export(0, 25);
    let report = check(&file, &inputs(1)).unwrap();
    assert_eq!((report.from, report.to, report.checkpoint.size, report.checkpoints), (0, 25, 25, 2));
    assert_eq!((report.erased_names, &report.key), (4, signer(1).verifier()));
    check(&file, &inputs(9)).unwrap();
    check(&log(0).export(0, 0), &inputs(1)).unwrap();
}

#[test]
fn parts_say_that_they_are_parts() {
    let log = log(25);
    for (from, to) in [(0, 7), (7, 25), (3, 21), (8, 16), (12, 12)] {
        let file = log.export(from, to);
        let fault = check(&file, &inputs(1)).unwrap_err();
        assert_eq!((fault.kind, fault.code), (Kind::Incomplete, "part_of_the_log"));
        assert!(check(&file, &Inputs { part: true, ..inputs(1) }).is_ok(), "{from} {to}");
    }
}

/// The lines of an export with something done to them.
fn lines(file: &str, change: impl Fn(&mut Vec<String>)) -> String {
    let mut lines: Vec<String> = file.lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    lines.concat()
}

/// What a change is called, where it is found, and that it is.
#[test]
fn the_tamper_table() {
    let file = log(25).export(0, 25);
    let found = |file: &str| {
        let fault = check(file, &inputs(1)).unwrap_err();
        (fault.kind as u8, fault.code, fault.row, fault.event)
    };
    // event n stands in row n + 2, and one further for every checkpoint before it
    let edited = lines(&file, |lines| lines[5] = lines[5].replace("viewer", "admin!"));
    assert_eq!(found(&edited), (1, "event_changed", Some(6), Some(4)));
    let removed = lines(&file, |lines| drop(lines.remove(5)));
    assert_eq!(found(&removed), (1, "event_missing", Some(6), Some(4)));
    let added = lines(&file, |lines| lines.insert(5, lines[4].clone()));
    assert_eq!(found(&added), (1, "event_out_of_order", Some(6), Some(3)));
    let reordered = lines(&file, |lines| lines.swap(4, 5));
    assert_eq!(found(&reordered), (1, "event_missing", Some(5), Some(3)));
    let truncated = lines(&file, |lines| lines.truncate(20));
    assert_eq!(found(&truncated), (2, "cut_short", Some(20), None));
    assert_eq!(found(&file[..file.len() - 1]), (2, "cut_short", Some(29), None));
    let tail_removed = lines(&file, |lines| drop(lines.drain(26..28)));
    assert_eq!(found(&tail_removed), (1, "event_missing", Some(27), Some(23)));
    let more = lines(&file, |lines| lines.push(lines[27].clone()));
    assert_eq!(found(&more), (1, "row_added", Some(30), None));
    let beyond = lines(&file, |lines| {
        let line = lines[27].replace("\\\"seq\\\":\\\"24\\\"", "").replace("\"seq\":\"24\"", "\"seq\":\"25\"");
        lines.insert(28, line);
    });
    assert_eq!(found(&beyond), (1, "row_added", Some(29), Some(25)));
    let renamed = lines(&file, |lines| lines[5] = lines[5].replace("\"text\":\"ada\"", "\"text\":\"eve\""));
    assert_eq!(found(&renamed), (1, "name_changed", Some(6), Some(4)));
    let hidden = lines(&file, |lines| {
        let at = lines[5].find(",\"names\":{\"actor\"").unwrap();
        let line = format!("{}}}\n", &lines[5][..at]);
        lines[5] = line;
    });
    assert_eq!(found(&hidden), (1, "bytes_changed", Some(29), None));
    let spaced = lines(&file, |lines| lines[5] = lines[5].replace(",\"leaf\"", ", \"leaf\""));
    assert_eq!(found(&spaced), (1, "bytes_changed", Some(29), None));
    let end_spaced = lines(&file, |lines| lines[28] = lines[28].replace("{\"end\":", "{\"end\": "));
    assert_eq!(found(&end_spaced), (1, "bytes_changed", Some(29), None));
    let moved = lines(&file, |lines| lines.swap(11, 12));
    assert_eq!(found(&moved), (1, "checkpoint_misplaced", Some(13), None));
    assert_eq!(found(""), (2, "empty", None, None));
    assert_eq!(found("{}\n"), (1, "header_missing", Some(1), None));
}

/// Somebody who can hash but not sign.
#[test]
fn a_change_with_its_hash_is_found_at_the_next_checkpoint() {
    let mut forged = log(25);
    let file = forged.export(0, 25);
    forged.details[14] = "e-x".to_owned();
    forged.leaves[14] = event(14, "e-x").leaf().unwrap();
    let theirs: Vec<String> = forged.export(0, 25).lines().map(str::to_owned).collect();
    let changed = lines(&file, |lines| lines[16] = format!("{}\n", theirs[16]));
    let fault = check(&changed, &inputs(1)).unwrap_err();
    assert_eq!((fault.kind, fault.code, fault.row), (Kind::Tampered, "root_differs", Some(23)), "{fault}");
    assert!(fault.what.contains("10 to 19"), "{fault}");
}

#[test]
fn signatures_are_by_the_key_that_was_given() {
    let log = log(25);
    let file = log.export(0, 25);
    let fault = check(&file, &inputs(2)).unwrap_err();
    assert_eq!((fault.kind, fault.code, fault.row), (Kind::Tampered, "other_key", Some(1)));
    // everything made anew by somebody with a key of the same name
    let eve = named("keywright/test/1", 66);
    let resigned = lines(&file, |lines| {
        let note = Checkpoint::parse(log.checkpoint(25).unverified()).unwrap().sign(&eve).unwrap().to_string();
        let (from, to) =
            (serde_json::to_string(&log.checkpoint(25).to_string()).unwrap(), serde_json::to_string(&note).unwrap());
        lines[0] = lines[0].replace(&from, &to);
    });
    assert_ne!(resigned, file);
    assert_eq!(check(&resigned, &inputs(1)).unwrap_err().code, "other_key");
    // the signature of another checkpoint
    let swapped = lines(&file, |lines| {
        let signature = |note: Note| note.to_string().rsplit(' ').next().unwrap().trim().to_owned();
        lines[0] = lines[0].replace(&signature(log.checkpoint(25)), &signature(log.checkpoint(24)));
    });
    assert_ne!(swapped, file);
    let fault = check(&swapped, &inputs(1)).unwrap_err();
    assert_eq!((fault.kind, fault.code, fault.row), (Kind::Tampered, "signature_wrong", Some(1)));
}

/// The operator, with the key, makes another history.
#[test]
fn a_kept_checkpoint_tells_a_history_that_was_rewritten() {
    let (ours, mut theirs) = (log(25), log(6));
    theirs.append("e-other");
    (7..25).for_each(|seq| theirs.append(&format!("e-{seq}")));
    let kept = |size| Inputs { checkpoints: vec![("kept.note".to_owned(), ours.checkpoint(size))], ..inputs(1) };
    for size in [0, 6, 7, 13, 25] {
        check(&ours.export(0, 25), &kept(size)).unwrap();
        let rewritten = check(&theirs.export(0, 25), &kept(size));
        match size {
            0 | 6 => assert!(rewritten.is_ok()),
            _ => {
                let fault = rewritten.unwrap_err();
                assert_eq!(
                    (fault.kind, fault.code, fault.row),
                    (
                        Kind::Tampered,
                        "history_rewritten",
                        Some(size + 1 + (size + 1) / EVERY).filter(|_| size < 20).or(Some(28))
                    ),
                    "{fault}"
                );
            }
        }
    }
    // a log that was cut off and signed anew
    let fault = check(&ours.export_under(0, 20, 20), &kept(25)).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Tampered, "log_shrunk"));
    // a checkpoint before the first event of a part
    let part = Inputs { part: true, ..kept(13) };
    let fault = check(&ours.export(20, 25), &part).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Incomplete, "checkpoint_not_compared"));
    let nodes = tree::consistency_nodes(13, 25).unwrap();
    let proof = |log: &Log| ConsistencyProof {
        from: 13,
        to: 25,
        hashes: tree::consistency(&nodes, |node| Some(log.hash(node))).unwrap(),
    };
    check(&ours.export(20, 25), &Inputs { proofs: vec![proof(&ours)], ..part.clone() }).unwrap();
    let fault = check(&theirs.export(20, 25), &Inputs { proofs: vec![proof(&theirs)], ..part }).unwrap_err();
    assert_eq!(fault.code, "history_rewritten");
    // the checkpoint of a log that has another name
    let other =
        Checkpoint { origin: "keywright/other".to_owned(), size: 25, root: ours.frontier(25).root(), time: None };
    let other = Inputs { checkpoints: vec![("kept.note".to_owned(), other.sign(&signer(1)).unwrap())], ..inputs(1) };
    assert_eq!(check(&ours.export(0, 25), &other).unwrap_err().code, "other_log");
}

#[test]
fn what_retention_cut_is_what_it_said() {
    let ours = log(25);
    let cut = |size, of: &Log| Cut {
        origin: ORIGIN.to_owned(),
        size,
        root: of.frontier(size).root(),
        since: 0,
        time: "2026-11-24T21:00:00+00:00".to_owned(),
    };
    let with = |cut: &Cut| {
        let note = serde_json::to_string(&cut.sign(&signer(1)).unwrap().to_string()).unwrap();
        lines(&ours.export(20, 25), |lines| lines[0] = lines[0].replace("\"cut\":null", &format!("\"cut\":{note}")))
    };
    // the last line is over other bytes, which is found last of all
    assert_eq!(check(&with(&cut(20, &ours)), &inputs(1)).unwrap_err().code, "bytes_changed");
    let mut other = log(20);
    other.leaves[3] = Hash::of(b"other");
    assert_eq!(check(&with(&cut(20, &other)), &inputs(1)).unwrap_err().code, "header_changed");
    let parsed = cut(20, &ours);
    assert_eq!(Cut::parse(&parsed.to_string()).unwrap(), parsed);
}

/// No byte of a file can be another one.
#[test]
fn every_byte_counts() {
    let file = log(11).export(0, 11).into_bytes();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(verify(changed.as_slice(), &inputs(1)).is_err(), "byte {at}");
    }
}
