//! The values that rotations make: how a new one takes the place of the one in use.

mod texts;

pub use texts::{Texts, Versions};

use keywright_jobs::{
    domain::rotation::Characters,
    provider::{
        ProviderError,
        rotation::{SecretValue, UNKNOWN_CREDENTIAL},
    },
    setup::ids::{self, NoRandomness},
};
use secrecy::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// How people name the two halves of an access key in a stored object, each pair as it is written together.
const ACCESS_KEY_NAMES: [(&str, &str); 5] = [
    ("accessKeyId", "secretAccessKey"),
    ("AccessKeyId", "SecretAccessKey"),
    ("access_key_id", "secret_access_key"),
    ("aws_access_key_id", "aws_secret_access_key"),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
];

/// The access key that a stored object holds.
///
/// # Errors
/// [`ProviderError::Rejected`] [`UNKNOWN_CREDENTIAL`] when it holds none.
pub fn access_key(value: &SecretValue) -> Result<(String, SecretString), ProviderError> {
    let object = Object::read(value)?;
    let (id, secret) = object.names()?;
    let text = |name: &str| object.0.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text(id), text(secret).into()))
}

/// The stored object with another access key in it; its other members stay.
///
/// # Errors
/// [`ProviderError::Rejected`] [`UNKNOWN_CREDENTIAL`] when it holds none.
pub fn with_access_key(value: &SecretValue, id: &str, secret: &str) -> Result<SecretValue, ProviderError> {
    let mut object = Object::read(value)?;
    let (id_name, secret_name) = object.names()?;
    object.put(id_name, id);
    object.put(secret_name, secret);
    object.write()
}

/// A random text in place of the value, or of one member of the object that it is.
///
/// # Errors
/// [`ProviderError::Rejected`] [`UNKNOWN_CREDENTIAL`] when it is no object with this member; `no_randomness`.
pub fn generated(
    value: &SecretValue,
    length: u16,
    characters: Characters,
    member: Option<&str>,
) -> Result<SecretValue, ProviderError> {
    let text = random_text(length, characters)
        .map_err(|error| ProviderError::Rejected { code: "no_randomness".to_owned(), detail: error.to_string() })?;
    let Some(member) = member else { return Ok(SecretValue::new(text.to_vec())) };
    let mut object = Object::read(value)?;
    if !object.0.get(member).is_some_and(Value::is_string) {
        return Err(unknown(&format!("the stored object has no text {member:?} that could be replaced")));
    }
    object.put(member, &String::from_utf8_lossy(&text));
    object.write()
}

fn random_text(length: u16, characters: Characters) -> Result<Zeroizing<Vec<u8>>, NoRandomness> {
    let mut random = Zeroizing::new(Vec::new());
    loop {
        random.extend_from_slice(Zeroizing::new(ids::random::<64>()?).as_slice());
        if let Some(text) = characters.write(usize::from(length), random.iter().copied()) {
            return Ok(Zeroizing::new(text));
        }
    }
}

/// A stored JSON object. Its texts are wiped when it is dropped.
struct Object(Map<String, Value>);

impl Object {
    fn read(value: &SecretValue) -> Result<Self, ProviderError> {
        match serde_json::from_slice(value.expose()) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            // serde's own words would show a part of the value
            _ => Err(unknown("the stored value is no JSON object")),
        }
    }

    /// The names under which it holds an access key.
    fn names(&self) -> Result<(&'static str, &'static str), ProviderError> {
        let held = |name: &str| self.0.get(name).is_some_and(Value::is_string);
        let names = ACCESS_KEY_NAMES.into_iter().find(|(id, secret)| held(id) && held(secret));
        names.ok_or_else(|| unknown("the stored object has no access key, e.g. accessKeyId with secretAccessKey"))
    }

    fn put(&mut self, name: &str, text: &str) {
        if let Some(Value::String(before)) = self.0.insert(name.to_owned(), text.into()) {
            drop(Zeroizing::new(before));
        }
    }

    fn write(&self) -> Result<SecretValue, ProviderError> {
        serde_json::to_vec(&self.0).map(SecretValue::new).map_err(|_| unknown("the new object cannot be written"))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        for (_, member) in std::mem::take(&mut self.0) {
            if let Value::String(text) = member {
                drop(Zeroizing::new(text));
            }
        }
    }
}

fn unknown(detail: &str) -> ProviderError {
    ProviderError::Rejected { code: UNKNOWN_CREDENTIAL.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    fn text(value: &SecretValue) -> String {
        String::from_utf8(value.expose().to_vec()).unwrap()
    }

    #[test]
    fn a_key_takes_the_place_of_the_one_in_use_and_nothing_else() {
        let stored = value(r#"{"host":"h","AWS_ACCESS_KEY_ID":"A","AWS_SECRET_ACCESS_KEY":"s","n":7}"#);
        let (id, secret) = access_key(&stored).unwrap();
        assert_eq!((id.as_str(), secret.expose_secret()), ("A", "s"));
        let new = with_access_key(&stored, "B", "t").unwrap();
        let read: Value = serde_json::from_slice(new.expose()).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"host": "h", "AWS_ACCESS_KEY_ID": "B", "AWS_SECRET_ACCESS_KEY": "t", "n": 7})
        );
    }

    #[test]
    fn what_is_no_key_is_told_without_its_value() {
        for stored in ["hunter2", "[1]", r#"{"accessKeyId":"A"}"#, r#"{"accessKeyId":"A","SecretAccessKey":"x"}"#] {
            let error = access_key(&value(stored)).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && error.starts_with(UNKNOWN_CREDENTIAL), "{error}");
        }
    }

    #[test]
    fn a_generated_text_replaces_the_value_or_a_member() {
        let whole = generated(&value("old"), 40, Characters::Hex, None).unwrap();
        assert_eq!(text(&whole).len(), 40);
        assert_ne!(text(&whole), text(&generated(&value("old"), 40, Characters::Hex, None).unwrap()));
        let member =
            generated(&value(r#"{"user":"u","password":"old"}"#), 12, Characters::Alphanumeric, Some("password"));
        let read: Value = serde_json::from_slice(member.unwrap().expose()).unwrap();
        assert_eq!((read["user"].as_str(), read["password"].as_str().map(str::len)), (Some("u"), Some(12)));
        for stored in ["old", r#"{"user":"u"}"#, r#"{"password":7}"#] {
            assert!(generated(&value(stored), 12, Characters::Hex, Some("password")).is_err(), "{stored}");
        }
    }
}
