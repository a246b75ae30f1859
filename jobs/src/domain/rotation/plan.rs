//! What people read before a rotation: its steps, the provider's calls, and what could become of it.

use super::{
    State, Strategy,
    terms::{GCP_SECRET, Method, Terms},
};
use serde::{Deserialize, Serialize};

/// One call of the provider's, in the state that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedCall {
    pub state: State,
    /// The provider's name of the operation.
    pub call: String,
    /// The permission that it needs; `None`: it is made with the new credential, or needs none.
    pub permission: Option<String>,
    /// Whether it changes anything there.
    pub changes: bool,
    /// Whether the permission is there; `None`: that shows only when the call is made.
    pub permitted: Option<bool>,
}

type Row = (State, &'static str, bool);

const AWS_GENERATED: &[Row] = &[
    (State::Planned, "secretsmanager:DescribeSecret", false),
    (State::Planned, "secretsmanager:GetSecretValue", false),
    (State::Staged, "secretsmanager:PutSecretValue", true),
    (State::Proven, "secretsmanager:GetSecretValue", false),
    (State::Promoted, "secretsmanager:UpdateSecretVersionStage", true),
];

const AWS_ACCESS_KEY: &[Row] = &[
    (State::Planned, "secretsmanager:DescribeSecret", false),
    (State::Planned, "secretsmanager:GetSecretValue", false),
    (State::Planned, "iam:GetAccessKeyLastUsed", false),
    (State::Planned, "iam:ListAccessKeys", false),
    (State::Minted, "iam:CreateAccessKey", true),
    (State::Staged, "secretsmanager:PutSecretValue", true),
    (State::Proven, "sts:GetCallerIdentity", false),
    (State::Promoted, "secretsmanager:UpdateSecretVersionStage", true),
    (State::Disabled, "iam:UpdateAccessKey", true),
    (State::Retired, "iam:DeleteAccessKey", true),
];

const GCP_GENERATED: &[Row] = &[
    (State::Planned, "secretmanager.versions.get", false),
    (State::Planned, "secretmanager.versions.access", false),
    (State::Promoted, "secretmanager.versions.add", true),
    (State::Disabled, "secretmanager.versions.disable", true),
    (State::Retired, "secretmanager.versions.destroy", true),
];

/// The calls of a rotation that meets no obstacle, in their order. Those that are `seen` were made while planning.
pub fn calls(kind: &str, method: &Method) -> Vec<PlannedCall> {
    let rows = match method {
        Method::AwsAccessKey => AWS_ACCESS_KEY,
        Method::Generated { .. } if kind == GCP_SECRET => GCP_GENERATED,
        Method::Generated { .. } => AWS_GENERATED,
    };
    let planned = rows.iter().map(|(state, call, changes)| PlannedCall {
        state: *state,
        call: (*call).to_owned(),
        // needs no permission, and is made as the new key
        permission: (*call != "sts:GetCallerIdentity").then(|| (*call).to_owned()),
        changes: *changes,
        // the plan rests on it
        permitted: rows.iter().any(|(when, other, _)| *when == State::Planned && other == call).then_some(true),
    });
    planned.collect()
}

/// What will happen, a sentence each, in its order.
pub fn sentences(terms: &Terms, strategy: Strategy) -> Vec<String> {
    let mut told = Vec::new();
    told.push(match &terms.method {
        Method::Generated { length, json_key: Some(key), .. } => {
            format!("A random text of {length} characters is made; it becomes the member {key:?} of the stored object.")
        }
        Method::Generated { length, .. } => format!("A random text of {length} characters is made."),
        Method::AwsAccessKey => "A second access key of the user is made.".to_owned(),
    });
    if strategy.stages {
        told.push("It is stored as a pending version: readers go on getting the present one.".to_owned());
        told.push(format!(
            "It is tested until it worked {} times in a row; what does not within {} s is taken back.",
            terms.verify.successes, terms.verify.deadline_seconds
        ));
    }
    told.push(
        "It becomes the version that readers get, if the present one is still what this plan was made for.".to_owned(),
    );
    told.push(format!("Both work for {} s, in which it can be rolled back.", terms.grace_seconds));
    if strategy.tells_use && terms.quiet_seconds > 0 {
        told.push(format!("The former one must have been unused for {} s.", terms.quiet_seconds));
    }
    if strategy.disables {
        told.push("The former one is switched off, which can be undone.".to_owned());
    } else {
        told.push("The former version stays in the store, as the previous one.".to_owned());
    }
    if strategy.disables && strategy.deletes {
        told.push(format!("After {} s it is deleted.", terms.hold_seconds));
    }
    told
}

/// What a person who must decide can do.
pub fn runbook(reason: &super::Reason) -> &'static str {
    use super::Reason;
    match reason {
        Reason::QuotaFull => {
            "The identity has all the credentials it may have, and none was made by us. Delete one that nobody uses at the \
             provider, then resume; or compensate."
        }
        Reason::StrangeCredentials => {
            "Credentials appeared at the identity while one was being made, and nobody can tell which is ours. Look at the \
             provider who made them and delete what nobody knows, then resume; or compensate and take it away by hand."
        }
        Reason::StrangePending => {
            "The store holds a pending version of somebody else's: perhaps another rotation is under way there. Let that end or \
             remove its label, then resume; or compensate."
        }
        Reason::Moved => {
            "Somebody else changed what is current. Nothing of theirs was touched. Look which version the consumers need; make the \
             expected one current and resume, or compensate, or, after the promotion, abandon and delete by hand what is not used."
        }
        Reason::StillInUse => {
            "The former credential is still used after all the time allowed. Find its consumer (the provider tells where and when \
             it was used), let it read the new one, then resume. Or abandon: both go on working."
        }
        Reason::CurrentFails => {
            "What is current fails its test; nothing was deleted. Roll back, or repair the current one and resume."
        }
        Reason::Denied(_) => "A permission is missing. Grant it and resume; or compensate.",
        Reason::Gone => "The identity or the entry was deleted. Restore it and resume, or abandon.",
        Reason::NotGone => "The provider goes on listing what was deleted. Look at it there, then resume or abandon.",
        Reason::WorkerLost => {
            "Several workers died while they drove it. See their logs; resume: what was under way is looked at first."
        }
        _ => "Look at the last steps of the history, mend what they name and resume; or compensate, or abandon.",
    }
}

#[cfg(test)]
mod tests {
    use super::super::terms::AWS_SECRET;
    use super::*;

    #[test]
    fn what_changes_something_stands_in_no_plan_as_tried() {
        for (kind, method) in
            [(AWS_SECRET, Method::default()), (GCP_SECRET, Method::default()), (AWS_SECRET, Method::AwsAccessKey)]
        {
            let calls = calls(kind, &method);
            assert!(calls.iter().all(|call| !call.changes || call.permitted.is_none()), "{calls:?}");
            assert!(calls.is_sorted_by_key(|call| call.state), "{calls:?}");
            assert!(calls.iter().any(|call| call.state == State::Promoted && call.changes));
        }
    }
}
