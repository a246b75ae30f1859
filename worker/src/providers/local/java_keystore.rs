//! Java keystores: JKS and JCEKS, as `sun.security.provider.JavaKeyStore` writes them.
//!
//! Certificates stand in them in clear. Keys are encrypted; that there is one is noticed and its bytes are skipped, so that no
//! password is needed. The digest at the end, which only the password could check, is not looked at. Newer Java writes PKCS#12
//! under the same file names, which is told by its first bytes.

use thiserror::Error;

const JKS: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const JCEKS: [u8; 4] = [0xce, 0xce, 0xce, 0xce];
/// Certificates of one entry's chain.
const CHAIN_LIMIT: u32 = 1_000;

/// What a keystore holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Keystore<'a> {
    /// `jks` or `jceks`.
    pub format: &'static str,
    /// DER, in the keystore's order.
    pub certificates: Vec<&'a [u8]>,
    /// How many private and secret keys.
    pub keys: usize,
    /// Why what follows was not read.
    pub broken: Option<Broken>,
}

/// Where reading had to end; what came before it counts.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    #[error("the keystore is damaged or cut off")]
    Damaged,
    #[error("the keystore is of version {0}, which is not known")]
    Version(u32),
    /// A secret key is a serialised Java object, whose end only Java finds.
    #[error("what follows the keystore's first secret key is not read: only Java can tell where that ends")]
    SecretKey,
}

impl Broken {
    pub fn code(self) -> &'static str {
        match self {
            Self::Damaged => "keystore_invalid",
            Self::Version(_) => "unsupported_format",
            Self::SecretKey => "keystore_not_read_to_its_end",
        }
    }
}

/// Whether a file that begins like this is a keystore.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&JKS) || bytes.starts_with(&JCEKS)
}

/// Reads a keystore; `None` when it is none.
pub fn read(bytes: &[u8]) -> Option<Keystore<'_>> {
    let format = match *bytes.first_chunk()? {
        JKS => "jks",
        JCEKS => "jceks",
        _ => return None,
    };
    let mut keystore = Keystore { format, certificates: Vec::new(), keys: 0, broken: None };
    let mut cursor = Cursor(bytes.get(4..)?);
    keystore.broken = keystore.read_entries(&mut cursor).err();
    Some(keystore)
}

impl<'a> Keystore<'a> {
    fn read_entries(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Broken> {
        let version = cursor.number()?;
        if !(1..=2).contains(&version) {
            return Err(Broken::Version(version));
        }
        // a count is only believed entry by entry, so that nothing is allocated for it
        for _ in 0..cursor.number()? {
            let tag = cursor.number()?;
            cursor.short_text()?; // the alias
            cursor.take(8)?; // when it was made
            match tag {
                1 => {
                    self.keys += 1;
                    cursor.long_bytes()?;
                    let chain = cursor.number()?;
                    if chain > CHAIN_LIMIT {
                        return Err(Broken::Damaged);
                    }
                    for _ in 0..chain {
                        self.read_certificate(cursor, version)?;
                    }
                }
                2 => self.read_certificate(cursor, version)?,
                3 => {
                    self.keys += 1;
                    return Err(Broken::SecretKey);
                }
                _ => return Err(Broken::Damaged),
            }
        }
        Ok(())
    }

    fn read_certificate(&mut self, cursor: &mut Cursor<'a>, version: u32) -> Result<(), Broken> {
        // version 1 knows no other kind than X.509
        let kind = if version == 1 { &b"X.509"[..] } else { cursor.short_text()? };
        let bytes = cursor.long_bytes()?;
        if kind == b"X.509" || kind == b"X509" {
            self.certificates.push(bytes);
        }
        Ok(())
    }
}

/// What has not been read yet. Numbers are big-endian.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Broken::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, Broken> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Broken::Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    fn short_text(&mut self) -> Result<&'a [u8], Broken> {
        let (length, rest) = self.0.split_first_chunk().ok_or(Broken::Damaged)?;
        self.0 = rest;
        self.take(usize::from(u16::from_be_bytes(*length)))
    }

    fn long_bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Broken::Damaged)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u32 = 1;
    const TRUSTED: u32 = 2;
    const SECRET: u32 = 3;

    fn text(text: &str) -> Vec<u8> {
        [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn bytes(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn entry(tag: u32, rest: &[Vec<u8>]) -> Vec<u8> {
        [tag.to_be_bytes().to_vec(), text("alias"), vec![0; 8], rest.concat()].concat()
    }

    fn keystore(magic: [u8; 4], version: u32, entries: &[Vec<u8>]) -> Vec<u8> {
        let count = u32::try_from(entries.len()).unwrap();
        let head = [&magic[..], &version.to_be_bytes(), &count.to_be_bytes()].concat();
        [head, entries.concat(), vec![9; 20]].concat()
    }

    #[test]
    fn certificates_and_the_number_of_keys_are_read_without_a_password() {
        let certificate = |content| [text("X.509"), bytes(content)].concat();
        let chain = vec![bytes(&[0; 40]), vec![0, 0, 0, 2], certificate(b"leaf"), certificate(b"root")];
        let other = [text("PGP"), bytes(b"no")].concat();
        let file =
            keystore(JKS, 2, &[entry(KEY, &chain), entry(TRUSTED, &[certificate(b"ca")]), entry(TRUSTED, &[other])]);
        let read = read(&file).unwrap();
        assert_eq!((read.format, read.keys, read.broken), ("jks", 1, None));
        assert_eq!(read.certificates, [&b"leaf"[..], b"root", b"ca"]);
    }

    #[test]
    fn the_first_version_has_no_kinds() {
        let file = keystore(JKS, 1, &[entry(TRUSTED, &[bytes(b"ca")])]);
        assert_eq!(read(&file).unwrap().certificates, [b"ca"]);
        assert_eq!(read(&keystore(JKS, 3, &[])).unwrap().broken, Some(Broken::Version(3)));
    }

    #[test]
    fn a_secret_key_ends_the_reading_but_not_what_was_read() {
        let trusted = entry(TRUSTED, &[text("X.509"), bytes(b"ca")]);
        let file = keystore(JCEKS, 2, &[trusted.clone(), entry(SECRET, &[vec![1; 30]]), trusted]);
        let read = read(&file).unwrap();
        assert_eq!((read.format, read.keys, read.broken), ("jceks", 1, Some(Broken::SecretKey)));
        assert_eq!(read.certificates, [b"ca"]);
    }

    #[test]
    fn no_length_is_believed() {
        let huge = [JKS.to_vec(), vec![0, 0, 0, 2], vec![0xff; 4], entry(TRUSTED, &[text("X.509"), vec![0xff; 4]])];
        assert_eq!(read(&huge.concat()).unwrap().broken, Some(Broken::Damaged));
        let whole = keystore(JKS, 2, &[entry(KEY, &[bytes(b"key"), vec![0, 0, 0, 1], text("X.509"), bytes(b"der")])]);
        // without its digest it is whole still
        for end in 4..whole.len() - 20 {
            assert_eq!(read(&whole[..end]).unwrap().broken, Some(Broken::Damaged), "cut off at {end}");
        }
        assert!(read(b"PK\x03\x04").is_none() && read(b"").is_none());
    }
}
