//! Passwords that everybody's first guesses include (NIST SP 800-63B, 3.1.1.2): listed ones, and listed words made longer.

use std::sync::LazyLock;

/// Sorted by bytes; lines that begin with `# ` are about the list.
static LISTED: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut lines: Vec<_> = include_str!("common.txt").lines().filter(|line| !line.starts_with("# ")).collect();
    lines.sort_unstable();
    lines
});

/// A part that is said over and over adds nothing from this length down.
const SHORT: usize = 4;

/// Whether the password is a listed one, or a listed word or `own` one with digits around it, said several times, or spelled
/// with digits for letters; or one run such as `abcdefghijkl`. `own` are words that an attacker knows to try.
pub fn is_common(password: &str, own: &[&str]) -> bool {
    let lower = password.to_lowercase();
    if is_listed(&lower) || is_run(&lower) {
        return true;
    }
    let stem = unit(lower.trim_matches(|c: char| !c.is_alphabetic()));
    let whole = unit(&lower);
    let known = |word: &str| is_listed(word) || own.iter().any(|own| own.to_lowercase() == word);
    let short = whole.chars().count() <= SHORT;
    short || [whole, stem].into_iter().any(|word| !word.is_empty() && (known(word) || known(&plain(word))))
}

fn is_listed(word: &str) -> bool {
    LISTED.binary_search(&word).is_ok()
}

/// The shortest part of which the text is a repetition: itself, mostly.
fn unit(text: &str) -> &str {
    let ends = text.char_indices().map(|(at, _)| at).skip(1);
    let parts = ends.filter_map(|end| text.get(..end));
    parts
        .filter(|part| text.len().is_multiple_of(part.len()))
        .find(|part| part.repeat(text.len() / part.len()) == text)
        .unwrap_or(text)
}

/// Each character follows the one before it, up or down; of digits nine is followed by nought.
fn is_run(text: &str) -> bool {
    let follows = |up: bool| {
        text.chars().zip(text.chars().skip(1)).all(|(one, next)| {
            let (one, next) = if up { (one, next) } else { (next, one) };
            u32::from(one) + 1 == u32::from(next) || (one, next) == ('9', '0')
        })
    };
    follows(true) || follows(false)
}

/// Digits and signs read as the letters that they stand for.
fn plain(word: &str) -> String {
    let letter = |c| match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    };
    word.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_guesses_are_common_and_others_are_not() {
        for common in [
            "administrator",
            "qwertyuiop123",
            "123456789012",
            "987654321098",
            "abcdefghijkl",
            "aaaaaaaaaaaaaaaa",
            "abcabcabcabcabc",
            "Password123456",
            "123passwordpassword!!",
            "P@ssw0rd123456",
            "keywright123456",
            "Ada.Lovelace2026",
            "ada.lovelaceada.lovelace",
        ] {
            assert!(is_common(common, &["keywright", "ada.lovelace"]), "{common}");
        }
        for other in [
            "correct-horse-battery",
            "a-new-long-password",
            "2e6b5grkydw8kig9yr62ba26",
            "ключ под ковриком",
            "🦀🐌🦑🐙🦐🦞🐡🐠🐟🐬🐳🐋",
        ] {
            assert!(!is_common(other, &["keywright", "ada.lovelace"]), "{other}");
        }
    }
}
