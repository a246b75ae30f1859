//! The blocks of a PEM file (RFC 7468), read so that one broken block costs only itself.

/// One block, or what should have been one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// A block with both boundaries. `body` is what stands between them, headers included, undecoded.
    Whole { line: usize, label: &'a str, body: &'a str },
    /// A block without its end, or with the end of another label.
    Unfinished { line: usize, label: &'a str },
}

/// The blocks of `text` in order; what stands outside of blocks is ignored, as RFC 7468 section 2 asks.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str, usize)> = None;
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = offset;
        offset += line.len();
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if let Some((line, label, _)) = open {
                found.push(Block::Unfinished { line, label });
            }
            open = Some((number + 1, label, offset));
        } else if let Some(ended) = boundary(line, "-----END ")
            && let Some((line, label, body)) = open.take()
        {
            found.push(match text.get(body..start) {
                Some(body) if ended == label => Block::Whole { line, label, body },
                _ => Block::Unfinished { line, label },
            });
        }
    }
    if let Some((line, label, _)) = open {
        found.push(Block::Unfinished { line, label });
    }
    found
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().trim_start_matches('\u{feff}').strip_prefix(start)?.strip_suffix("-----")
}

/// The headers of RFC 1421 that old encrypted keys have, as one text; empty without headers.
pub fn headers(body: &str) -> &str {
    match body.split_once("\n\n").or_else(|| body.split_once("\r\n\r\n")) {
        Some((headers, _)) if headers.contains(':') => headers,
        _ => "",
    }
}

/// The decoded body of a block; `None` when it is not Base64.
pub fn decoded(body: &str) -> Option<Vec<u8>> {
    use base64::{
        Engine, alphabet,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    const TOLERANT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let payload = body.get(headers(body).len()..).unwrap_or_default();
    let compact: Vec<u8> = payload.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    TOLERANT.decode(compact).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_blocks_between_other_text() {
        let text = "subject=CN=x\r\n-----BEGIN A-----\r\nAQID\r\n-----END A-----\r\nnote\n  -----BEGIN B B-----\nBA==\n-----END B B-----";
        let found = blocks(text);
        assert_eq!(found.len(), 2);
        assert!(matches!(found[0], Block::Whole { line: 2, label: "A", body } if decoded(body).unwrap() == [1, 2, 3]));
        assert!(matches!(found[1], Block::Whole { label: "B B", body, .. } if decoded(body).unwrap() == [4]));
    }

    #[test]
    fn a_broken_block_does_not_take_the_next_one_along() {
        let text = "-----BEGIN A-----\nAQID\n-----BEGIN B-----\nBA==\n-----END B-----\n-----BEGIN C-----\n-----END D-----\n-----BEGIN E-----\n";
        let kinds: Vec<_> = blocks(text)
            .into_iter()
            .map(|block| match block {
                Block::Whole { line, label, .. } => (true, line, label),
                Block::Unfinished { line, label } => (false, line, label),
            })
            .collect();
        assert_eq!(kinds, [(false, 1, "A"), (true, 3, "B"), (false, 6, "C"), (false, 8, "E")]);
    }

    #[test]
    fn headers_are_not_payload() {
        let body = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAQID\n";
        assert!(headers(body).contains("ENCRYPTED"));
        assert_eq!(decoded(body).unwrap(), [1, 2, 3]);
        assert_eq!(decoded("no base64!"), None);
        assert_eq!(decoded("AQ"), Some(vec![1]));
    }
}
