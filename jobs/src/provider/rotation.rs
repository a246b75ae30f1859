//! What a cloud must be able to do for a credential to be rotated: somebody who issues it, and somewhere where it is stored.
//!
//! Both are narrow: what is done in which order, and what an answer means, is decided by [`crate::domain::rotation`].

use super::ProviderError;
use crate::domain::rotation::Method;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

/// A secret between two provider calls. Has neither `Debug` nor `Serialize`, and is wiped when it is dropped.
#[derive(Clone)]
pub struct SecretValue(SecretSlice<u8>);

impl SecretValue {
    pub fn new(bytes: Vec<u8>) -> Self {
        // one with room to spare would be moved into a smaller place, and the one before not wiped
        Self(Zeroizing::new(bytes).to_vec().into())
    }

    /// Whether both are the same, in constant time.
    pub fn is(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.expose(), other.expose()).is_ok()
    }

    /// To be called where the value is handed over, and nowhere else.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

/// What can be done with the credentials of an issuer: see [`crate::domain::rotation::Strategy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent abilities")]
pub struct Abilities {
    /// The value is chosen by us, so that setting it again is harmless.
    pub ours: bool,
    /// Somebody beside the store must be told about the value. Where nobody must, the store's versions are the credentials.
    pub applies: bool,
    pub overlaps: bool,
    pub disables: bool,
    pub deletes: bool,
    pub tells_use: bool,
    /// Most credentials of one identity; `None` = no limit that matters.
    pub limit: Option<usize>,
    /// After this long the list shows what was made.
    pub settle: Duration,
    /// A call that was handed over longer ago than this can no longer arrive.
    pub call_deadline: Duration,
}

/// The entry of a store that is rotated, by what the inventory knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// e.g. `aws.secretsmanager.secret`.
    pub kind: String,
    pub region: String,
    pub external_id: String,
    pub name: String,
}

/// Opens what a rotation talks to.
#[async_trait]
pub trait Rotations: Send + Sync {
    /// Sends nothing. `owner` is what [`CredentialIssuer::identify`] told when it was planned; `None` while it is.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] [`UNSUPPORTED`] when entries of this kind are not rotated by this method.
    async fn open(&self, entry: &Entry, method: &Method, owner: Option<&str>) -> Result<Parts, ProviderError>;
}

/// Whom a rotation talks to.
pub struct Parts {
    pub issuer: Box<dyn CredentialIssuer>,
    pub store: Box<dyn SecretStore>,
}

/// Whose credential a stored value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// What the issuer must know to find it again, e.g. a user's name.
    pub owner: String,
    /// Names the owner over all subscriptions: the same for two entries that hold a credential of the same user.
    pub identity: String,
    /// The issuer's id of the credential.
    pub credential: String,
}

/// One credential as the issuer lists it. No value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub active: bool,
    /// `None`: never, as far as the issuer tells.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A credential about to be set, whose value is ours.
pub struct Prepared {
    /// What the issuer will call it.
    pub id: String,
    /// What is stored.
    pub value: SecretValue,
}

/// Makes, tests and takes away the credentials of one identity. Each method sends what it says, once, after the gate.
///
/// An error that is not [`ProviderError::Unavailable`] says for certain that nothing happened.
#[async_trait]
pub trait CredentialIssuer: Send + Sync {
    fn abilities(&self) -> Abilities;

    /// Whose credential is this stored value? `version` is the store's name of it.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] [`UNKNOWN_CREDENTIAL`] when it is none of this issuer's.
    async fn identify(&self, version: &str, value: &SecretValue) -> Result<InUse, ProviderError>;

    /// Chooses the next value, where it is ours; `None` where it is the issuer's. Sends nothing.
    ///
    /// # Errors
    /// When the system gives no randomness, or the value in use cannot take a new one in.
    fn prepare(&self, token: &str, in_use: &SecretValue) -> Result<Option<Prepared>, ProviderError>;

    async fn list(&self) -> Result<Vec<Listed>, ProviderError>;

    /// Makes one whose value is the issuer's, or sets this one. Returns its id and what is to be stored.
    async fn mint(
        &self,
        prepared: Option<&Prepared>,
        in_use: Option<&SecretValue>,
    ) -> Result<(String, SecretValue), ProviderError>;

    /// Whether it works, over a connection of its own. `false` is a definite no of whoever checks credentials.
    async fn prove(&self, value: &SecretValue) -> Result<bool, ProviderError>;

    /// When it was last used, as far as the issuer tells.
    async fn last_used(&self, id: &str) -> Result<Option<DateTime<Utc>>, ProviderError>;

    async fn set_active(&self, id: &str, active: bool) -> Result<(), ProviderError>;

    /// # Errors
    /// [`ProviderError::Rejected`] [`super::NOT_FOUND`] when there is none of this id.
    async fn delete(&self, id: &str) -> Result<(), ProviderError>;
}

/// What a store holds of one entry. No values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The version that readers get.
    pub current: Option<String>,
    /// The version that waits to become current.
    pub pending: Option<String>,
}

/// One entry of a store, e.g. a secret of AWS Secrets Manager. Each method sends what it says, once, after the gate.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// It can hold a version that is not current.
    fn stages(&self) -> bool;

    async fn held(&self) -> Result<Held, ProviderError>;

    /// The value of a version.
    async fn read(&self, version: &str) -> Result<SecretValue, ProviderError>;

    /// Puts a version in that is not current. The same `token` with the same value is the same version.
    async fn stage(&self, token: &str, value: &SecretValue) -> Result<String, ProviderError>;

    /// Takes the pending label off this version.
    async fn unstage(&self, version: &str) -> Result<(), ProviderError>;

    /// Makes a version current: the staged one, or, where the store cannot stage, a new one of this value.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] [`MOVED`] when `expected` is not current any more, where the store can tell.
    async fn promote(
        &self,
        expected: Option<&str>,
        version: Option<&str>,
        value: &SecretValue,
    ) -> Result<String, ProviderError>;
}

/// The code of a [`ProviderError::Rejected`] that says: something else is current.
pub const MOVED: &str = "moved";
/// The code that says: the identity has all the credentials it may have.
pub const QUOTA: &str = "quota_exceeded";
/// The code that says: this value is not accepted.
pub const POLICY: &str = "value_refused";
/// The code that says: entries of this kind are not rotated by this method.
pub const UNSUPPORTED: &str = "rotation_unsupported";
/// The code that says: what the entry holds is no credential of this issuer's.
pub const UNKNOWN_CREDENTIAL: &str = "unknown_credential";
