//! What a piece of DER looks like from its first few headers, without decoding what is inside.
//!
//! Enough to tell a certificate from a PKCS#12 archive and from a private key, so that a key is noticed and never decoded.

/// What the outermost elements say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `Certificate` of RFC 5280, versions 2 and 3; whether it can be read is another matter.
    Certificate,
    /// `PFX` of RFC 7292.
    Pkcs12,
    /// `ContentInfo` of RFC 5652: a PKCS#7 container.
    Pkcs7,
    /// `PrivateKeyInfo` of RFC 5958.
    Pkcs8,
    /// `EncryptedPrivateKeyInfo` of RFC 5958.
    EncryptedPkcs8,
    /// `RSAPrivateKey` of RFC 8017.
    Pkcs1,
    /// `ECPrivateKey` of RFC 5915.
    Sec1,
    Other,
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

/// Judges by the start of `bytes`, which may be cut off.
pub fn shape(bytes: &[u8]) -> Shape {
    judge(bytes).unwrap_or(Shape::Other)
}

fn judge(bytes: &[u8]) -> Option<Shape> {
    let outer = element(bytes).filter(|outer| outer.tag == SEQUENCE)?;
    let first = element(outer.content)?;
    let second = element(first.rest);
    let second_tag = second.map(|second| second.tag);
    Some(match (first.tag, first.content, second_tag) {
        (INTEGER, [3], Some(SEQUENCE)) => Shape::Pkcs12,
        (INTEGER, [0 | 1], Some(SEQUENCE)) if third_tag(second) == Some(OCTET_STRING) => Shape::Pkcs8,
        (INTEGER, [0 | 1], Some(INTEGER)) => Shape::Pkcs1,
        (INTEGER, [1], Some(OCTET_STRING)) => Shape::Sec1,
        (OID, ..) if second_tag == Some(CONTEXT_0) => Shape::Pkcs7,
        (SEQUENCE, inner, Some(OCTET_STRING)) if starts_with(inner, OID) => Shape::EncryptedPkcs8,
        (SEQUENCE, inner, Some(SEQUENCE | BIT_STRING) | None) if starts_with(inner, CONTEXT_0) => Shape::Certificate,
        _ => Shape::Other,
    })
}

fn third_tag(second: Option<Element<'_>>) -> Option<u8> {
    element(second?.rest).map(|third| third.tag)
}

fn starts_with(content: &[u8], tag: u8) -> bool {
    content.first() == Some(&tag)
}

#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// The element at the start of `bytes`; content that is cut off, or of indefinite length, is taken as far as it goes.
fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (tag, after_tag) = bytes.split_first()?;
    let (length, body) = match after_tag.split_first()? {
        (short @ 0..=0x7f, body) => (usize::from(*short), body),
        (0x80, body) => (body.len(), body),
        (long, body) => {
            let digits = usize::from(long & 0x7f);
            let (length, body) = body.split_at_checked(digits).filter(|_| digits <= 4)?;
            (length.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)), body)
        }
    };
    let (content, rest) = body.split_at(length.min(body.len()));
    Some(Element { tag: *tag, content, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_shapes_apart() {
        let cases: [(&[u8], Shape); 10] = [
            (&[0x30, 0x82, 0x05, 0x00, 0x30, 0x82, 0x04, 0x00, 0xa0, 0x03], Shape::Certificate),
            (&[0x30, 0x82, 0x05, 0x00, 0x02, 0x01, 0x03, 0x30, 0x80], Shape::Pkcs12),
            (&[0x30, 0x80, 0x02, 0x01, 0x03, 0x30, 0x80], Shape::Pkcs12),
            (&[0x30, 0x0b, 0x02, 0x01, 0x00, 0x30, 0x02, 0x06, 0x00, 0x04, 0x02, 1, 2], Shape::Pkcs8),
            (&[0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x05], Shape::Pkcs1),
            (&[0x30, 0x06, 0x02, 0x01, 0x01, 0x04, 0x01, 0x05], Shape::Sec1),
            (&[0x30, 0x07, 0x30, 0x02, 0x06, 0x00, 0x04, 0x01, 0x05], Shape::EncryptedPkcs8),
            (&[0x30, 0x0b, 0x06, 0x01, 0x2a, 0xa0, 0x00], Shape::Pkcs7),
            (b"hello world", Shape::Other),
            (&[0x30, 0xff, 0xff], Shape::Other),
        ];
        for (bytes, expected) in cases {
            assert_eq!(shape(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn no_prefix_of_anything_breaks_it() {
        let bytes: Vec<u8> = (0..=255).chain([0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]).collect();
        for start in 0..bytes.len() {
            for end in start..bytes.len() {
                shape(&bytes[start..end]);
            }
        }
    }
}
