//! Identity and Access Management: which keys service accounts have. A list tells their dates, never their material.

use super::{
    facts::{attributes, instant},
    rest::{Question, Rest},
    secretmanager::{is_gone, next},
};
use futures::{StreamExt, stream};
use keywright_jobs::{
    domain::inventory::{AssetType, Observed, Page, Related, Relation, Warning},
    provider::ProviderError,
};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) const KIND: &str = "gcp.iam.serviceAccountKey";
const VAULT: &str = "iam";
/// Keys are listed account by account, without pages, and a project has 100 such calls a second: so many in flight use them up
/// at a usual distance.
const ACCOUNTS_AT_ONCE: usize = 8;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    accounts: Vec<Account>,
    next_page_token: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    /// `projects/acme/serviceAccounts/deploy@acme.iam.gserviceaccount.com`.
    name: String,
    email: String,
    unique_id: String,
    disabled: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListedKeys {
    keys: Vec<Key>,
}

/// Without the members that hold material, which a list leaves empty anyway.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Key {
    name: String,
    key_type: String,
    key_origin: String,
    key_algorithm: String,
    valid_after_time: Option<String>,
    valid_before_time: Option<String>,
    disabled: bool,
    disable_reason: String,
    /// Such as that Google found the key published.
    extended_status: Vec<Value>,
}

/// The keys of one page of service accounts.
pub(super) async fn page(rest: &Rest, project: &str, token: Option<&str>) -> Result<Page, ProviderError> {
    let listed: Listed = rest.ask(Question::ServiceAccounts { project }, token).await?;
    let mut page = Page { next: next(listed.next_page_token, token)?, ..Page::default() };
    let (mut read, mut denied) = (0, Vec::new());
    let asked = listed.accounts.into_iter().map(|account| async move {
        let answer = rest.ask::<ListedKeys>(Question::Keys { account: &account.name }, None).await;
        (account, answer)
    });
    let mut answers = stream::iter(asked).buffered(ACCOUNTS_AT_ONCE);
    while let Some((account, answer)) = answers.next().await {
        match answer {
            Ok(listed) => {
                read += 1;
                for key in listed.keys {
                    match observe(&account, key) {
                        Ok(asset) => page.assets.push(asset),
                        Err(warning) => page.warnings.push(warning),
                    }
                }
            }
            // deleted since it was listed, and its keys with it
            Err(error) if is_gone(&error) => read += 1,
            Err(error @ ProviderError::Denied { .. }) => denied.push((account, error)),
            Err(error) => return Err(error),
        }
    }
    // where nothing may be read, the right is missing on the project; elsewhere, on single accounts
    if read == 0
        && let Some((_, error)) = denied.pop()
    {
        return Err(error);
    }
    page.warnings.extend(denied.into_iter().map(|(account, error)| {
        Warning::new(
            account.name,
            "not_listed",
            format!("The keys of this service account could not be listed ({error})."),
        )
    }));
    Ok(page)
}

fn observe(account: &Account, key: Key) -> Result<Observed, Warning> {
    let Some((_, id)) = key.name.rsplit_once("/keys/").filter(|(_, id)| !id.is_empty()) else {
        return Err(Warning::new(&account.name, "unexpected_reply", "IAM listed a key without a name."));
    };
    let valid_after = instant(key.valid_after_time.as_deref());
    Ok(Observed {
        asset_type: AssetType::Credential,
        kind: KIND.to_owned(),
        vault: VAULT.to_owned(),
        name: format!("{}/{id}", account.email),
        enabled: Some(!key.disabled),
        // a key is valid from the moment that it is made
        created_at: valid_after,
        expires_at: instant(key.valid_before_time.as_deref()),
        not_before: valid_after,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        tags: Default::default(),
        certificate: None,
        attributes: attributes([
            ("keyId", id.into()),
            ("keyType", key.key_type.into()),
            ("keyOrigin", key.key_origin.into()),
            ("keyAlgorithm", key.key_algorithm.into()),
            ("disableReason", key.disable_reason.into()),
            ("extendedStatus", key.extended_status.into()),
            ("serviceAccount", account.email.as_str().into()),
            ("serviceAccountId", account.unique_id.as_str().into()),
            ("serviceAccountDisabled", json!(account.disabled)),
        ]),
        relations: vec![Related { relation: Relation::BelongsTo, to: account.name.clone() }],
        external_id: key.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_key_keeps_everything_but_its_material() {
        let account: Account = serde_json::from_value(json!({
            "name": "projects/acme/serviceAccounts/a@acme.iam.gserviceaccount.com",
            "email": "a@acme.iam.gserviceaccount.com", "uniqueId": "104", "disabled": true,
        }))
        .unwrap();
        let key = json!({
            "name": "projects/acme/serviceAccounts/a@acme.iam.gserviceaccount.com/keys/0f", "keyType": "USER_MANAGED",
            "keyOrigin": "GOOGLE_PROVIDED", "keyAlgorithm": "KEY_ALG_RSA_2048", "validAfterTime": "2024-01-01T00:00:00Z",
            "validBeforeTime": "9999-12-31T23:59:59Z", "disabled": true, "disableReason": "EXPOSED",
            "privateKeyData": "s3cr3t", "publicKeyData": "p",
        });
        let asset = observe(&account, serde_json::from_value(key).unwrap()).unwrap();
        assert_eq!(asset.name, "a@acme.iam.gserviceaccount.com/0f");
        assert_eq!((asset.enabled, asset.created_at), (Some(false), asset.not_before));
        assert_eq!(asset.expires_at.unwrap().to_rfc3339(), "9999-12-31T23:59:59+00:00");
        assert_eq!(asset.relations, [Related { relation: Relation::BelongsTo, to: account.name.clone() }]);
        assert!(!format!("{asset:?}").contains("s3cr3t"));
        assert_eq!(
            Value::from(asset.attributes),
            json!({
                "keyId": "0f", "keyType": "USER_MANAGED", "keyOrigin": "GOOGLE_PROVIDED", "keyAlgorithm": "KEY_ALG_RSA_2048",
                "disableReason": "EXPOSED", "serviceAccount": "a@acme.iam.gserviceaccount.com", "serviceAccountId": "104",
                "serviceAccountDisabled": true,
            })
        );
        assert_eq!(observe(&account, Key::default()).unwrap_err().path, account.name);
    }
}
