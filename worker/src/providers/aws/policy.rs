//! Whom a resource policy lets in: everybody, other accounts, or only its own.
//!
//! Pure, and it never guesses: a statement that it cannot follow to its end makes the verdict `unknown`. Service principals are, as
//! by IAM Access Analyzer, not counted as somebody else; they are named beside.

use super::facts::Attributes;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Only principals of the account that the resource is in, or nobody.
    Own,
    /// Principals of accounts or organisations that the policy names.
    CrossAccount,
    Unknown,
    /// Anybody with an AWS account, or without.
    Public,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::CrossAccount => "cross-account",
            Self::Unknown => "unknown",
            Self::Public => "public",
        }
    }
}

/// What a policy says, without the policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub verdict: Verdict,
    /// Other accounts, and organisations, that it names where it allows.
    pub others: BTreeSet<String>,
    pub services: BTreeSet<String>,
    /// SHA-256 of its content; blanks and the order of members do not count.
    pub digest: String,
}

impl Reading {
    /// Reads the policy of a resource that is in `account`.
    pub fn of(text: &str, account: &str) -> Self {
        let hash = |text: &str| hex::encode(digest(&SHA256, text.as_bytes()));
        let Ok(policy) = serde_json::from_str::<Value>(text) else {
            return Self {
                verdict: Verdict::Unknown,
                others: BTreeSet::new(),
                services: BTreeSet::new(),
                digest: hash(text),
            };
        };
        let mut found = Found { account, others: BTreeSet::new(), services: BTreeSet::new() };
        let verdict = found.verdict(&policy);
        Self { verdict, others: found.others, services: found.services, digest: hash(&policy.to_string()) }
    }

    pub fn write(&self, attributes: &mut Attributes) {
        let words =
            |words: &BTreeSet<String>| Some(words.iter().cloned().collect::<Vec<_>>()).filter(|w| !w.is_empty());
        attributes.put("policyVerdict", Some(self.verdict.as_str()));
        attributes.put("policyDigest", Some(self.digest.as_str()));
        attributes.put("policyOthers", words(&self.others));
        attributes.put("policyServices", words(&self.services));
    }
}

/// The account in an ARN.
pub(super) fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| is_account(account))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

struct Found<'a> {
    account: &'a str,
    others: BTreeSet<String>,
    services: BTreeSet<String>,
}

impl Found<'_> {
    fn verdict(&mut self, policy: &Value) -> Verdict {
        let Some(statements) = policy.get("Statement").map(several) else { return Verdict::Unknown };
        let effect = |statement: &Value| statement.get("Effect").and_then(Value::as_str).map(str::to_owned);
        if statements.iter().any(|one| !matches!(effect(one).as_deref(), Some("Allow" | "Deny"))) {
            return Verdict::Unknown;
        }
        let (allows, denies): (Vec<_>, Vec<_>) =
            statements.into_iter().partition(|one| effect(one).as_deref() == Some("Allow"));
        let verdicts = allows.into_iter().map(|allow| {
            let alone = self.allowed(allow);
            if alone == Verdict::Own {
                return alone;
            }
            denies.iter().map(|deny| denied(deny, allow)).max().map_or(alone, |denied| match denied {
                Denied::Nothing => alone,
                Denied::Perhaps => Verdict::Unknown,
                Denied::All => Verdict::Own,
            })
        });
        verdicts.max().unwrap_or(Verdict::Own)
    }

    fn allowed(&mut self, statement: &Value) -> Verdict {
        let narrowed = self.narrowed(statement.get("Condition"));
        let anybody = match &narrowed {
            Narrowed::Not => Verdict::Public,
            Narrowed::ToOwn => Verdict::Own,
            Narrowed::ToOthers(_) => Verdict::CrossAccount,
            Narrowed::Somehow => Verdict::Unknown,
        };
        if let (Narrowed::ToOthers(others), true) = (narrowed, names_anybody(statement)) {
            self.others.extend(others);
        }
        // everybody but those
        if statement.get("NotPrincipal").is_some() {
            return anybody;
        }
        match statement.get("Principal") {
            Some(Value::String(name)) if name == "*" => anybody,
            Some(Value::Object(kinds)) if !kinds.is_empty() => {
                let each =
                    kinds.iter().flat_map(|(kind, names)| several(names).into_iter().map(move |name| (kind, name)));
                let verdicts: Vec<Verdict> = each
                    .map(|(kind, name)| match (kind.as_str(), name.as_str()) {
                        ("AWS", Some("*")) => anybody,
                        ("AWS", Some(name)) => self.principal(name),
                        ("Service", Some(name)) => {
                            self.services.insert(name.to_owned());
                            Verdict::Own
                        }
                        ("Federated", Some(name)) if account_of(name) == Some(self.account) => Verdict::Own,
                        _ => Verdict::Unknown,
                    })
                    .collect();
                verdicts.into_iter().max().unwrap_or(Verdict::Own)
            }
            _ => Verdict::Unknown,
        }
    }

    /// A principal that is named: an account, or a user, role or session of one. The unique id that is left of a deleted one is
    /// neither.
    fn principal(&mut self, name: &str) -> Verdict {
        let account = if is_account(name) { Some(name) } else { account_of(name).filter(|_| name.starts_with("arn:")) };
        match account {
            Some(account) if account == self.account => Verdict::Own,
            Some(account) => {
                self.others.insert(account.to_owned());
                Verdict::CrossAccount
            }
            None => Verdict::Unknown,
        }
    }

    /// What conditions leave of "anybody". All of them must hold, so the narrowest that is understood counts.
    fn narrowed(&self, conditions: Option<&Value>) -> Narrowed {
        let Some(conditions) = conditions else { return Narrowed::Not };
        let Value::Object(operators) = conditions else { return Narrowed::Somehow };
        let mut narrowed = Narrowed::Not;
        for (operator, tests) in operators {
            let Value::Object(tests) = tests else { return Narrowed::Somehow };
            for (key, values) in tests {
                let one = self.narrowed_by(operator, key, &several(values));
                narrowed = narrowed.and(one);
            }
        }
        narrowed
    }

    fn narrowed_by(&self, operator: &str, key: &str, values: &[&Value]) -> Narrowed {
        let values: Option<Vec<&str>> = values.iter().map(|value| value.as_str()).collect();
        let key = key.to_ascii_lowercase();
        let Some(values) = values.filter(|values| !values.is_empty() && values.iter().all(|v| !v.contains("${")))
        else {
            return Narrowed::Somehow;
        };
        let equals = matches!(operator, "StringEquals" | "StringEqualsIgnoreCase" | "StringLike");
        let arns = equals || matches!(operator, "ArnEquals" | "ArnLike");
        let of = |accounts: Option<BTreeSet<String>>| match accounts {
            Some(accounts) if accounts.iter().all(|account| account == self.account) => Narrowed::ToOwn,
            Some(mut accounts) => {
                accounts.remove(self.account);
                Narrowed::ToOthers(accounts)
            }
            None => Narrowed::Somehow,
        };
        match key.as_str() {
            "aws:principalaccount" | "aws:sourceaccount" | "aws:sourceowner" | "kms:calleraccount" if equals => {
                of(values.iter().map(|value| is_account(value).then(|| (*value).to_owned())).collect())
            }
            "aws:principalarn" | "aws:sourcearn" if arns => {
                of(values.iter().map(|value| account_of(value).map(str::to_owned)).collect())
            }
            // an organisation is more than its own account
            "aws:principalorgid" | "aws:sourceorgid"
                if equals && values.iter().all(|value| !value.contains(['*', '?'])) =>
            {
                Narrowed::ToOthers(values.iter().map(|value| (*value).to_owned()).collect())
            }
            "aws:securetransport" if operator == "Bool" => Narrowed::Not,
            _ => Narrowed::Somehow,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Narrowed {
    Not,
    /// By something that cannot be followed.
    Somehow,
    ToOthers(BTreeSet<String>),
    ToOwn,
}

impl Narrowed {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::ToOwn, _) | (_, Self::ToOwn) => Self::ToOwn,
            (Self::ToOthers(one), Self::ToOthers(two)) => {
                let both: BTreeSet<String> = one.intersection(&two).cloned().collect();
                // an account of an organisation
                Self::ToOthers(if both.is_empty() { one.union(&two).cloned().collect() } else { both })
            }
            (Self::ToOthers(others), _) | (_, Self::ToOthers(others)) => Self::ToOthers(others),
            (Self::Somehow, _) | (_, Self::Somehow) => Self::Somehow,
            (Self::Not, Self::Not) => Self::Not,
        }
    }
}

/// What a Deny takes away from what an Allow gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Denied {
    Nothing,
    Perhaps,
    All,
}

fn denied(deny: &Value, allow: &Value) -> Denied {
    let Some(taken) = deny.get("Action").map(several) else { return Denied::Perhaps };
    let covers = |given: &Value| taken.iter().any(|taken| covers(taken, given));
    match allow.get("Action").map(several) {
        // something that was given is not taken back
        Some(given) if !given.iter().all(|given| covers(given)) => return Denied::Nothing,
        Some(_) => {}
        None if taken.iter().any(|taken| taken.as_str() == Some("*")) => {}
        None => return Denied::Perhaps,
    }
    if let Some(Value::Object(conditions)) = deny.get("Condition")
        && let (1, Some(Value::Object(tests))) = (conditions.len(), conditions.get("Bool"))
        && tests.keys().all(|key| key.eq_ignore_ascii_case("aws:SecureTransport"))
    {
        // the usual demand for TLS keeps nobody out
        return Denied::Nothing;
    }
    let conditions = deny.get("Condition").is_some_and(|condition| *condition != serde_json::json!({}));
    let everything = deny.get("Resource").is_none_or(|resource| resource.as_str() == Some("*"));
    match names_anybody(deny) {
        true if !conditions && everything && deny.get("NotResource").is_none() => Denied::All,
        // some are kept out of what is open to all
        false if names_anybody(allow) && deny.get("NotPrincipal").is_none() => Denied::Nothing,
        _ => Denied::Perhaps,
    }
}

fn names_anybody(statement: &Value) -> bool {
    match statement.get("Principal") {
        Some(Value::String(name)) => name == "*",
        Some(Value::Object(kinds)) => {
            kinds.get("AWS").is_some_and(|names| several(names).iter().any(|name| name.as_str() == Some("*")))
        }
        _ => false,
    }
}

/// Whether the pattern of a Deny surely takes all that the pattern of an Allow gives.
fn covers(taken: &Value, given: &Value) -> bool {
    let (Some(taken), Some(given)) = (taken.as_str(), given.as_str()) else { return false };
    let (taken, given) = (taken.to_ascii_lowercase(), given.to_ascii_lowercase());
    match taken.strip_suffix('*') {
        Some(beginning) if !beginning.contains(['*', '?']) => given.starts_with(beginning),
        _ => taken == given,
    }
}

/// One thing or a list of them.
fn several(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

#[cfg(test)]
mod tests;
