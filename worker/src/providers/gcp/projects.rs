//! Resource Manager: which projects this identity may see.

use super::{
    rest::{Question, Rest},
    secretmanager::next,
};
use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::Account,
    provider::{Accounts, ProviderError},
};
use serde::Deserialize;
use std::sync::Arc;

pub(super) struct Projects(pub Arc<Rest>);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    projects: Vec<Project>,
    next_page_token: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Project {
    project_id: String,
    display_name: String,
    state: String,
}

#[async_trait]
impl Accounts for Projects {
    async fn list(&self) -> Result<Vec<Account>, ProviderError> {
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let listed: Listed = self.0.ask(Question::Projects, token.as_deref()).await?;
            found.extend(listed.projects.into_iter().filter(|project| !project.project_id.is_empty()).map(|project| {
                Account { external_id: project.project_id, name: project.display_name, state: project.state }
            }));
            token = next(listed.next_page_token, token.as_deref())?;
            if token.is_none() {
                return Ok(found);
            }
        }
    }
}
