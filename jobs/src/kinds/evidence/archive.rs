//! The files of a package become one ZIP: the same files make the same bytes.

use super::files::{Room, Written};
use aws_lc_rs::digest::{Context, SHA256};
use keywright_stores::objects::Content;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// Of the archive in the room.
pub const ARCHIVE: &str = "package.zip";
/// A report is compressed already.
const STORED: &str = "report.pdf";
/// From here on an entry needs the larger form of its fields.
const LARGE: u64 = 0xF000_0000;
const LEVEL: i64 = 6;
const CHUNK: usize = 256 * 1024;

/// Files go in one after the other, so that a build can be interrupted between them.
pub struct Archive {
    zip: ZipWriter<File>,
    path: PathBuf,
}

impl Archive {
    pub fn begin(room: &Room) -> io::Result<Self> {
        let path = room.at(ARCHIVE);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { zip: ZipWriter::new(file), path })
    }

    /// Adds a finished file. No time, owner or order of the machine goes in.
    pub fn add(&mut self, room: &Room, file: &Written) -> io::Result<()> {
        let method = if file.path == STORED { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let level = (method == CompressionMethod::Deflated).then_some(LEVEL);
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .compression_level(level)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(file.size >= LARGE);
        self.zip.start_file(&file.path, options)?;
        let mut source = BufReader::with_capacity(CHUNK, File::open(room.at(&file.path))?);
        io::copy(&mut source, &mut self.zip).map(|_| ())
    }

    /// Where the archive lies, and what it holds.
    pub fn end(self) -> io::Result<(PathBuf, Content)> {
        let mut file = self.zip.finish()?;
        file.flush()?;
        file.seek(SeekFrom::Start(0))?;
        let content = content(&mut file)?;
        Ok((self.path, content))
    }
}

/// The size and the digest of a file.
pub fn content_of(path: &Path) -> io::Result<Content> {
    content(&mut File::open(path)?)
}

fn content(file: &mut File) -> io::Result<Content> {
    let (mut context, mut size) = (Context::new(&SHA256), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        let Some(read) = chunk.get(..read).filter(|read| !read.is_empty()) else { break };
        context.update(read);
        size += read.len() as u64;
    }
    let mut sha256 = [0; 32];
    sha256.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Ok(Content { size, sha256 })
}
