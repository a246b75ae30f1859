//! `subscription.accounts`: which accounts, projects or subscriptions does this credential's organisation hold?

use super::{found, report};
use crate::{
    context::Context,
    domain::inventory::{Account, ProviderKind},
    job::{Done, Job, JobError},
    kinds::discovery::{connect, noted},
};
use keywright_entities::subscription;
use sea_orm::{ColumnTrait, QueryFilter, QuerySelect};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountsListing {
    pub subscription: Uuid,
}

/// An account, and whether it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundAccount {
    pub external_id: String,
    pub name: String,
    /// The provider's own word.
    pub status: String,
    /// The subscription for it.
    pub subscription: Option<Uuid>,
}

/// Whether a provider has a notion of further accounts.
pub const fn has_accounts(provider: ProviderKind) -> bool {
    match provider {
        ProviderKind::Aws | ProviderKind::Gcp => true,
        ProviderKind::Azure | ProviderKind::Local => false,
    }
}

/// The code of what a provider without further accounts is answered.
pub const UNAVAILABLE: &str = "accounts_unavailable";

impl Job for AccountsListing {
    const KIND: &'static str = "subscription.accounts";
    const TIMEOUT: Duration = Duration::from_secs(3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        let subscription = found(context, self.subscription).await?;
        let connection = noted(context, subscription.id, connect(context, &subscription).await).await??;
        let Some(accounts) = &connection.accounts else {
            return Err(JobError::fail(UNAVAILABLE, format!("{} has no further accounts", subscription.provider)));
        };
        let listed = noted(context, subscription.id, accounts.list().await).await??;
        let known = subscription::live()
            .select_only()
            .columns([subscription::Column::ExternalId, subscription::Column::Id])
            .filter(subscription::Column::Provider.eq(subscription.provider))
            .into_tuple::<(String, Uuid)>()
            .all(context.database.reader())
            .await?;
        let accounts = with_subscriptions(listed, &known.into_iter().collect());
        context.report("list", accounts.len() as u64, None);
        report(context, json!(accounts)).await?;
        Ok(Done::Succeeded)
    }
}

/// In the order of their ids, each once.
fn with_subscriptions(listed: Vec<Account>, known: &HashMap<String, Uuid>) -> Vec<FoundAccount> {
    let mut accounts: Vec<FoundAccount> = listed
        .into_iter()
        .map(|account| FoundAccount {
            subscription: known.get(&account.external_id).copied(),
            external_id: account.external_id,
            name: account.name,
            status: account.state,
        })
        .collect();
    accounts.sort_by(|one, other| one.external_id.cmp(&other.external_id));
    accounts.dedup_by(|one, other| one.external_id == other.external_id);
    accounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_told_once_with_its_subscription() {
        let account =
            |id: &str| Account { external_id: id.to_owned(), name: String::new(), state: "ACTIVE".to_owned() };
        let known = HashMap::from([("b".to_owned(), Uuid::from_u128(1)), ("x".to_owned(), Uuid::from_u128(2))]);
        let told = with_subscriptions(["c", "b", "a", "b"].map(account).to_vec(), &known);
        let told: Vec<_> = told.iter().map(|one| (one.external_id.as_str(), one.subscription)).collect();
        assert_eq!(told, [("a", None), ("b", Some(Uuid::from_u128(1))), ("c", None)]);
    }
}
