//! Who acted, and to whom it was done: names apart from the events, which hold a commitment to them.

use crate::setup::{
    database::Write,
    ids::{self, NoRandomness},
};
use keywright_entities::{audit_log, audit_name, audit_outbox, clock};
use keywright_proof::{
    Hash,
    event::{SALT, commitment},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, sea_query::Expr,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The people of whom some events tell names, and what is kept of each name.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<(String, String), audit_name::Model>,
    erased: BTreeSet<String>,
    /// Those of `known` that are not written yet.
    new: Vec<(String, String)>,
}

/// A name that an event tells.
pub type Told = Option<(String, String)>;

/// Whose name stands with the event's actor, before it has its number.
pub fn of_actor(event: &audit_outbox::Model) -> Told {
    let name = event.actor_name.clone()?;
    Some((person(event.actor_type.as_str(), event.actor_id.as_deref()), name))
}

/// Whose name stands among the event's details, before it has its number: that of the user whom it is about.
pub fn of_subject(event: &audit_outbox::Model) -> Told {
    let name = event.details.get("name").and_then(Value::as_str).filter(|_| event.subject_type == "user")?;
    Some((person("user", event.subject_id.as_deref()), name.to_owned()))
}

fn person(kind: &str, id: Option<&str>) -> String {
    format!("{kind}:{}", id.unwrap_or_default())
}

impl Names {
    /// What is known of the names that these events tell, and salts for those that are new.
    pub(super) async fn of(db: &impl ConnectionTrait, events: &[audit_outbox::Model]) -> Result<Self, NamesError> {
        let told: BTreeSet<(String, String)> =
            events.iter().flat_map(|event| [of_actor(event), of_subject(event)]).flatten().collect();
        let mut names = Self::default();
        if told.is_empty() {
            return Ok(names);
        }
        let people: BTreeSet<String> = told.iter().map(|(person, _)| person.clone()).collect();
        for row in audit_name::of(db, people).await? {
            match &row.name {
                Some(name) => drop(names.known.insert((row.person.clone(), name.clone()), row)),
                None => drop(names.erased.insert(row.person)),
            }
        }
        for told in told {
            if names.erased.contains(&told.0) || names.known.contains_key(&told) {
                continue;
            }
            let salt = ids::random::<SALT>()?;
            let row = audit_name::Model {
                id: ids::new(),
                person: told.0.clone(),
                name: Some(told.1.clone()),
                salt: Some(salt.to_vec()),
                commitment: Some(commitment(&salt, &told.1).0.to_vec()),
                erased_at: None,
            };
            names.new.push(told.clone());
            names.known.insert(told, row);
        }
        Ok(names)
    }

    /// The row of a name; none when it was erased.
    pub(super) fn row(&self, told: &Told) -> Option<&audit_name::Model> {
        self.known.get(told.as_ref()?)
    }

    /// Writes the new names; `false` when somebody was erased, or the same name written, since they were read. The caller holds
    /// the row of the log, for which [`erase`] waits.
    pub(super) async fn write(&self, write: &Write) -> Result<bool, DbErr> {
        if self.new.is_empty() {
            return Ok(true);
        }
        let people: BTreeSet<String> = self.new.iter().map(|(person, _)| person.clone()).collect();
        let changed = audit_name::of(&**write, people).await?.into_iter().any(|row| match row.name {
            None => true,
            Some(name) => self.new.contains(&(row.person, name)),
        });
        if changed {
            return Ok(false);
        }
        let rows = self.new.iter().filter_map(|told| self.known.get(told)).map(|row| audit_name::ActiveModel {
            id: Set(row.id),
            person: Set(row.person.clone()),
            name: Set(row.name.clone()),
            salt: Set(row.salt.clone()),
            commitment: Set(row.commitment.clone()),
            erased_at: Set(None),
        });
        audit_name::Entity::insert_many(rows).exec_without_returning(&**write).await?;
        Ok(true)
    }
}

/// Why names could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What an event holds of a name.
pub(super) fn committed(row: &audit_name::Model) -> Option<Hash> {
    row.commitment.as_deref().and_then(Hash::from_bytes)
}

/// Erases all names of a user from the log, for good. Who it was remains known by id alone; the events and all that was signed
/// stand as they did.
///
/// # Errors
/// When the database does not take it.
pub async fn erase(write: &Write, user: Uuid) -> Result<(), DbErr> {
    let person = person("user", Some(&user.to_string()));
    // the sequencer writes names while it holds this row
    audit_log::Entity::find_by_id(audit_log::ID.to_owned()).lock_exclusive().one(&**write).await?;
    let now = clock::micros(clock::now(&**write).await?);
    audit_name::Entity::update_many()
        .col_expr(audit_name::Column::Name, Expr::value(None::<String>))
        .col_expr(audit_name::Column::Salt, Expr::value(None::<Vec<u8>>))
        .col_expr(audit_name::Column::ErasedAt, Expr::value(now))
        .filter(audit_name::Column::Person.eq(&person))
        .exec(&**write)
        .await?;
    // events that wait for their numbers tell the name still
    let erased = audit_name::ActiveModel {
        id: Set(ids::new()),
        person: Set(person),
        name: Set(None),
        salt: Set(None),
        commitment: Set(None),
        erased_at: Set(Some(now)),
    };
    audit_name::Entity::insert(erased).exec_without_returning(&**write).await.map(|_| ())
}
