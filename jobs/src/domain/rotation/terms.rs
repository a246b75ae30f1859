//! How something is rotated: what a policy says, and what is taken where nobody says anything.

use super::{Mint, Pace, Strategy};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const HOUR: u32 = 3600;
const DAY: u32 = 24 * HOUR;

/// What becomes the new value of an entry, and who must be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Method {
    /// A random text. Nobody is told: whoever reads the entry has it.
    Generated {
        length: u16,
        characters: Characters,
        /// The entry holds a JSON object of which this member alone is replaced; `None`: the whole value.
        json_key: Option<String>,
    },
    /// An access key of the IAM user whose key the entry holds.
    AwsAccessKey,
}

impl Method {
    pub const LEAST_LENGTH: u16 = 8;
    pub const MOST_LENGTH: u16 = 256;

    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Generated { .. } => "generated",
            Self::AwsAccessKey => "awsAccessKey",
        }
    }

    /// The kinds of asset that can be rotated so.
    pub const fn kinds(&self) -> &'static [&'static str] {
        match self {
            Self::Generated { .. } => &[AWS_SECRET, GCP_SECRET],
            Self::AwsAccessKey => &[AWS_SECRET],
        }
    }
}

pub const AWS_SECRET: &str = "aws.secretsmanager.secret";
pub const GCP_SECRET: &str = "gcp.secretmanager.secret";

impl Default for Method {
    fn default() -> Self {
        Self::Generated { length: 32, characters: Characters::Alphanumeric, json_key: None }
    }
}

/// What a generated text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Characters {
    /// `A`-`Z`, `a`-`z`, `0`-`9`: 5.95 bits each.
    Alphanumeric,
    /// Those and punctuation that needs no quoting in URLs, shells and JSON (`-._~`): 6.04 bits each.
    Unreserved,
    /// `0`-`9`, `a`-`f`: 4 bits each.
    Hex,
}

impl Characters {
    pub const fn alphabet(self) -> &'static [u8] {
        match self {
            Self::Alphanumeric => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::Unreserved => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~",
            Self::Hex => b"0123456789abcdef",
        }
    }

    /// Writes random bytes as text, each character as likely as any other; `None` when there are too few bytes.
    pub fn write(self, length: usize, random: impl IntoIterator<Item = u8>) -> Option<Vec<u8>> {
        let alphabet = self.alphabet();
        // bytes beyond the greatest multiple would make the first characters likelier
        let fair = 256 - 256 % alphabet.len();
        let picked = random.into_iter().map(usize::from).filter(|byte| *byte < fair);
        let text: Vec<u8> =
            picked.take(length).filter_map(|byte| alphabet.get(byte % alphabet.len()).copied()).collect();
        (text.len() == length).then_some(text)
    }
}

/// How a rotation is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    pub method: Method,
    /// Seconds for which both credentials work after the new one became current.
    pub grace_seconds: u32,
    /// Seconds between switching the former one off and deleting it.
    pub hold_seconds: u32,
    /// Seconds for which the former one must have been unused before it is switched off, where the provider tells; 0 = it need not.
    pub quiet_seconds: u32,
    pub verify: Verify,
    /// Somebody else must approve.
    pub approval: bool,
    /// A target that has but one slot may be rotated, although for a moment no stored credential works.
    pub allow_gap: bool,
}

/// What proves a new credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// In a row.
    pub successes: u8,
    pub spacing_seconds: u32,
    /// Seconds after which a credential that does not work is given up.
    pub deadline_seconds: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            method: Method::default(),
            grace_seconds: HOUR,
            hold_seconds: DAY,
            quiet_seconds: HOUR,
            verify: Verify { successes: 3, spacing_seconds: 2, deadline_seconds: 300 },
            approval: false,
            allow_gap: false,
        }
    }
}

/// Days, from the end of the grace, in which the former credential must have become quiet before a person is asked.
const QUIET_DEADLINE: u32 = 7 * DAY;
/// Seconds in which the new one must have become current.
const PATIENCE: u32 = 6 * HOUR;

impl Terms {
    /// The same as the machine takes it; `call_deadline` and `settle` are the provider's, in seconds.
    pub fn pace(&self, call_deadline: u32, settle: u32) -> Pace {
        Pace {
            call_deadline,
            settle,
            proofs: self.verify.successes,
            proof_spacing: self.verify.spacing_seconds,
            proof_deadline: self.verify.deadline_seconds,
            grace: self.grace_seconds,
            quiet: self.quiet_seconds,
            quiet_deadline: QUIET_DEADLINE,
            hold: self.hold_seconds,
            patience: PATIENCE,
        }
    }
}

impl Strategy {
    /// Whether there is a moment in which what is stored does not work.
    pub const fn has_gap(self) -> bool {
        self.applies && !self.overlaps && matches!(self.mint, Mint::Ours)
    }
}

/// Who asked for it: a policy, or somebody without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByPolicy {
    pub id: Uuid,
    pub version: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_text_is_of_its_alphabet_and_length() {
        for characters in [Characters::Alphanumeric, Characters::Unreserved, Characters::Hex] {
            let text = characters.write(300, (0..=255).cycle()).unwrap();
            assert_eq!(text.len(), 300);
            assert!(text.iter().all(|byte| characters.alphabet().contains(byte)));
            assert_eq!(characters.write(300, 0..=255), None, "too few bytes");
        }
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        for characters in [Characters::Alphanumeric, Characters::Unreserved, Characters::Hex] {
            let alphabet = characters.alphabet();
            let all = 256 / alphabet.len() * alphabet.len();
            let text = characters.write(all, 0..=255).unwrap();
            let counts = alphabet.iter().map(|one| text.iter().filter(|byte| *byte == one).count());
            assert!(counts.into_iter().all(|count| count == 256 / alphabet.len()));
        }
    }
}
