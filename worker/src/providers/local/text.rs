//! Text out of certificates: names as RFC 4514 writes them, alternative names, object identifiers.
//!
//! Whatever a certificate says is shown, and nothing that it says can break the place where it is shown: control characters,
//! a NUL among them, are escaped, and lengths are capped.

use std::net::{Ipv4Addr, Ipv6Addr};
use x509_parser::{
    asn1_rs::{Oid, Tag},
    extensions::GeneralName,
    x509::{AttributeTypeAndValue, X509Name},
};

/// What replaces the rest of a text that was too long.
pub const ELLIPSIS: char = '…';

/// Attribute types with a short name: RFC 4514 section 3 and the ones that authorities use beside it.
const ATTRIBUTE_TYPES: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.42", "GN"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
];

/// A distinguished name in the order and with the escapes of RFC 4514, at most `limit` bytes of it.
pub fn distinguished_name(name: &X509Name<'_>, limit: usize) -> String {
    let mut text = String::new();
    for rdn in name.iter().collect::<Vec<_>>().into_iter().rev() {
        if text.len() > limit {
            break;
        }
        let parts: Vec<String> = rdn.iter().map(attribute).collect();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&parts.join("+"));
    }
    shortened(&text, limit)
}

/// The most telling single value of a name: its common name, else its unit, else its organisation.
pub fn short_name(name: &X509Name<'_>, limit: usize) -> Option<String> {
    ["2.5.4.3", "2.5.4.11", "2.5.4.10"].into_iter().find_map(|wanted| {
        let found = name.iter_attributes().find(|attribute| dotted(attribute.attr_type()) == wanted)?;
        let value = shortened(&printable(&attribute_value(found)?), limit);
        (!value.is_empty()).then_some(value)
    })
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = dotted(attribute.attr_type());
    let name = ATTRIBUTE_TYPES.into_iter().find(|(known, _)| *known == oid).map_or(oid.as_str(), |(_, name)| name);
    match attribute_value(attribute) {
        Some(value) => format!("{name}={}", escaped(&value)),
        None => format!("{name}=#{}", hex::encode(attribute.as_slice())),
    }
}

/// The value of a directory string; `None` when it is of a type that is not text.
fn attribute_value(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        // T.61 is read as Latin-1, as everybody does
        Tag::T61String => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().copied().map(u16::from_be_bytes).collect();
            Some(String::from_utf16_lossy(&units))
        }
        Tag::UniversalString => {
            let points = bytes.as_chunks::<4>().0.iter().copied().map(u32::from_be_bytes);
            Some(points.map(|point| char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
        }
        _ => None,
    }
}

/// RFC 4514 section 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (position, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' if position == 0 => text.push_str("\\#"),
            ' ' if position == 0 || position == last => text.push_str("\\ "),
            _ if character.is_control() => push_hex(&mut text, character),
            _ => text.push(character),
        }
    }
    text
}

/// `value` with its control characters as `\XX`.
pub fn printable(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_control() {
            push_hex(&mut text, character);
        } else {
            text.push(character);
        }
    }
    text
}

fn push_hex(text: &mut String, character: char) {
    let mut buffer = [0_u8; 4];
    for byte in character.encode_utf8(&mut buffer).bytes() {
        text.push_str(&format!("\\{byte:02X}"));
    }
}

/// At most `limit` bytes of `text`, and a mark when that is not all.
pub fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut short = text.get(..text.floor_char_boundary(limit)).unwrap_or_default().to_owned();
    short.push(ELLIPSIS);
    short
}

/// A subject alternative name as text: a DNS name, an address, an e-mail or a URI; other kinds carry their kind in front.
pub fn general_name(name: &GeneralName<'_>, limit: usize) -> String {
    let text = match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => printable(text),
        GeneralName::IPAddress(bytes) => ip_address(bytes),
        GeneralName::DirectoryName(name) => format!("dirName:{}", distinguished_name(name, limit)),
        GeneralName::RegisteredID(oid) => format!("registeredID:{}", dotted(oid)),
        GeneralName::OtherName(oid, _) => format!("otherName:{}", dotted(oid)),
        GeneralName::X400Address(_) => "x400Address".to_owned(),
        GeneralName::EDIPartyName(_) => "ediPartyName".to_owned(),
        GeneralName::Invalid(tag, bytes) => format!("invalid:{}:{}", tag.0, hex::encode(head(bytes, limit / 2))),
    };
    shortened(&text, limit)
}

fn ip_address(bytes: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ipv4Addr::from(octets).to_string()
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ipv6Addr::from(octets).to_string()
    } else {
        format!("invalid:7:{}", hex::encode(head(bytes, 32)))
    }
}

/// The first `count` bytes of `bytes`, or all of them.
pub fn head(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(..count).unwrap_or(bytes)
}

/// An object identifier in dotted form.
pub fn dotted(oid: &Oid<'_>) -> String {
    shortened(&oid.to_id_string(), 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_rfc_4514_says() {
        let cases = [
            ("Sam \"Sky\", Inc.", "Sam \\\"Sky\\\"\\, Inc."),
            ("#1", "\\#1"),
            ("a#1", "a#1"),
            (" x ", "\\ x\\ "),
            (" ", "\\ "),
            ("good.example\0.evil.example", "good.example\\00.evil.example"),
            ("a\nb", "a\\0Ab"),
            ("Žlutý", "Žlutý"),
        ];
        for (value, expected) in cases {
            assert_eq!(escaped(value), expected);
        }
    }

    #[test]
    fn shortens_between_characters() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcd", 3), "abc…");
        assert_eq!(shortened("aé", 2), "a…");
    }

    #[test]
    fn addresses_of_a_wrong_length_are_shown_as_such() {
        assert_eq!(ip_address(&[127, 0, 0, 1]), "127.0.0.1");
        assert_eq!(ip_address(&[1, 2, 3]), "invalid:7:010203");
    }
}
