//! Walks files and directories in an order that is a function of their paths alone, so that a page token is just a path.
//!
//! * A place is a path. A file with two ordinary names is in two places, and told twice; so is a certificate that stands in
//!   a file of its own and in a bundle, such as the `ca-certificates.crt` beside Debian's single files: programs read either.
//! * Links are followed. A directory is entered once, whatever leads to it; one that leads into itself is a `symlink_loop`.
//! * A link that `openssl rehash` made (`5ed36f99.0`) to a file beside it is that file's index entry and no place of its own.
//!   Such names sort last, so that the ordinary name is met first.

use super::files::{Refusal, unreadable};
use std::{
    cmp::Ordering,
    collections::{HashSet, VecDeque},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    vec,
};

/// A place of the walk.
#[derive(Clone, Debug)]
pub struct Step {
    pub position: Position,
    /// Whether the settings name this very path.
    pub named: bool,
    /// A refusal when there is nothing to open.
    pub outcome: Result<(), Refusal>,
}

/// Where a walk stands; a later walk over the same roots goes on after it, whatever was added or removed meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    root: usize,
    pub path: PathBuf,
}

impl Position {
    /// An opaque text for a page token.
    pub fn to_token(&self) -> String {
        format!("{}:{}", self.root, hex::encode(self.path.as_os_str().as_bytes()))
    }

    pub fn from_token(token: &str) -> Option<Self> {
        let (root, path) = token.split_once(':')?;
        let path = hex::decode(path).ok()?;
        Some(Self { root: root.parse().ok()?, path: PathBuf::from(OsStr::from_bytes(&path)) })
    }

    fn order(&self, other: &Self) -> Ordering {
        self.root.cmp(&other.root).then_with(|| self.path.iter().map(order).cmp(other.path.iter().map(order)))
    }
}

type Identity = (u64, u64);

/// An unfinished walk. It holds the names of the directories that it stands in, and which ones it entered.
#[derive(Debug)]
pub struct Walk {
    roots: Vec<PathBuf>,
    next_root: usize,
    stack: Vec<Directory>,
    entered: HashSet<Identity>,
    waiting: VecDeque<Step>,
    after: Option<Position>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    identity: Identity,
    names: vec::IntoIter<OsString>,
    files: HashSet<Identity>,
}

impl Walk {
    /// A walk over `roots`, from the start or from just after a position of an earlier one.
    pub fn new(roots: Vec<PathBuf>, after: Option<Position>) -> Self {
        Self { roots, next_root: 0, stack: Vec::new(), entered: HashSet::new(), waiting: VecDeque::new(), after }
    }

    /// Visits the next name; `None` at the end of the walk.
    fn advance(&mut self) -> Option<()> {
        match self.stack.last_mut() {
            Some(directory) => match directory.names.next() {
                Some(name) => {
                    let path = directory.path.join(name);
                    self.visit(path);
                }
                None => drop(self.stack.pop()),
            },
            None => {
                let root = self.roots.get(self.next_root)?.clone();
                self.next_root += 1;
                if self.is_inside_another_root(&root) {
                    self.confirm(root);
                } else {
                    self.visit(root);
                }
            }
        }
        Some(())
    }

    fn is_inside_another_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| root != path && path.starts_with(root))
    }

    /// A root that the walk meets under another root anyway: only its absence is told here.
    fn confirm(&mut self, root: PathBuf) {
        if root.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            self.refuse(root, Refusal::new("path_missing", "there is nothing at this path"));
        }
    }

    fn visit(&mut self, path: PathBuf) {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => self.enter(path, (metadata.dev(), metadata.ino())),
            Ok(metadata) => self.meet(path, &metadata),
            Err(error) => {
                let refusal = match unreadable(&error) {
                    Refusal { code: "path_missing", .. } if path.symlink_metadata().is_ok() => {
                        Refusal::new("broken_symlink", "the link leads to nothing")
                    }
                    other => other,
                };
                self.refuse(path, refusal);
            }
        }
    }

    fn enter(&mut self, path: PathBuf, identity: Identity) {
        if self.stack.iter().any(|directory| directory.identity == identity) {
            return self.refuse(path, Refusal::new("symlink_loop", "the link leads to a directory that it is in"));
        }
        if !self.entered.insert(identity) {
            return;
        }
        match listed(&path) {
            Ok((names, failure)) => {
                if let Some(refusal) = failure {
                    self.refuse(path.clone(), refusal);
                }
                self.stack.push(Directory { path, identity, names: names.into_iter(), files: HashSet::new() });
            }
            Err(refusal) => self.refuse(path, refusal),
        }
    }

    fn meet(&mut self, path: PathBuf, metadata: &Metadata) {
        let named = self.roots.contains(&path);
        if let Some(directory) = self.stack.last_mut() {
            let known = !directory.files.insert((metadata.dev(), metadata.ino()));
            if known && !named && path.file_name().is_some_and(is_rehashed) && path.is_symlink() {
                return;
            }
        }
        self.push(path, Ok(()));
    }

    fn refuse(&mut self, path: PathBuf, refusal: Refusal) {
        self.push(path, Err(refusal));
    }

    fn push(&mut self, path: PathBuf, outcome: Result<(), Refusal>) {
        let named = self.roots.contains(&path);
        let position = Position { root: self.next_root - 1, path };
        self.waiting.push_back(Step { position, named, outcome });
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            while let Some(step) = self.waiting.pop_front() {
                if self.after.as_ref().is_none_or(|after| step.position.order(after) == Ordering::Greater) {
                    self.after = None;
                    return Some(step);
                }
            }
            self.advance()?;
        }
    }
}

/// The names in a directory in walk order, and a refusal if the listing broke off.
fn listed(path: &Path) -> Result<(Vec<OsString>, Option<Refusal>), Refusal> {
    let mut names = Vec::new();
    let mut failure = None;
    for entry in fs::read_dir(path).map_err(|error| unreadable(&error))? {
        match entry {
            Ok(entry) => names.push(entry.file_name()),
            Err(error) => {
                failure = Some(unreadable(&error));
                break;
            }
        }
    }
    names.sort_by(|left, right| order(left).cmp(&order(right)));
    Ok((names, failure))
}

fn order(name: &OsStr) -> (bool, &[u8]) {
    (is_rehashed(name), name.as_bytes())
}

/// Whether `openssl rehash` gives such names: eight hex digits, a dot, an `r` for revocation lists, a number.
pub fn is_rehashed(name: &OsStr) -> bool {
    let Some((hash, number)) = name.to_str().and_then(|name| name.split_once('.')) else { return false };
    let number = number.strip_prefix('r').unwrap_or(number);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    hash.len() == 8
        && hash.bytes().all(is_hex)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
