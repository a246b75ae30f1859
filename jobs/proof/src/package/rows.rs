//! Populations row by row: counted, in the order of their keys, the same in both forms, and drawn from as announced.

use super::{File, Population, Sample, archive::Archive};
use crate::{hash::Hash, verdict::Fault};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Seek},
};

/// No row is longer.
const LONGEST: u64 = 64 << 20;
const BUFFER: usize = 1 << 18;

/// Compares the files of a population with each other and with what the manifest says of them.
pub fn check<R: Read + Seek>(
    open: &mut dyn FnMut() -> Result<Archive<R>, Fault>,
    population: &Population,
    sample: &Sample,
    file: &dyn Fn(&str) -> Result<File, Fault>,
) -> Result<(), Fault> {
    let (mut one, mut other) = (open()?, open()?);
    let (csv, jsonl) = (file(&population.csv)?, file(&population.jsonl)?);
    let drawn = compare(one.read(&csv)?, other.read(&jsonl)?, population, Some(sample))?;
    let drawing = file(&population.sample.file)?;
    same_sample(one.read(&drawing)?, population, &drawn)
}

/// The first row in which the two forms differ; used too to find what was changed in one of them.
pub fn compare(
    csv: impl Read,
    jsonl: impl Read,
    population: &Population,
    sample: Option<&Sample>,
) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv);
    let mut jsonl = BufReader::with_capacity(BUFFER, jsonl);
    let (mut record, mut line) = (csv::StringRecord::new(), Vec::new());
    let wrong = |row: u64, what: String| Fault::tampered("rows_differ", what).in_file(&population.csv).at_row(row);
    let read = |csv: &mut csv::Reader<_>, record: &mut _, row| {
        csv.read_record(record).map_err(|_| wrong(row, "the row cannot be read as CSV".to_owned()))
    };
    if !read(&mut csv, &mut record, 1)? || record.iter().ne(population.columns.iter().map(String::as_str)) {
        return Err(wrong(1, "the names of the columns are not those of the manifest".to_owned()));
    }
    let (mut rows, mut last, mut drawn) = (0, None::<String>, BTreeMap::new());
    loop {
        line.clear();
        let taken = (&mut jsonl).take(LONGEST).read_until(b'\n', &mut line);
        let more = taken.map_err(|_| wrong(rows + 2, "the same row cannot be read in the JSONL".to_owned()))? > 0;
        match (read(&mut csv, &mut record, rows + 2)?, more) {
            (false, false) => break,
            (true, true) => {}
            (here, _) => {
                let longer = if here { &population.csv } else { &population.jsonl };
                let what =
                    format!("{longer} has more rows than its twin: a row was removed from one or added to the other");
                return Err(wrong(rows + 2, what));
            }
        }
        rows += 1;
        let object: Map<String, Value> = serde_json::from_slice(&line)
            .map_err(|_| wrong(rows + 1, "the same row is no JSON in the JSONL".to_owned()))?;
        let cells: Vec<String> =
            population.columns.iter().map(|column| object.get(column).map(text).unwrap_or_default()).collect();
        if object.len() != cells.len() || record.iter().ne(cells.iter().map(String::as_str)) {
            return Err(wrong(rows + 1, format!("the row differs from row {rows} of {}", population.jsonl)));
        }
        let key = cells.first().cloned().unwrap_or_default();
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(wrong(
                rows + 1,
                "the rows are not in the order of their keys: they were reordered, or one is there twice".to_owned(),
            ));
        }
        if let Some(sample) = sample {
            let rank = Hash::of_parts(&[sample.seed.as_bytes(), b"\n", key.as_bytes()]).hex();
            if drawn.len() < sample.size || drawn.last_key_value().is_some_and(|(last, _)| rank < *last) {
                drawn.insert(rank, cells);
                if drawn.len() > sample.size {
                    drawn.pop_last();
                }
            }
        }
        last = Some(key);
    }
    if rows != population.rows {
        let what = format!("the manifest tells {} rows, and there are {rows}", population.rows);
        return Err(Fault::tampered("count_differs", what).in_file(&population.csv));
    }
    Ok(drawn)
}

fn same_sample(file: impl Read, population: &Population, drawn: &BTreeMap<String, Vec<String>>) -> Result<(), Fault> {
    let wrong = |row: u64| {
        let what = "the sample is not what the seed draws from the population";
        Fault::tampered("sample_differs", what).in_file(&population.sample.file).at_row(row)
    };
    let mut csv = csv::ReaderBuilder::new().has_headers(true).flexible(true).from_reader(file);
    let mut expected = drawn.iter();
    let mut row = 1;
    for record in csv.records() {
        row += 1;
        let record = record.map_err(|_| wrong(row))?;
        let (rank, cells) = expected.next().ok_or_else(|| wrong(row))?;
        if record.iter().ne([rank.as_str()].into_iter().chain(cells.iter().map(String::as_str))) {
            return Err(wrong(row));
        }
    }
    if expected.next().is_some() || row - 1 != population.sample.rows { Err(wrong(row)) } else { Ok(()) }
}

/// A cell as CSV has it.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
