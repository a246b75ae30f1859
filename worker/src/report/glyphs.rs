//! Text from outside as the bundled fonts can show it. In PDF/A one glyph that no font has fails the whole document, so what is
//! missing is shown as its number; the CSV files keep the original.

use std::fmt::Write;

/// Letters without a break between them after which a line may be broken anyway.
const LONGEST_RUN: usize = 16;
/// And so many, where a part of a name ends: after a mark between its parts, before a capital letter.
const LONGEST_PART: usize = 6;
/// A line may be broken here; nothing is shown.
const BREAK: char = '\u{200b}';

/// How much of the fonts is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Every letter that any of them has.
    Any,
    /// Only printable ASCII: what no combination of letters can spoil.
    Ascii,
}

/// The text with everything replaced that cannot be shown, or that would be shown as something else.
pub fn shown(text: &str, trust: Trust, has_glyph: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let (mut run, mut before) = (0, ' ');
    for letter in text.chars() {
        let plain = letter == ' ' || (' '..='~').contains(&letter);
        let good = plain || (trust == Trust::Any && !is_invisible(letter) && has_glyph(letter));
        run = if letter == ' ' { 0 } else { run + 1 };
        let parted = "-_.:/@".contains(before) || before.is_ascii_lowercase() && letter.is_ascii_uppercase();
        if run > LONGEST_RUN || run > LONGEST_PART && parted {
            out.push(BREAK);
            run = 1;
        }
        if good {
            out.push(letter);
        } else {
            let _ = write!(out, "\u{ab}U+{:04X}\u{bb}", u32::from(letter));
            run = LONGEST_RUN;
        }
        before = letter;
    }
    out
}

/// Controls, marks that turn the direction of text around, joiners and selectors: nobody sees them, so they are told.
fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_told() {
        let shown = |text| shown(text, Trust::Any, |letter| letter != '\u{1f511}');
        assert_eq!(shown("key \u{1f511}!"), "key \u{ab}U+1F511\u{bb}\u{200b}!");
        assert_eq!(shown("a\u{202e}b"), "a\u{ab}U+202E\u{bb}\u{200b}b", "a name that is read backwards");
        assert_eq!(shown("a\nb"), "a\u{ab}U+000A\u{bb}\u{200b}b");
        assert_eq!(shown("\u{633}\u{631}"), "\u{633}\u{631}");
        assert_eq!(super::shown("\u{e9}", Trust::Ascii, |_| true), "\u{ab}U+00E9\u{bb}");
    }

    #[test]
    fn a_long_word_can_be_broken() {
        let text = shown(&"x".repeat(200), Trust::Any, |_| true);
        assert_eq!(text.chars().filter(|letter| *letter == BREAK).count(), 12);
        assert_eq!(text.replace(BREAK, ""), "x".repeat(200));
        assert_eq!(shown("words of the usual length", Trust::Any, |_| true), "words of the usual length");
        let parts = shown("eu-central-1 scopesSucceeded a-b-c", Trust::Any, |_| true);
        assert_eq!(parts, "eu-central-\u{200b}1 scopes\u{200b}Succeeded a-b-c");
    }
}
