//! What an administrator sets for the whole instance.

mod input;
mod view;

use super::{Tag, approvals::ApprovalView, jobs::control::requester};
use crate::{
    answer::{Found, etag, expect_version},
    auth::{Caller, perm},
    context,
    error::ApiError,
};
use input::SettingsPatch;
use keywright_entities::settings as row;
use keywright_jobs::{
    settings::{self, Change, Live},
    setup::database::{Database, Write},
};
use poem_openapi::{ApiResponse, OpenApi, param::Header, payload::Json};
pub use view::{FourEyes, SettingsView};

/// Settings.
pub struct SettingsApi {
    pub database: Database,
    pub settings: Live,
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "there is one for the time of an answer")]
enum Changed {
    /// The settings as they are now.
    #[oai(status = 200)]
    Done(
        Json<SettingsView>,
        /// The version, for `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
    /// Somebody else must approve it: nothing is changed until then.
    #[oai(status = 202)]
    Asked(
        Json<ApprovalView>,
        /// The path of the approval.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(tag = "Tag::System")]
impl SettingsApi {
    /// Get the settings
    #[oai(path = "/api/settings", method = "get", operation_id = "getSettings")]
    async fn get(
        &self,
        caller: Caller<perm::SystemRead>,
        /// The version that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<Found<SettingsView>, ApiError> {
        let _ = caller;
        let row = row::row(self.database.reader()).await?;
        Ok(Found::at_version(row.version, if_none_match.0.as_deref(), SettingsView::of(&row)?))
    }

    /// Change the settings
    ///
    /// A merge patch (RFC 7396); `null` sets back what it names to what the program has. In force on every process within two
    /// seconds, and for jobs from the next one on. When `fourEyes` names `settings.update`, somebody else must approve it: 202.
    #[oai(path = "/api/settings", method = "patch", operation_id = "updateSettings")]
    async fn update(
        &self,
        caller: Caller<perm::SettingsWrite>,
        /// The version that is to be changed; demanded.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<SettingsPatch>,
    ) -> Result<Changed, ApiError> {
        let if_match = if_match.0.ok_or_else(ApiError::precondition_required)?;
        let write = self.database.begin().await?;
        let done = change(&write, &caller, &if_match, body.0).await;
        let changed = write.settle(done).await?;
        self.settings.forget().await;
        Ok(changed)
    }
}

async fn change(
    write: &Write,
    caller: &Caller<perm::SettingsWrite>,
    if_match: &str,
    patch: SettingsPatch,
) -> Result<Changed, ApiError> {
    let before = row::row_locked(&**write).await?;
    expect_version(Some(if_match), before.version)?;
    let content = patch.apply(before.content.clone())?;
    if content == before.content {
        return Changed::done(&before);
    }
    if settings::of(&before)?.four_eyes.contains(settings::UPDATE) {
        let change = Change { version: before.version, content };
        let asked = settings::ask(write, change, &requester(caller), caller.user_id).await?;
        let shown = ApprovalView::now(&**write, asked).await?;
        let location = format!("/api/approvals/{}", shown.id);
        return Ok(Changed::Asked(Json(shown), location));
    }
    let after = settings::apply(write, before, content, caller.actor(), &context::request_id()).await?;
    Changed::done(&after)
}

impl Changed {
    fn done(row: &row::Model) -> Result<Self, ApiError> {
        Ok(Self::Done(Json(SettingsView::of(row)?), etag(row.version)))
    }
}
