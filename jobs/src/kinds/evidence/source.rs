//! What a package is made from.

use chrono::{DateTime, Utc};
use keywright_entities::evidence_package;
use sea_orm::DatabaseConnection;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::{
    evidence::{Request, Sample},
    inventory::{TagKeys, Thresholds},
};

/// A package's row, taken apart, and the database beside it.
pub struct Source<'a> {
    pub db: &'a DatabaseConnection,
    pub package: &'a evidence_package::Model,
    pub request: Request,
    pub subscriptions: Vec<Uuid>,
    /// The package is not limited to certain subscriptions: what is about none belongs to it too.
    pub everything: bool,
}

impl<'a> Source<'a> {
    /// # Errors
    /// When the request cannot be read by this version.
    pub fn new(db: &'a DatabaseConnection, package: &'a evidence_package::Model) -> Result<Self, serde_json::Error> {
        let request: Request = serde_json::from_value(package.request.clone())?;
        let everything = !package.restricted && request.subscriptions.is_none();
        Ok(Self { db, package, request, subscriptions: package.subscription_ids(), everything })
    }

    /// What was fixed when the package was asked for.
    pub fn frozen(&self, name: &str) -> &Value {
        self.package.frozen.get(name).unwrap_or(&Value::Null)
    }

    pub fn organisation(&self) -> &str {
        self.frozen("organisation").as_str().unwrap_or_default()
    }

    pub fn thresholds(&self) -> Thresholds {
        serde_json::from_value(self.frozen("thresholds").clone()).unwrap_or_default()
    }

    pub fn tag_keys(&self) -> TagKeys {
        serde_json::from_value(self.frozen("tags").clone()).unwrap_or_default()
    }

    pub fn as_of(&self) -> DateTime<Utc> {
        self.package.as_of
    }

    pub fn sample(&self) -> &Sample {
        &self.request.sample
    }

    /// The seed of every sample.
    pub fn seed(&self) -> String {
        self.request.sample.seed.clone().unwrap_or_else(|| self.package.id.to_string())
    }
}
