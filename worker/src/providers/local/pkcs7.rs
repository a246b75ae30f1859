//! PKCS#7 containers (RFC 2315, RFC 5652): the certificates of a `SignedData`, whatever else it carries.
//!
//! Read along BER headers, because Windows and `openssl -stream` write lengths that only an end mark tells; the certificates
//! inside are DER always (RFC 5652, 10.3).

use thiserror::Error;
use x509_parser::asn1_rs::{Any, Class, FromBer, Tag};

/// 1.2.840.113549.1.7.2, as its content octets.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// Why a container was not read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("the PKCS#7 container is damaged")]
    Invalid,
    /// Enveloped, encrypted, digested or plain data.
    #[error("the PKCS#7 container is not of the kind that carries certificates")]
    OtherKind,
}

impl Refusal {
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "pkcs7_invalid",
            Self::OtherKind => "unsupported_format",
        }
    }
}

/// The DER of each certificate of a container, in its order.
///
/// # Errors
/// [`Refusal`], also when the container is cut off.
pub fn certificates(bytes: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    let mut info = Elements(universal(bytes, Tag::Sequence)?);
    let kind = info.next().ok_or(Refusal::Invalid)??;
    if kind.any.tag() != Tag::Oid {
        return Err(Refusal::Invalid);
    }
    if kind.any.data != SIGNED_DATA {
        return Err(Refusal::OtherKind);
    }
    let content = info.next().ok_or(Refusal::Invalid)??;
    let signed = universal(content.any.data, Tag::Sequence)?;
    // version, digest algorithms and what was signed come first, revocation lists and signatures after
    for part in Elements(signed) {
        let part = part?;
        if part.any.class() == Class::ContextSpecific && part.any.tag() == Tag(0) {
            return Elements(part.any.data).filter_map(certificate).collect();
        }
    }
    Ok(Vec::new())
}

/// The set may also hold attribute certificates, which are tagged and are none of ours.
fn certificate(member: Result<Element<'_>, Refusal>) -> Option<Result<&[u8], Refusal>> {
    match member {
        Ok(member) if member.any.class() != Class::Universal => None,
        Ok(member) => Some(Ok(member.whole)),
        Err(refusal) => Some(Err(refusal)),
    }
}

fn universal(bytes: &[u8], tag: Tag) -> Result<&[u8], Refusal> {
    let (_, any) = Any::from_ber(bytes).map_err(|_| Refusal::Invalid)?;
    if any.class() == Class::Universal && any.tag() == tag { Ok(any.data) } else { Err(Refusal::Invalid) }
}

struct Element<'a> {
    any: Any<'a>,
    whole: &'a [u8],
}

/// The elements that stand one after the other; ends with the first that is damaged.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = std::mem::take(&mut self.0);
        if start.is_empty() {
            return None;
        }
        Some(Any::from_ber(start).map_err(|_| Refusal::Invalid).map(|(rest, any)| {
            self.0 = rest;
            let whole = start.get(..start.len() - rest.len()).unwrap_or_default();
            Element { any, whole }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::named, *};

    /// `content` after a header of this tag; with an end mark instead of a length when `open`.
    fn wrapped(tag: u8, content: &[u8], open: bool) -> Vec<u8> {
        let mut all = vec![tag];
        if open {
            all.push(0x80);
            all.extend(content);
            all.extend([0, 0]);
        } else {
            all.push(0x84);
            all.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
            all.extend(content);
        }
        all
    }

    fn container(kind: &[u8], members: &[&[u8]], open: bool) -> Vec<u8> {
        let parts = [
            wrapped(0x02, &[1], false),
            wrapped(0x31, &[], false),
            wrapped(0x30, &wrapped(0x06, kind, false), open),
            wrapped(0xa0, &members.concat(), open),
            wrapped(0x31, &[], false),
        ];
        let signed = wrapped(0x30, &parts.concat(), open);
        wrapped(0x30, &[wrapped(0x06, kind, false), wrapped(0xa0, &signed, open)].concat(), open)
    }

    #[test]
    fn certificates_come_in_order_with_and_without_lengths() {
        let (one, two) = (named("one.example").der, named("two.example").der);
        let attribute = wrapped(0xa1, &[0x05, 0], false);
        for open in [false, true] {
            let bytes = container(SIGNED_DATA, &[&one, &attribute, &two], open);
            assert_eq!(certificates(&bytes), Ok(vec![&one[..], &two[..]]), "open: {open}");
        }
    }

    #[test]
    fn other_kinds_and_damage_are_told_apart() {
        let der = named("one.example").der;
        let enveloped = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
        assert_eq!(certificates(&container(&enveloped, &[&der], false)), Err(Refusal::OtherKind));
        let whole = container(SIGNED_DATA, &[&der], true);
        for end in 0..whole.len() {
            assert!(certificates(&whole[..end]).is_err(), "cut off at {end}");
        }
        let mut nested = [0x30, 0x80].repeat(100_000);
        assert_eq!(certificates(&nested), Err(Refusal::Invalid));
        nested.push(0);
        assert_eq!(certificates(&nested), Err(Refusal::Invalid));
    }
}
