//! Does a server speak a TLS that rustls does not? A ClientHello of TLS 1.2 (RFC 5246) or 1.1 (RFC 4346) with the cipher
//! suites of their time, and a look at the version that the server chooses.
//!
//! Nothing is negotiated and nothing secret is sent, so the random field is constant.

use rustls::pki_types::ServerName;

/// The versions that are offered, the second one to servers that hang up on the first: minor version numbers on the wire.
pub const OFFERS: [u8; 2] = [3, 2];

/// Cipher suites that old servers know, by their numbers at IANA.
const SUITES: [u16; 12] = [
    0xc014, 0xc013, 0xc00a, 0xc009, // ECDHE with AES-CBC
    0x0039, 0x0033, // DHE with AES-CBC
    0x0035, 0x002f, // RSA with AES-CBC
    0x000a, 0x0016, // 3DES
    0x0005, 0x0004, // RC4
];

/// Bytes of an answer that suffice: the record's header (5), the handshake's (4) and the server's version (2).
pub const ANSWER_BYTES: usize = 11;

/// A complete record with a ClientHello that offers TLS 1.2 (`minor` 3) or 1.1 (`minor` 2) at most.
pub fn client_hello(minor: u8, name: &ServerName<'_>) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([0x4b; 32]); // random
    body.push(0); // no session
    push_block(&mut body, &SUITES.iter().flat_map(|suite| suite.to_be_bytes()).collect::<Vec<_>>());
    body.extend([1, 0]); // no compression
    push_block(&mut body, &extensions(name));
    let mut handshake = vec![1, 0];
    push_block(&mut handshake, &body);
    let mut record = vec![0x16, 3, 1];
    push_block(&mut record, &handshake);
    record
}

fn extensions(name: &ServerName<'_>) -> Vec<u8> {
    let mut all = vec![0, 0x0a, 0, 8, 0, 6, 0, 0x17, 0, 0x18, 0, 0x19]; // groups: P-256, P-384, P-521
    all.extend([0, 0x0b, 0, 2, 1, 0]); // points: uncompressed
    all.extend([0, 0x0d, 0, 10, 0, 8, 4, 1, 4, 3, 2, 1, 2, 3]); // signatures: RSA and ECDSA over SHA-256 and SHA-1
    if let ServerName::DnsName(name) = name {
        let mut entry = vec![0];
        push_block(&mut entry, name.as_ref().as_bytes());
        let mut list = Vec::new();
        push_block(&mut list, &entry);
        all.extend([0, 0]);
        push_block(&mut all, &list);
    }
    all
}

/// Appends `content` after its length in two bytes; all contents here are far below 64 KiB.
fn push_block(to: &mut Vec<u8>, content: &[u8]) {
    to.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
    to.extend(content);
}

/// What a server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// A version below TLS 1.2, by its name.
    TooOld(&'static str),
    /// TLS 1.2, so it was the cipher suites that rustls and the server do not share.
    Tls12,
}

/// Reads a server's answer; `None` when it is anything but a ServerHello.
pub fn chosen(answer: &[u8]) -> Option<Chosen> {
    match answer {
        [0x16, 3, _, _, _, 2, _, _, _, 3, minor, ..] => match minor {
            0 => Some(Chosen::TooOld("SSL 3.0")),
            1 => Some(Chosen::TooOld("TLS 1.0")),
            2 => Some(Chosen::TooOld("TLS 1.1")),
            3 => Some(Chosen::Tls12),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_the_hello_add_up() {
        for name in ["example.com", "127.0.0.1"] {
            let hello = client_hello(3, &ServerName::try_from(name).unwrap());
            assert_eq!(usize::from(hello[3]) << 8 | usize::from(hello[4]), hello.len() - 5);
            assert_eq!(usize::from(hello[7]) << 8 | usize::from(hello[8]), hello.len() - 9);
            assert_eq!(hello.windows(11).any(|part| part == b"example.com"), name == "example.com");
        }
    }

    #[test]
    fn only_a_server_hello_counts() {
        assert_eq!(chosen(&[0x16, 3, 1, 0, 80, 2, 0, 0, 76, 3, 1]), Some(Chosen::TooOld("TLS 1.0")));
        assert_eq!(chosen(&[0x16, 3, 2, 0, 80, 2, 0, 0, 76, 3, 2, 9]), Some(Chosen::TooOld("TLS 1.1")));
        assert_eq!(chosen(&[0x16, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3]), Some(Chosen::Tls12));
        assert_eq!(chosen(&[0x15, 3, 1, 0, 2, 2, 70]), None);
        assert_eq!(chosen(b"HTTP/1.1 400"), None);
        assert_eq!(chosen(&[]), None);
    }
}
