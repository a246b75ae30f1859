//! What the schema of a subscription cannot say.

use super::{endpoints, input::AuthMode};
use crate::error::{ApiError, FieldError};
use keywright_entities::{subscription, types::ProviderKind};
use keywright_jobs::{
    domain::google::{is_project_id, is_region, is_service_account},
    egress::EgressGuard,
};
use serde_json::{Map, Value};

/// The row, unless something is wrong with it or was before.
///
/// # Errors
/// 400 that names everything that is wrong.
pub fn checked(
    row: subscription::Model,
    egress: &EgressGuard,
    mut wrong: Vec<FieldError>,
) -> Result<subscription::Model, ApiError> {
    wrong.extend(endpoints::refused(&row, egress));
    let mut refuse = |pointer: &str, code: &str, message: &str| wrong.push(FieldError::new(pointer, code, message));
    for name in row.settings.as_object().into_iter().flat_map(Map::keys) {
        if name != row.provider.as_str() {
            let message = "Only the settings of the subscription's own provider apply.";
            refuse(&format!("/settings/{name}"), "foreign", message);
        }
    }
    let mode = row.auth_mode.as_str();
    match row.provider {
        ProviderKind::Aws => aws(&row, &mut refuse),
        ProviderKind::Gcp => gcp(&row, &mut refuse),
        ProviderKind::Azure => refuse("/provider", "unsupported", "This version looks at aws, gcp and local."),
        ProviderKind::Local => {}
    }
    let modes: &[AuthMode] = match row.provider {
        ProviderKind::Aws => &[AuthMode::Ambient, AuthMode::Profile, AuthMode::AssumeRole, AuthMode::Stored],
        ProviderKind::Gcp => &[AuthMode::Ambient, AuthMode::Stored],
        ProviderKind::Azure | ProviderKind::Local => &[AuthMode::Ambient],
    };
    if !modes.iter().any(|known| known.as_str() == mode) {
        refuse("/auth/mode", "unsupported", "aws knows all modes, gcp ambient and stored, and others ambient alone.");
    }
    if wrong.is_empty() { Ok(row) } else { Err(ApiError::validation(wrong)) }
}

fn aws(row: &subscription::Model, refuse: &mut impl FnMut(&str, &str, &str)) {
    let given = |field: &str| row.provider_settings().get(field).is_some();
    if row.auth_mode == AuthMode::AssumeRole.as_str() && !given("roleArn") {
        refuse("/settings/aws/roleArn", "required", "The mode assumeRole needs the ARN of the role.");
    }
    if row.auth_mode == AuthMode::Profile.as_str() && !given("profile") {
        refuse("/settings/aws/profile", "required", "The mode profile needs the name of the profile.");
    }
}

fn gcp(row: &subscription::Model, refuse: &mut impl FnMut(&str, &str, &str)) {
    if !is_project_id(&row.external_id) {
        let message = "This is the id of no project: 6 to 30 lower-case letters, digits and hyphens, as `gcloud projects list` \
                       shows it; not its number nor its name.";
        refuse("/externalId", "invalid", message);
    }
    for (position, _) in row.region_list().iter().enumerate().filter(|(_, region)| !is_region(region)) {
        refuse(&format!("/regions/{position}"), "invalid", "This is neither `global` nor the name of a region.");
    }
    let settings = row.provider_settings();
    let account = settings.get("impersonate").and_then(Value::as_str);
    if account.is_some_and(|account| !is_service_account(account)) {
        let message = "This is the address of no service account: NAME@PROJECT.iam.gserviceaccount.com.";
        refuse("/settings/gcp/impersonate", "invalid", message);
    }
}
