//! The `settings` of a local target.

use super::pkcs12::Password;
use keywright_jobs::provider::ProviderError;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Looks an environment variable up; the one way in which this provider sees the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The settings of one local subscription, read.
#[derive(Clone)]
pub struct Settings {
    /// Files and directories, in the order given, each once.
    pub paths: Vec<PathBuf>,
    /// Endpoints as the user wrote them.
    pub endpoints: Vec<String>,
    passwords: Vec<(PathBuf, Reference)>,
    environment: Environment,
}

/// Where a password is, never the password.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reference {
    Variable(String),
    File(PathBuf),
}

/// Unknown keys are ignored: whoever stores the settings validates them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default)]
    pkcs12_passwords: BTreeMap<String, String>,
}

/// A password file may have this many bytes.
const PASSWORD_FILE_LIMIT: u64 = 4_096;

impl Settings {
    /// # Errors
    /// [`ProviderError::Rejected`] with `invalid_settings` when a key has another type than it should, or a password is
    /// given itself instead of by reference.
    pub fn read(value: &Value, environment: Environment) -> Result<Self, ProviderError> {
        let wire = if value.is_null() { Ok(Wire::default()) } else { Wire::deserialize(value) };
        // serde's own text would repeat the offending value, which may be a password
        let wire = wire.map_err(|_| {
            invalid("`paths` and `endpoints` are lists of texts, `pkcs12Passwords` an object of texts".to_owned())
        })?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in wire.paths.into_iter().filter(|path| !path.is_empty()) {
            // `components` makes one spelling of `/a/./b//` and `/a/b`
            let path: PathBuf = Path::new(&path).components().collect();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let mut passwords = Vec::new();
        for (path, reference) in wire.pkcs12_passwords {
            let reference = Reference::read(&reference).ok_or_else(|| {
                invalid(format!("the password of {path} must be given as env:NAME or file:/path, never itself"))
            })?;
            passwords.push((Path::new(&path).components().collect(), reference));
        }
        Ok(Self { paths, endpoints: wire.endpoints, passwords, environment })
    }

    /// The password for the archive at `path`: of all entries that `path` begins with, the longest one's.
    pub fn password(&self, path: &Path) -> Password {
        let named = self.passwords.iter().filter(|(prefix, _)| path.starts_with(prefix));
        match named.max_by_key(|(prefix, _)| prefix.components().count()) {
            None => Password::NotGiven,
            Some((_, reference)) => match self.resolve(reference) {
                Ok(secret) => Password::Known(secret),
                Err(reason) => Password::Unavailable(reason),
            },
        }
    }

    fn resolve(&self, reference: &Reference) -> Result<SecretString, String> {
        match reference {
            Reference::Variable(name) => (self.environment)(name)
                .map(SecretString::from)
                .ok_or_else(|| format!("the worker's environment has no variable {name}")),
            Reference::File(path) => {
                let shown = path.display();
                let (_, bytes) = super::files::whole(path, PASSWORD_FILE_LIMIT)
                    .map_err(|refusal| format!("the password file {shown}: {}", refusal.detail))?;
                let text =
                    std::str::from_utf8(&bytes).map_err(|_| format!("the password file {shown} is not UTF-8"))?;
                let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
                Ok(SecretString::from(line.as_str()))
            }
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Settings");
        shown.field("paths", &self.paths).field("endpoints", &self.endpoints).field("passwords", &self.passwords);
        shown.finish_non_exhaustive()
    }
}

impl Reference {
    fn read(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("env", name) if !name.is_empty() => Some(Self::Variable(name.to_owned())),
            ("file", path) if !path.is_empty() => Some(Self::File(PathBuf::from(path))),
            _ => None,
        }
    }
}

fn invalid(detail: String) -> ProviderError {
    ProviderError::Rejected { code: "invalid_settings".to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn read(value: &Value) -> Result<Settings, ProviderError> {
        Settings::read(value, Arc::new(|name| (name == "PW").then(|| "from env".to_owned())))
    }

    fn shown(password: &Password) -> &str {
        match password {
            Password::NotGiven => "none",
            Password::Known(secret) => secret.expose_secret(),
            Password::Unavailable(reason) => reason,
        }
    }

    #[test]
    fn paths_are_taken_once_and_unknown_keys_are_ignored() {
        let settings = read(&json!({"paths": ["/a//b/", "/a/./b", "/c"], "worker": "w", "else": 1})).unwrap();
        assert_eq!(settings.paths, [Path::new("/a/b"), Path::new("/c")]);
        assert!(read(&Value::Null).unwrap().paths.is_empty());
    }

    #[test]
    fn the_longest_prefix_names_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "from file\n").unwrap();
        let settings = read(&json!({"pkcs12Passwords": {
            "/k": "env:PW", "/k/deep": format!("file:{}", file.display()), "/k/deep/none": "env:NONE"
        }}))
        .unwrap();
        let cases = [
            ("/k/a.p12", "from env"),
            ("/k/deep/a.p12", "from file"),
            ("/k/deep/none/a.p12", "the worker's environment has no variable NONE"),
            ("/keys/a.p12", "none"),
        ];
        for (path, expected) in cases {
            assert_eq!(shown(&settings.password(Path::new(path))), expected, "{path}");
        }
    }

    #[test]
    fn a_password_in_the_settings_is_refused_and_not_repeated() {
        for value in [json!({"pkcs12Passwords": {"/k": "hunter2"}}), json!({"pkcs12Passwords": "hunter2"})] {
            let error = read(&value).unwrap_err().to_string();
            assert!(error.starts_with("invalid_settings") && !error.contains("hunter2"), "{error}");
        }
    }
}
