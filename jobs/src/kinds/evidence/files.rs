//! The files of a package while it is being built: in a directory of the attempt's own, each hashed as it is written.

use super::populations::object;
use crate::domain::evidence::Draw;
use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The rows of a population that a report shows at most.
pub const HEAD: usize = 200;

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Within the package, with `/` between folders.
    pub path: String,
    pub size: u64,
    /// In hex.
    pub sha256: String,
    /// Of populations and samples: rows, without the line of names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// The attempt's directory; gone with its value.
pub struct Room {
    folder: PathBuf,
    files: Vec<Written>,
}

impl Room {
    /// Makes an empty one for this attempt. What attempts before it left of the same job goes.
    pub fn make(parent: &Path, job: Uuid, epoch: i64) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let own = format!("{job}.");
        for entry in fs::read_dir(parent)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&own) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let folder = parent.join(format!("{own}{epoch}"));
        fs::create_dir(&folder)?;
        Ok(Self { folder, files: Vec::new() })
    }

    /// The jobs whose directories lie in `parent`.
    pub fn jobs(parent: &Path) -> Vec<(Uuid, PathBuf)> {
        let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
        let of = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name.split_once('.')?.0.parse().ok()?, entry.path()))
        };
        entries.flatten().filter_map(of).collect()
    }

    /// Where a file of the package lies now.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// What has been finished, in the order of paths.
    pub fn files(&self) -> Vec<Written> {
        let mut files = self.files.clone();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }

    /// Begins a file of the package.
    pub fn begin(&self, path: &str) -> io::Result<Hashing> {
        let place = self.at(path);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Hashing {
            path: path.to_owned(),
            file: BufWriter::new(File::create(place)?),
            context: Context::new(&SHA256),
            size: 0,
        })
    }

    /// A file of the package is complete.
    pub fn end(&mut self, file: Hashing, rows: Option<u64>) -> io::Result<Written> {
        let Hashing { path, mut file, context, size } = file;
        file.flush()?;
        let written = Written { path, size, sha256: hex::encode(context.finish()), rows };
        self.files.push(written.clone());
        Ok(written)
    }

    /// Writes a whole file of the package.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> io::Result<Written> {
        let mut file = self.begin(path)?;
        file.write_all(bytes)?;
        self.end(file, None)
    }

    /// Writes a value as JSON for people and programs.
    pub fn write_json(&mut self, path: &str, value: &Value) -> io::Result<Written> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        self.write(path, text.as_bytes())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // what stays goes with the next attempt
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A file that is hashed as it is written.
pub struct Hashing {
    path: String,
    file: BufWriter<File>,
    context: Context,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A population on its way into its two files, and the sample that is drawn from it.
pub struct PopulationFiles {
    columns: &'static [&'static str],
    csv: csv::Writer<Hashing>,
    jsonl: Hashing,
    rows: u64,
    draw: Draw<Vec<Value>>,
    head: Vec<Vec<Value>>,
    name: &'static str,
}

impl PopulationFiles {
    pub fn begin(
        room: &Room,
        name: &'static str,
        columns: &'static [&'static str],
        draw: Draw<Vec<Value>>,
    ) -> io::Result<Self> {
        let mut csv = csv::Writer::from_writer(room.begin(&format!("population/{name}.csv"))?);
        csv.write_record(columns)?;
        let jsonl = room.begin(&format!("population/{name}.jsonl"))?;
        Ok(Self { columns, csv, jsonl, rows: 0, draw, head: Vec::new(), name })
    }

    pub fn row(&mut self, cells: &[Value]) -> io::Result<()> {
        self.csv.write_record(cells.iter().map(text))?;
        serde_json::to_writer(&mut self.jsonl, &object(self.columns, cells))?;
        self.jsonl.write_all(b"\n")?;
        self.rows += 1;
        let key = cells.first().map(text).unwrap_or_default();
        self.draw.offer(&key, || cells.to_vec());
        if self.head.len() < HEAD {
            self.head.push(cells.to_vec());
        }
        Ok(())
    }

    /// Finishes both files and writes the sample; tells the rows of all, and those drawn.
    pub fn end(self, room: &mut Room) -> io::Result<Population> {
        let csv = self.csv.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        let csv = room.end(csv, Some(self.rows))?;
        room.end(self.jsonl, Some(self.rows))?;
        let drawn = self.draw.drawn();
        let mut sample = csv::Writer::from_writer(room.begin(&format!("sample/{}.csv", self.name))?);
        sample.write_record(["rank"].iter().chain(self.columns))?;
        for (rank, cells) in &drawn {
            sample.write_record([rank.clone()].into_iter().chain(cells.iter().map(text)))?;
        }
        let sample = sample.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        let sample = room.end(sample, Some(drawn.len() as u64))?;
        let drawn = drawn.into_values().collect();
        let (name, columns, rows) = (self.name, self.columns, self.rows);
        Ok(Population { name, columns, rows, csv, sample, drawn, head: self.head })
    }
}

/// A population that was written.
pub struct Population {
    pub name: &'static str,
    pub columns: &'static [&'static str],
    pub rows: u64,
    pub csv: Written,
    pub sample: Written,
    pub drawn: Vec<Vec<Value>>,
    /// The first rows.
    pub head: Vec<Vec<Value>>,
}

/// A cell as CSV has it: words bare, nothing for null, the rest as JSON. Nothing is put before formulas: a population is for
/// programs, and what is hashed is what was seen.
pub fn text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
