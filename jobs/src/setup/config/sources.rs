//! Where settings are written: the environment and a TOML file. The only code of Keywright that reads the environment.

use super::{KEYS, Key, Origin, Problem, keys::CONFIG_FILE};
use std::{collections::BTreeMap, ffi::OsString, path::Path};
use toml::{Table, Value};

/// The text of one setting as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// How an error names it, e.g. `KEYWRIGHT_LISTEN` or `listen in keywright.toml`.
    pub name: String,
    pub value: String,
    pub origin: Origin,
}

/// All texts that were given, before they are understood.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, Text>,
}

/// A variable of this process's environment that is not one of our settings: what a user's reference such as `env:NAME` names.
#[allow(clippy::disallowed_methods, reason = "as below: this file is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Sources {
    /// Keeps of `environment` what is ours. An empty value counts as not given, as compose files write it.
    pub fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): &(String, String)| is_ours(name) && !value.trim().is_empty();
        Self { environment: environment.into_iter().filter(ours).collect(), file: BTreeMap::new() }
    }

    /// Adds the settings of a TOML file. A key is the variable's name, or the same in lower case without `KEYWRIGHT_`:
    /// `listen`, `lease_seconds`, `database_url`. A list may be an array.
    ///
    /// # Errors
    /// Everything that cannot be read as a setting; what can be read is kept, so that all problems are found at once.
    pub fn add_file(&mut self, path: &Path, text: &str) -> Vec<Problem> {
        let shown = path.display();
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(wrong) => {
                // Only the message: the parser's own display quotes the line, which may hold a secret.
                let line = wrong.span().and_then(|s| text.get(..s.start)).map_or(1, |t| t.matches('\n').count() + 1);
                let text = format!("line {line} is not valid TOML: {}", wrong.message());
                return vec![Problem { name: shown.to_string(), text }];
            }
        };
        let mut problems = Vec::new();
        for (written, value) in &table {
            let name = format!("{written} in {shown}");
            let key = KEYS.iter().find(|k| k.name == written || k.file_name() == *written);
            let value = match (key, scalar(value)) {
                (None, _) => Err("there is no such setting; remove it or correct its name".to_owned()),
                (Some(key), _) if key.name == CONFIG_FILE => {
                    Err("a file cannot name another one; remove it".to_owned())
                }
                (Some(_), None) => Err("must be a text, a number, true, false or a list of texts".to_owned()),
                (Some(key), Some(_)) if self.file.contains_key(key.name) => {
                    Err(format!("is given twice, also as {}; keep one", key.name))
                }
                (Some(key), Some(value)) => Ok((key, value)),
            };
            match value {
                Ok((key, value)) => {
                    self.file.insert(key.name.to_owned(), Text { name, value, origin: Origin::File });
                }
                Err(text) => problems.push(Problem { name, text }),
            }
        }
        problems
    }

    /// What was given for `key`; the environment wins.
    pub fn get(&self, key: &Key) -> Option<Text> {
        let text =
            |value: &String| Text { name: key.name.to_owned(), value: value.clone(), origin: Origin::Environment };
        self.environment.get(key.name).map(text).or_else(|| self.file.get(key.name).cloned())
    }

    /// Variables that look like ours but are not.
    pub fn unknown(&self) -> Vec<Problem> {
        let known = |name: &str| KEYS.iter().any(|key| key.name == name);
        let problem = |name: &String| Problem {
            name: name.clone(),
            text: "there is no such setting; remove it or correct its name".to_owned(),
        };
        self.environment.keys().filter(|name| !known(name)).map(problem).collect()
    }

    /// The environment of this process, and the file that it names.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn of_process() -> (Self, Vec<Problem>) {
        let (environment, mut problems) = readable(std::env::vars_os());
        let mut sources = Self::new(environment);
        if let Some(file) = sources.environment.get(CONFIG_FILE).cloned() {
            match std::fs::read_to_string(&file) {
                Ok(text) => problems.extend(sources.add_file(Path::new(&file), &text)),
                Err(wrong) => problems.push(Problem {
                    name: CONFIG_FILE.to_owned(),
                    text: format!("{file} cannot be read ({wrong}); name a TOML file that this process may read"),
                }),
            }
        }
        (sources, problems)
    }
}

fn is_ours(name: &str) -> bool {
    name == "DATABASE_URL" || name.starts_with("KEYWRIGHT_")
}

/// Splits off what is not Unicode. Foreign variables may be anything and are not our business.
fn readable(variables: impl Iterator<Item = (OsString, OsString)>) -> (Vec<(String, String)>, Vec<Problem>) {
    let mut good = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !is_ours(&name) {
            continue;
        }
        match value.into_string() {
            Ok(value) => good.push((name, value)),
            Err(_) => problems.push(Problem { name, text: "is not valid UTF-8; write it in UTF-8".to_owned() }),
        }
    }
    (good, problems)
}

/// The text that the environment would hold for a TOML value.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Array(items) => items.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(|texts| texts.join(",")),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// Linux tells it in a file, which also works in an image without any tool; elsewhere POSIX `uname -n` does.
pub(super) fn host_name() -> String {
    let from_file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let from_uname = || {
        let output = std::process::Command::new("uname").arg("-n").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let name = from_file.or_else(from_uname).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_value_that_is_not_unicode_is_a_problem_only_when_it_is_ours() {
        let bad = || OsString::from_vec(vec![0xff]);
        let (good, problems) = readable([("PATH".into(), bad()), ("KEYWRIGHT_LOG".into(), bad())].into_iter());
        assert_eq!(good, []);
        assert_eq!(problems.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["KEYWRIGHT_LOG"]);
    }

    #[test]
    fn this_machine_has_a_name() {
        assert!(!host_name().is_empty());
    }
}
