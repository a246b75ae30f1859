//! Opening files that somebody else laid out: never a device or a pipe, never more than a limit.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
};
use zeroize::Zeroizing;

/// Why a file was not read: a stable code and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub detail: String,
}

impl Refusal {
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// The owner and the mode bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl From<&Metadata> for Protection {
    fn from(metadata: &Metadata) -> Self {
        Self { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// An opened regular file.
pub struct Opened {
    file: File,
    pub metadata: Metadata,
    /// Overwritten when dropped: it may hold a private key.
    bytes: Zeroizing<Vec<u8>>,
}

/// Opens `path` if a regular file is behind it.
///
/// # Errors
/// `unreadable` or `not_a_regular_file`.
pub fn open(path: &Path) -> Result<Opened, Refusal> {
    // asked before opening, because opening some devices already does something
    refuse_special(&path.metadata().map_err(|error| unreadable(&error))?)?;
    // and without blocking, in case a pipe took the file's place since
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    refuse_special(&metadata)?;
    Ok(Opened { file, metadata, bytes: Zeroizing::new(Vec::new()) })
}

impl Opened {
    /// The first bytes of the file, at most `count`.
    ///
    /// # Errors
    /// `unreadable`.
    pub fn start(&mut self, count: u64) -> Result<&[u8], Refusal> {
        self.read_to(count)?;
        Ok(&self.bytes)
    }

    /// All bytes of the file.
    ///
    /// # Errors
    /// `unreadable`, or `too_large` over `limit` bytes.
    pub fn whole(mut self, limit: u64) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        if self.metadata.len() <= limit {
            self.read_to(limit + 1)?;
        }
        let read = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        if self.metadata.len() > limit || read > limit {
            let size = self.metadata.len().max(read);
            return Err(Refusal::new("too_large", format!("the file has {size} bytes, over the limit of {limit}")));
        }
        Ok(self.bytes)
    }

    fn read_to(&mut self, end: u64) -> Result<(), Refusal> {
        let missing = end.saturating_sub(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX));
        // room for the whole file at once, so that growing leaves no copies of a key behind
        let room = missing.min(self.metadata.len().saturating_add(1));
        let mut grown = Zeroizing::new(Vec::with_capacity(self.bytes.len() + usize::try_from(room).unwrap_or(0)));
        grown.extend_from_slice(&self.bytes);
        (&self.file).take(missing).read_to_end(&mut grown).map_err(|error| unreadable(&error))?;
        self.bytes = grown;
        Ok(())
    }
}

/// Opens and reads a whole file.
///
/// # Errors
/// As [`open`] and [`Opened::whole`].
pub fn whole(path: &Path, limit: u64) -> Result<(Metadata, Zeroizing<Vec<u8>>), Refusal> {
    let opened = open(path)?;
    let metadata = opened.metadata.clone();
    Ok((metadata, opened.whole(limit)?))
}

/// An error of the file system as a reason.
pub fn unreadable(error: &io::Error) -> Refusal {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) => {
            Refusal::new("unreadable", "the worker has no permission to read it; let its user read it")
        }
        (io::ErrorKind::NotFound, _) => Refusal::new("path_missing", "there is nothing at this path"),
        (_, Some(libc::ELOOP)) => Refusal::new("symlink_loop", "the link leads back to itself"),
        (kind, _) => Refusal::new("unreadable", format!("the system could not read it: {kind}")),
    }
}

fn refuse_special(metadata: &Metadata) -> Result<(), Refusal> {
    let kind = metadata.file_type();
    let name = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () if kind.is_dir() => "a directory",
        () => "neither a file nor a directory",
    };
    Err(Refusal::new("not_a_regular_file", format!("this is {name}, which is never opened")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::net::UnixListener};

    #[test]
    fn reads_in_two_steps_what_is_under_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        let mut opened = open(&path).unwrap();
        assert_eq!(opened.start(4).unwrap(), b"0123");
        assert_eq!(opened.whole(10).unwrap().as_slice(), b"0123456789");
        assert_eq!(whole(&path, 9).unwrap_err().code, "too_large");
    }

    #[test]
    fn errors_of_the_system_become_stable_words() {
        let cases = [
            (io::Error::from(io::ErrorKind::PermissionDenied), "unreadable"),
            (io::Error::from_raw_os_error(libc::EIO), "unreadable"),
            (io::Error::from_raw_os_error(libc::ELOOP), "symlink_loop"),
            (io::Error::from_raw_os_error(libc::ENOENT), "path_missing"),
        ];
        for (error, code) in cases {
            assert_eq!(unreadable(&error).code, code, "{error}");
        }
    }

    #[test]
    fn opens_only_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, code) in [
            (socket.as_path(), "not_a_regular_file"),
            (Path::new("/dev/null"), "not_a_regular_file"),
            (folder.path(), "not_a_regular_file"),
            (&folder.path().join("none"), "path_missing"),
        ] {
            assert_eq!(open(path).err().unwrap().code, code, "{}", path.display());
        }
    }
}
