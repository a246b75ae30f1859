//! How something is rotated, as clients say and see it.

use crate::error::FieldError;
use keywright_jobs::domain::rotation::{self as machine, Method, Terms};
use poem_openapi::{Enum, Object, types::Example};

/// What becomes the new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename = "RotationMethodType", rename_all = "camelCase")]
pub enum MethodType {
    /// A random text: of `aws.secretsmanager.secret` and `gcp.secretmanager.secret`.
    Generated,
    /// A new access key of the IAM user whose key the secret holds: of `aws.secretsmanager.secret`.
    AwsAccessKey,
}

/// What a generated text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "camelCase")]
pub enum Characters {
    /// `A`-`Z`, `a`-`z`, `0`-`9`.
    Alphanumeric,
    /// Those and `-._~`, which need no quoting in URLs, shells and JSON.
    Unreserved,
    /// `0`-`9`, `a`-`f`.
    Hex,
}

/// What becomes the new value, and how it is made.
#[derive(Clone, Debug, PartialEq, Eq, Object)]
#[oai(rename = "RotationMethod", rename_all = "camelCase")]
pub struct MethodView {
    #[oai(rename = "type")]
    pub kind: MethodType,
    /// Of `generated`: how many characters; default 32.
    #[oai(validator(minimum(value = "8"), maximum(value = "256")))]
    pub length: Option<u16>,
    /// Of `generated`; default `alphanumeric`.
    pub characters: Option<Characters>,
    /// Of `generated`: the entry holds a JSON object, of which this text alone is replaced. Default: the whole value is.
    #[oai(validator(min_length = 1, max_length = 256))]
    pub json_key: Option<String>,
}

/// What proves a new credential.
#[derive(Clone, Debug, PartialEq, Eq, Object)]
#[oai(rename = "RotationVerify", rename_all = "camelCase")]
pub struct VerifyView {
    /// How often it must work in a row.
    #[oai(validator(minimum(value = "1"), maximum(value = "20")))]
    pub successes: u8,
    /// Seconds between two tests.
    #[oai(validator(maximum(value = "600")))]
    pub spacing_seconds: u32,
    /// Seconds after which one that does not work is taken back.
    #[oai(validator(minimum(value = "1"), maximum(value = "86400")))]
    pub deadline_seconds: u32,
}

impl From<&Method> for MethodView {
    fn from(method: &Method) -> Self {
        match method {
            Method::Generated { length, characters, json_key } => Self {
                kind: MethodType::Generated,
                length: Some(*length),
                characters: Some(match characters {
                    machine::Characters::Alphanumeric => Characters::Alphanumeric,
                    machine::Characters::Unreserved => Characters::Unreserved,
                    machine::Characters::Hex => Characters::Hex,
                }),
                json_key: json_key.clone(),
            },
            Method::AwsAccessKey => {
                Self { kind: MethodType::AwsAccessKey, length: None, characters: None, json_key: None }
            }
        }
    }
}

impl MethodView {
    /// # Errors
    /// What does not go with its type.
    pub fn method(self) -> Result<Method, Vec<FieldError>> {
        match self.kind {
            MethodType::Generated => Ok(Method::Generated {
                length: self.length.unwrap_or(32),
                characters: match self.characters {
                    None | Some(Characters::Alphanumeric) => machine::Characters::Alphanumeric,
                    Some(Characters::Unreserved) => machine::Characters::Unreserved,
                    Some(Characters::Hex) => machine::Characters::Hex,
                },
                json_key: self.json_key,
            }),
            MethodType::AwsAccessKey => {
                let given = [
                    ("length", self.length.is_some()),
                    ("characters", self.characters.is_some()),
                    ("jsonKey", self.json_key.is_some()),
                ];
                let wrong = |name: &str| {
                    FieldError::new(
                        format!("/method/{name}"),
                        "foreign",
                        "An access key is made by AWS: this goes with generated.",
                    )
                };
                let wrong: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(name, _)| wrong(name)).collect();
                if wrong.is_empty() { Ok(Method::AwsAccessKey) } else { Err(wrong) }
            }
        }
    }
}

impl From<&machine::Verify> for VerifyView {
    fn from(verify: &machine::Verify) -> Self {
        Self {
            successes: verify.successes,
            spacing_seconds: verify.spacing_seconds,
            deadline_seconds: verify.deadline_seconds,
        }
    }
}

impl From<VerifyView> for machine::Verify {
    fn from(view: VerifyView) -> Self {
        Self {
            successes: view.successes,
            spacing_seconds: view.spacing_seconds,
            deadline_seconds: view.deadline_seconds,
        }
    }
}

impl Example for MethodView {
    fn example() -> Self {
        Self::from(&Terms::default().method)
    }
}
