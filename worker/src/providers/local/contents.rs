//! What one file holds: certificates, and the fact that private keys are there. Pure.
//!
//! Of a private key nothing is decoded: its format and whether it is encrypted stand in the block's label and headers.

use super::{
    certificate::{self, Reading},
    der_shape::{Shape, shape},
    java_keystore,
    pem_blocks::{Block, blocks, decoded, headers},
    pkcs7,
    pkcs12::{self, Password},
    text::{printable, shortened},
};
use std::collections::{BTreeSet, HashMap};
use zeroize::Zeroizing;

/// Certificates of one file that are told about.
pub const CERTIFICATES_LIMIT: usize = 10_000;
/// Private keys of one file that are told about.
pub const KEYS_LIMIT: usize = 1_000;
/// Bytes of a PKCS#12 archive that is opened. Each of its parts may ask for a million rounds of key derivation, so their
/// number must be bounded for a scan to end.
pub const PKCS12_LIMIT: usize = 1024 * 1024;
/// Notes about one file; what is beyond is counted in one more.
pub const NOTES_LIMIT: usize = 100;

/// What a reader is after: the two are told by two scopes, and a certificate that nobody asks for is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Certificates,
    Keys,
}

/// A certificate of the file, once, however often it stands in it.
#[derive(Clone, Debug)]
pub struct Held {
    pub reading: Reading,
    pub occurrences: u32,
}

/// That there is a private key, and nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyNotice {
    /// `pkcs1`, `pkcs8`, `sec1`, `openssh`, `dsa`, `pkcs12`, `jks`, `jceks`.
    pub format: &'static str,
    /// Only where the format alone tells it.
    pub algorithm: Option<&'static str>,
    /// Whether a password is needed to use it.
    pub encrypted: Option<bool>,
}

/// A stable code and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub code: &'static str,
    pub detail: String,
}

/// What was found in one file.
#[derive(Clone, Debug)]
pub struct Contents {
    wanted: Wanted,
    pub certificates: Vec<Held>,
    pub keys: Vec<KeyNotice>,
    pub notes: Vec<Note>,
    positions: HashMap<String, usize>,
    unlisted_certificates: usize,
    unlisted_notes: usize,
}

/// Whether a file whose first bytes are `start` may hold a certificate or a key.
pub fn is_promising(start: &[u8]) -> bool {
    start.windows(BEGIN.len()).any(|window| window == BEGIN)
        || shape(start) != Shape::Other
        || java_keystore::begins(start)
}

const BEGIN: &[u8] = b"-----BEGIN ";

/// Reads a whole file for what is `wanted`; `password` is asked for only when the file is a PKCS#12 archive.
pub fn read(bytes: &[u8], wanted: Wanted, password: impl FnOnce() -> Password) -> Contents {
    let mut contents = Contents::new(wanted);
    if bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
        match std::str::from_utf8(bytes) {
            Ok(text) => contents.read_pem(text),
            // comments in another encoding are no reason to refuse the blocks between them
            Err(_) => contents.read_pem(&Zeroizing::new(String::from_utf8_lossy(bytes).into_owned())),
        }
    } else {
        contents.read_der(bytes, password);
    }
    contents.close();
    contents
}

impl Contents {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            certificates: Vec::new(),
            keys: Vec::new(),
            notes: Vec::new(),
            positions: HashMap::new(),
            unlisted_certificates: 0,
            unlisted_notes: 0,
        }
    }

    fn read_pem(&mut self, text: &str) {
        let mut others = BTreeSet::new();
        for block in blocks(text) {
            match block {
                Block::Unfinished { line, label } => {
                    let label = shown(label);
                    self.note("invalid_pem", format!("the block {label} of line {line} has no matching end"));
                }
                Block::Whole { line, label, body } => match label {
                    "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
                        self.read_certificate_block(line, label, body);
                    }
                    "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA" => self.read_container_block(line, body),
                    _ if label.ends_with("PRIVATE KEY") => self.notice(pem_key(label, body)),
                    _ => {
                        others.insert(label);
                    }
                },
            }
        }
        if self.is_empty() && !others.is_empty() {
            let labels: Vec<String> = others.into_iter().take(5).map(shown).collect();
            let detail = format!("there is no certificate and no private key in it, only {}", labels.join(", "));
            self.note("not_a_certificate", detail);
        }
    }

    fn read_certificate_block(&mut self, line: usize, label: &str, body: &str) {
        if self.wanted != Wanted::Certificates {
            return;
        }
        let Some(der) = decoded(body) else {
            return self.note("invalid_pem", format!("the block of line {line} is not Base64"));
        };
        match certificate::read(&der) {
            Ok((reading, trailing)) => {
                // a TRUSTED CERTIFICATE is followed by OpenSSL's own settings
                if trailing > 0 && label != "TRUSTED CERTIFICATE" {
                    let detail = format!("{trailing} bytes follow the certificate in the block of line {line}");
                    self.note("trailing_data", detail);
                }
                self.hold(reading);
            }
            Err(error) => self.note(error.code(), format!("the block of line {line}: {error}")),
        }
    }

    fn read_container_block(&mut self, line: usize, body: &str) {
        match decoded(body) {
            Some(container) => self.read_pkcs7(&container, &format!("the block of line {line}: ")),
            None => self.note("invalid_pem", format!("the block of line {line} is not Base64")),
        }
    }

    fn read_der(&mut self, bytes: &[u8], password: impl FnOnce() -> Password) {
        let key = |format, algorithm, encrypted| KeyNotice { format, algorithm, encrypted: Some(encrypted) };
        match shape(bytes) {
            Shape::Pkcs12 => self.read_pkcs12(bytes, &password()),
            Shape::Pkcs8 => self.notice(key("pkcs8", None, false)),
            Shape::EncryptedPkcs8 => self.notice(key("pkcs8", None, true)),
            Shape::Pkcs1 => self.notice(key("pkcs1", Some("RSA"), false)),
            Shape::Sec1 => self.notice(key("sec1", Some("EC"), false)),
            Shape::Pkcs7 => self.read_pkcs7(bytes, ""),
            Shape::Other if java_keystore::begins(bytes) => self.read_keystore(bytes),
            Shape::Certificate | Shape::Other if self.wanted != Wanted::Certificates => {}
            known @ (Shape::Certificate | Shape::Other) => match certificate::read(bytes) {
                Ok((reading, trailing)) => {
                    if trailing > 0 {
                        self.note("trailing_data", format!("{trailing} bytes follow the certificate"));
                    }
                    self.hold(reading);
                }
                Err(error) if known == Shape::Certificate => self.note(error.code(), error.to_string()),
                Err(_) => self.note("not_a_certificate", "this is neither PEM nor the DER of a certificate or key"),
            },
        }
    }

    fn read_pkcs12(&mut self, bytes: &[u8], password: &Password) {
        if bytes.len() > PKCS12_LIMIT {
            let detail = format!("the archive has {} bytes, over the limit of {PKCS12_LIMIT} for PKCS#12", bytes.len());
            return self.note("too_large", detail);
        }
        match pkcs12::read(bytes, password) {
            Ok(archive) => {
                for _ in 0..archive.keys {
                    let encrypted = Some(archive.needs_password);
                    self.notice(KeyNotice { format: "pkcs12", algorithm: None, encrypted });
                }
                self.read_members(archive.certificates.iter().map(Vec::as_slice), "a certificate of the archive");
            }
            Err(refusal) => self.note(refusal.code(), refusal.to_string()),
        }
    }

    /// `place` begins what is told of it.
    fn read_pkcs7(&mut self, bytes: &[u8], place: &str) {
        match pkcs7::certificates(bytes) {
            Ok(certificates) => self.read_members(certificates, &format!("{place}a certificate of the container")),
            Err(refusal) => self.note(refusal.code(), format!("{place}{refusal}")),
        }
    }

    fn read_keystore(&mut self, bytes: &[u8]) {
        let Some(keystore) = java_keystore::read(bytes) else { return };
        for _ in 0..keystore.keys {
            self.notice(KeyNotice { format: keystore.format, algorithm: None, encrypted: Some(true) });
        }
        self.read_members(keystore.certificates, "a certificate of the keystore");
        if let Some(broken) = keystore.broken {
            self.note(broken.code(), broken.to_string());
        }
    }

    fn read_members<'a>(&mut self, members: impl IntoIterator<Item = &'a [u8]>, what: &str) {
        if self.wanted != Wanted::Certificates {
            return;
        }
        for der in members {
            match certificate::read(der) {
                Ok((reading, _)) => self.hold(reading),
                Err(error) => self.note(error.code(), format!("{what}: {error}")),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.keys.is_empty() && self.notes.is_empty()
    }

    fn hold(&mut self, reading: Reading) {
        if let Some(held) = self.positions.get(&reading.fingerprint).and_then(|known| self.certificates.get_mut(*known))
        {
            held.occurrences += 1;
            return;
        }
        if self.certificates.len() == CERTIFICATES_LIMIT {
            self.unlisted_certificates += 1;
            return;
        }
        let name = reading.short_name.clone().unwrap_or_else(|| reading.fingerprint.clone());
        for oddity in &reading.oddities {
            self.note(oddity.code, format!("{name}: {}", oddity.detail));
        }
        self.positions.insert(reading.fingerprint.clone(), self.certificates.len());
        self.certificates.push(Held { reading, occurrences: 1 });
    }

    fn notice(&mut self, key: KeyNotice) {
        if self.keys.len() < KEYS_LIMIT {
            self.keys.push(key);
        }
    }

    fn note(&mut self, code: &'static str, detail: impl Into<String>) {
        if self.notes.len() < NOTES_LIMIT {
            self.notes.push(Note { code, detail: detail.into() });
        } else {
            self.unlisted_notes += 1;
        }
    }

    fn close(&mut self) {
        if self.unlisted_certificates > 0 {
            let detail = format!(
                "{} certificates beyond the first {CERTIFICATES_LIMIT} are left out",
                self.unlisted_certificates
            );
            self.notes.push(Note { code: "too_many_certificates", detail });
        }
        if self.keys.len() == KEYS_LIMIT {
            let detail = format!("keys beyond the first {KEYS_LIMIT} are left out");
            self.notes.push(Note { code: "too_many_keys", detail });
        }
        if self.unlisted_notes > 0 {
            let detail = format!("{} more things in this file could not be read", self.unlisted_notes);
            self.notes.push(Note { code: "more_warnings", detail });
        }
    }
}

/// A block's label, which can be any text, for a sentence.
fn shown(label: &str) -> String {
    printable(&shortened(label, 40))
}

fn pem_key(label: &str, body: &str) -> KeyNotice {
    let by_headers = headers(body).contains("ENCRYPTED");
    let (format, algorithm, encrypted) = match label {
        "ENCRYPTED PRIVATE KEY" => ("pkcs8", None, true),
        "RSA PRIVATE KEY" => ("pkcs1", Some("RSA"), by_headers),
        "EC PRIVATE KEY" => ("sec1", Some("EC"), by_headers),
        "DSA PRIVATE KEY" => ("dsa", Some("DSA"), by_headers),
        "OPENSSH PRIVATE KEY" => ("openssh", None, !body.trim_start().starts_with(OPENSSH_UNENCRYPTED)),
        _ => ("pkcs8", None, by_headers),
    };
    KeyNotice { format, algorithm, encrypted: Some(encrypted) }
}

/// How the Base64 of an OpenSSH key without a password begins: the magic word, then the cipher `none`.
const OPENSSH_UNENCRYPTED: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUA";

#[cfg(test)]
mod tests;
