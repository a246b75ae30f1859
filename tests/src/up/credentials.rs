//! API tokens, made at the command line as an operator would.

use super::{client::Client, settings::Settings};
use anyhow::{Context, Result, ensure};
use secrecy::{ExposeSecret, SecretString};
use std::{
    fs::{OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::Stdio,
};
use tokio::process::Command;

/// `client` as an operator: with the token that an earlier run kept, or with a new one when there is none or the API no
/// longer takes it.
///
/// # Errors
/// When no token can be made, kept or used.
pub async fn operator(settings: &Settings, client: Client) -> Result<Client> {
    let file = settings.token_file();
    if let Some(token) = kept(&file)? {
        let client = client.with(token);
        if client.is_known().await? {
            return Ok(client);
        }
    }
    let token = create_token(settings, &["--role", "operator", "--name", "up"]).await?;
    keep(&file, &token)?;
    Ok(client.with(token))
}

/// `client` as an administrator, for a few minutes and in this process only.
///
/// # Errors
/// When no token can be made.
pub async fn briefly_admin(settings: &Settings, client: &Client) -> Result<Client> {
    let arguments = ["--role", "admin", "--name", "up: adds its subscription", "--expires-in", "5m"];
    Ok(client.with(create_token(settings, &arguments).await?))
}

async fn create_token(settings: &Settings, arguments: &[&str]) -> Result<SecretString> {
    let output = Command::new(settings.programs.join("keywright-api"))
        .arg("create-token")
        .args(arguments)
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("keywright-api create-token cannot be started")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "no API token could be made: {}", told.trim());
    let token = String::from_utf8(output.stdout).context("the token is not text")?;
    Ok(token.trim().to_owned().into())
}

fn kept(file: &Path) -> Result<Option<SecretString>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()).map(Into::into)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}

/// Readable by this user alone, also where an older file was not.
fn keep(file: &Path, token: &SecretString) -> Result<()> {
    let cannot = || format!("{} cannot be written", file.display());
    let mut open =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(file).with_context(cannot)?;
    open.set_permissions(Permissions::from_mode(0o600)).with_context(cannot)?;
    writeln!(open, "{}", token.expose_secret()).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_for_this_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("up.token");
        assert!(kept(&file).unwrap().is_none());
        std::fs::write(&file, "an older and much longer one\n").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        keep(&file, &"kw_1".to_owned().into()).unwrap();
        assert_eq!(kept(&file).unwrap().unwrap().expose_secret(), "kw_1");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "\n").unwrap();
        assert!(kept(&file).unwrap().is_none());
    }
}
