//! Where sealed values are kept: every table that has them, so that a new key-encryption key reaches them all.
//!
//! A new one is a function for its [`Binding`] and a line in `visit`; a test compares the list with the schema.

use super::envelope::Binding;
use keywright_entities::{rotation_secret, sealing_canary, signing_key, subscription_credential};
use sea_orm::{EntityTrait, Value};

/// The instance's own secret.
pub const INSTANCE: Binding<'static> =
    Binding { table: "sealing_canary", record: sealing_canary::ID, version: 0, purpose: "instance secret" };

/// The private half of a key that signs.
pub fn signing_key(kid: &str) -> Binding<'_> {
    Binding { table: "signing_key", record: kid, version: 0, purpose: "private key" }
}

/// What a subscription stores to log in with. `version` is that of the subscription when it was stored.
pub fn credential(subscription: &str, version: i64) -> Binding<'_> {
    Binding { table: "subscription_credential", record: subscription, version, purpose: "credential" }
}

/// A new credential that is stored nowhere else yet. `version` counts the candidates of the rotation.
pub fn candidate(rotation: &str, version: i64) -> Binding<'_> {
    Binding { table: "rotation_secret", record: rotation, version, purpose: "candidate" }
}

/// A table with a sealed column.
pub(super) struct Place<E: EntityTrait> {
    pub id: E::Column,
    pub key_id: E::Column,
    pub sealed: E::Column,
    pub read: fn(&E::Model) -> Row<'_>,
    pub binding: for<'a> fn(&'a str, i64) -> Binding<'a>,
}

/// What re-wrapping needs of a row.
pub(super) struct Row<'a> {
    pub id: Value,
    pub record: String,
    pub version: i64,
    pub sealed: &'a [u8],
}

/// Does the same for every table.
pub(super) trait Visitor {
    type Error;

    async fn table<E>(&mut self, place: Place<E>) -> Result<(), Self::Error>
    where
        E: EntityTrait,
        E::Model: Send + Sync;
}

/// The list.
pub(super) async fn visit<V: Visitor>(visitor: &mut V) -> Result<(), V::Error> {
    visitor.table(canary_place()).await?;
    visitor
        .table::<signing_key::Entity>(Place {
            id: signing_key::Column::Kid,
            key_id: signing_key::Column::KeyId,
            sealed: signing_key::Column::SealedPrivate,
            read: |row| Row {
                id: row.kid.clone().into(),
                record: row.kid.clone(),
                version: 0,
                sealed: &row.sealed_private,
            },
            binding: |record, _| signing_key(record),
        })
        .await?;
    visitor
        .table::<subscription_credential::Entity>(Place {
            id: subscription_credential::Column::SubscriptionId,
            key_id: subscription_credential::Column::KeyId,
            sealed: subscription_credential::Column::Sealed,
            read: |row| Row {
                id: row.subscription_id.into(),
                record: row.subscription_id.to_string(),
                version: row.version,
                sealed: &row.sealed,
            },
            binding: credential,
        })
        .await?;
    visitor
        .table::<rotation_secret::Entity>(Place {
            id: rotation_secret::Column::RotationId,
            key_id: rotation_secret::Column::KeyId,
            sealed: rotation_secret::Column::Sealed,
            read: |row| Row {
                id: row.rotation_id.into(),
                record: row.rotation_id.to_string(),
                version: row.version,
                sealed: &row.sealed,
            },
            binding: candidate,
        })
        .await
}

/// The canary: whose key it is under is the key in force.
pub(super) fn canary_place() -> Place<sealing_canary::Entity> {
    Place {
        id: sealing_canary::Column::Id,
        key_id: sealing_canary::Column::KeyId,
        sealed: sealing_canary::Column::SealedSecret,
        read: |row| Row { id: row.id.clone().into(), record: row.id.clone(), version: 0, sealed: &row.sealed_secret },
        binding: |record, _| Binding { record, ..INSTANCE },
    }
}
