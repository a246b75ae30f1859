//! The ZIP as an attacker may have made it: nothing is read beyond what the manifest announces, and nothing may lie in it that it
//! does not list.

use super::{File, MANIFEST, SIGNATURE};
use crate::{hash::Hasher, verdict::Fault};
use std::{
    collections::BTreeSet,
    io::{self, Read, Seek, SeekFrom},
};
use zip::ZipArchive;

/// Longer than any manifest or signature.
const MOST: u64 = 64 << 20;
/// The end of a ZIP without a remark: its mark, and its length.
const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: i64 = 22;
const CHUNK: usize = 1 << 18;

pub struct Archive<R> {
    zip: ZipArchive<R>,
}

impl<R: Read + Seek> Archive<R> {
    /// # Errors
    /// A fault when it is no whole ZIP, or holds something beside its entries.
    pub fn open(mut reader: R) -> Result<Self, Fault> {
        let cut = || Fault::incomplete("not_whole", "the file is no whole ZIP: it was cut off, or not loaded whole");
        let mut end = [0; END_LENGTH as usize];
        reader.seek(SeekFrom::End(-END_LENGTH)).map_err(|_| cut())?;
        reader.read_exact(&mut end).map_err(|_| cut())?;
        if !end.starts_with(END) {
            return Err(cut());
        }
        let zip = ZipArchive::new(reader).map_err(|_| cut())?;
        let mut archive = Self { zip };
        archive.nothing_between()?;
        Ok(archive)
    }

    /// Entries follow each other without a gap, from the first byte to the directory: a second entry of the same name, which some
    /// programs would unpack instead, has no place.
    fn nothing_between(&mut self) -> Result<(), Fault> {
        let hidden = || Fault::tampered("hidden_data", "there is data in the ZIP that belongs to none of its files");
        let mut places = Vec::with_capacity(self.zip.len());
        for number in 0..self.zip.len() {
            let entry = self.zip.by_index_raw(number).map_err(|_| hidden())?;
            let end = entry.data_start().and_then(|start| start.checked_add(entry.compressed_size()));
            places.push((entry.header_start(), end.ok_or_else(hidden)?));
        }
        places.sort_unstable();
        let mut at = 0;
        for (start, end) in places {
            if start != at {
                return Err(hidden());
            }
            at = end;
        }
        if at == self.zip.central_directory_start() { Ok(()) } else { Err(hidden()) }
    }

    /// A file that is read whole; `None` when there is none.
    pub fn small(&mut self, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        let Ok(entry) = self.zip.by_name(path) else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = entry.take(MOST).read_to_end(&mut bytes);
        read.map(|_| Some(bytes)).map_err(|_| changed(path))
    }

    /// A file as a stream, at most as long as announced.
    pub fn read(&mut self, file: &File) -> Result<impl Read + '_, Fault> {
        let entry = self.zip.by_name(&file.path).map_err(|_| removed(&file.path))?;
        Ok(entry.take(file.size))
    }

    /// Whether the file is what the manifest says.
    pub fn is_as_listed(&mut self, file: &File) -> Result<bool, Fault> {
        let entry = self.zip.by_name(&file.path).map_err(|_| removed(&file.path))?;
        let mut entry = entry.take(file.size.saturating_add(1));
        let (mut hasher, mut size, mut chunk) = (Hasher::default(), 0, vec![0; CHUNK]);
        loop {
            let read = match entry.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => chunk.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            hasher.update(read);
            size += read.len() as u64;
        }
        Ok(size == file.size && hasher.finish().hex() == file.sha256)
    }

    /// Nothing is missing, and nothing is there that the manifest does not list.
    pub fn holds_exactly(&self, files: &[File]) -> Result<(), Fault> {
        let listed: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        if listed.len() != files.len() || listed.contains(MANIFEST) || listed.contains(SIGNATURE) {
            return Err(Fault::tampered("manifest_contradicts_itself", "a file is listed twice").in_file(MANIFEST));
        }
        let mut there = BTreeSet::new();
        for name in self.zip.file_names() {
            let added = "the file is in the package but not in its manifest: it was added";
            let name = name.map_err(|_| Fault::tampered("file_added", added))?.into_owned();
            if !listed.contains(name.as_str()) && ![MANIFEST, SIGNATURE].contains(&name.as_str()) {
                return Err(Fault::tampered("file_added", added).in_file(name));
            }
            there.insert(name);
        }
        match listed.iter().find(|path| !there.contains(**path)) {
            Some(path) => Err(removed(path)),
            None => Ok(()),
        }
    }
}

fn removed(path: &str) -> Fault {
    let what = "the manifest lists the file, but it is not in the package: it was removed";
    Fault::tampered("file_removed", what).in_file(path)
}

pub fn changed(path: &str) -> Fault {
    Fault::tampered("file_changed", "the file is not what was signed").in_file(path)
}
