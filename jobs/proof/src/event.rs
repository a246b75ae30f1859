//! What of an audit event is hashed: one leaf of the log's tree.
//!
//! People's names are no part of it. A leaf holds who it was, and to whom it was done, by id, and a commitment to the name: its
//! hash with a random salt. Whoever has name and salt can check that they belong to the event; once both are erased, nothing
//! leads back to the name, and the tree stands as it did.

use crate::{
    canonical::{self, NotJson},
    hash::Hash,
    tree,
};
use serde::Serialize;
use serde_json::Value;

/// The form of the leaves, which readers of later forms still know.
const FORM: u8 = 1;

/// Bytes of a salt.
pub const SALT: usize = 16;

/// An event with its number.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent<'a> {
    /// The number: 0 for the first event of the log, without gaps.
    #[serde(serialize_with = "as_text")]
    pub seq: u64,
    pub id: &'a str,
    /// RFC 3339 in UTC with microseconds.
    pub at: &'a str,
    #[serde(rename = "type")]
    pub event_type: &'a str,
    pub actor: ActorRef<'a>,
    pub subject: SubjectRef<'a>,
    pub outcome: &'a str,
    pub request_id: Option<&'a str>,
    pub job_id: Option<&'a str>,
    pub details: Value,
}

/// Who did it.
#[derive(Clone, Debug, Serialize)]
pub struct ActorRef<'a> {
    #[serde(rename = "type")]
    pub actor_type: &'a str,
    pub id: Option<&'a str>,
    /// The commitment to the name, when the actor had one.
    pub name: Option<Hash>,
}

/// To what.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectRef<'a> {
    #[serde(rename = "type")]
    pub subject_type: &'a str,
    pub id: Option<&'a str>,
    /// The commitment to the name, when it is somebody.
    pub name: Option<Hash>,
}

impl AuditEvent<'_> {
    /// The bytes that are hashed: canonical JSON without numbers that readers may round.
    ///
    /// # Errors
    /// None in practice: everything in it can be written.
    pub fn leaf_bytes(&self) -> Result<Vec<u8>, NotJson> {
        #[derive(Serialize)]
        struct Leaf<'a> {
            #[serde(flatten)]
            event: &'a AuditEvent<'a>,
            form: u8,
        }
        let event = Self { details: canonical::plain(self.details.clone()), ..self.clone() };
        canonical::to_vec(&Leaf { event: &event, form: FORM })
    }

    /// # Errors
    /// As [`Self::leaf_bytes`].
    pub fn leaf(&self) -> Result<Hash, NotJson> {
        Ok(tree::leaf(&self.leaf_bytes()?))
    }
}

/// The commitment to a name.
pub fn commitment(salt: &[u8; SALT], name: &str) -> Hash {
    Hash::of_parts(&[salt, name.as_bytes()])
}

fn as_text<S: serde::Serializer>(seq: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(seq)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub fn event(seq: u64, id: &str) -> AuditEvent<'_> {
        AuditEvent {
            seq,
            id,
            at: "2026-11-24T20:00:00.000001+00:00",
            event_type: "user.created",
            actor: ActorRef { actor_type: "user", id: Some("u-1"), name: Some(commitment(&[7; SALT], "ada")) },
            subject: SubjectRef { subject_type: "user", id: Some("u-2"), name: None },
            outcome: "success",
            request_id: None,
            job_id: None,
            details: json!({"role": "viewer", "count": 3, "big": u64::MAX}),
        }
    }

    #[test]
    fn a_leaf_has_one_spelling_and_no_name_in_it() {
        let bytes = String::from_utf8(event(u64::MAX, "e-1").leaf_bytes().unwrap()).unwrap();
        let name = commitment(&[7; SALT], "ada");
        let wanted = format!(
            "{{\"actor\":{{\"id\":\"u-1\",\"name\":\"{name}\",\"type\":\"user\"}},\"at\":\"2026-11-24T20:00:00.000001+00:00\",\
             \"details\":{{\"big\":\"18446744073709551615\",\"count\":3,\"role\":\"viewer\"}},\"form\":1,\"id\":\"e-1\",\"jobId\":null,\
             \"outcome\":\"success\",\"requestId\":null,\"seq\":\"18446744073709551615\",\"subject\":{{\"id\":\"u-2\",\"name\":null,\"type\":\"user\"}},\
             \"type\":\"user.created\"}}"
        );
        assert_eq!(bytes, wanted);
        assert_ne!(commitment(&[7; SALT], "ada"), commitment(&[8; SALT], "ada"));
    }
}
