//! `keywright-api`: the HTTP facade of Keywright, and what its operator does at the command line.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use keywright_api::{
    auth::{
        Identity, Settings,
        bootstrap::{self, FirstAdmin},
        operator,
        passwords::Passwords,
        signing_keys::{self, SigningKeys, When},
    },
    openapi,
    routes::{Api, evidence, jobs::events::Pace},
    server::{Certificate, Listening},
    service::{self, Parts, Surroundings},
};
use keywright_entities::types::Role;
use keywright_jobs::{
    audit,
    licence::{self, Licence, LicenceError},
    setup::{
        clock::Clock,
        config::{Config, EXIT_BAD_CONFIG, Loaded},
        database::{Database, OpenError},
        process,
        sealing::{Sealing, StartError},
        shutdown, telemetry,
    },
};
use secrecy::ExposeSecret;
use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

/// The HTTP facade of Keywright. Settings come from the environment and from the file named by KEYWRIGHT_CONFIG.
#[derive(Parser)]
#[command(name = "keywright-api", version)]
struct Arguments {
    /// Brings the schema up to this version before serving. Several processes may do so at once.
    #[arg(long)]
    migrate: bool,
    /// Prints the settings in force, secrets masked, and ends: 0 when they are right, 2 when not.
    #[arg(long)]
    check_config: bool,
    /// Prints the OpenAPI document and ends.
    #[arg(long)]
    print_openapi: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What an operator with access to the database may do without logging in. Each is in the audit log.
#[derive(Subcommand)]
enum Command {
    /// Brings the schema up to this version and ends.
    Migrate,
    /// Makes an API token and prints it, once.
    CreateToken {
        #[arg(long)]
        name: String,
        /// viewer, auditor, operator or admin
        #[arg(long, value_parser = role)]
        role: Role,
        /// Whose token it is; the first administrator's when absent.
        #[arg(long)]
        user: Option<String>,
        /// How long it is valid, e.g. 30m, 12h, 365d; without end when absent.
        #[arg(long)]
        expires_in: Option<String>,
    },
    /// Gives a user a new password and prints it, once. Ends the user's sessions.
    ResetPassword { name: String },
    /// Signs access tokens with a new key from now on. Those of the key before it stay valid until they end.
    RotateSigningKey {
        /// Ends them at once: everybody's access token, to be refreshed. For when a key became known to others.
        #[arg(long)]
        alone: bool,
    },
    /// Signs the audit log and evidence with a new key from now on, for which the one before it vouches.
    RotateEvidenceKey {
        /// Nobody vouches for it, and whoever checks must be given it. For when a key became known to others.
        #[arg(long)]
        alone: bool,
    },
    /// Seals everything under the present master key that is still under KEYWRIGHT_MASTER_KEY_PREVIOUS. API and workers may go
    /// on meanwhile, when they were started with both keys.
    Rewrap,
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "the roles are viewer, auditor, operator and admin".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_openapi {
        let document = openapi::document::<Api>(openapi::Options::default());
        return printed(&format!("{document:#}\n"));
    }
    let loaded = match Loaded::from_process() {
        Ok(loaded) => loaded,
        Err(error) => return told(&error, EXIT_BAD_CONFIG),
    };
    let tls = match loaded.config.tls_files().map(|(cert, key)| Certificate::load(cert, key)).transpose() {
        Ok(tls) => tls,
        Err(error) => return told(&format!("KEYWRIGHT_TLS_CERT and KEYWRIGHT_TLS_KEY: {error}"), EXIT_BAD_CONFIG),
    };
    if arguments.check_config {
        return match checked(&loaded.config) {
            Ok(()) => printed(&loaded.report()),
            Err(error) => told(&format!("{error:#}"), EXIT_BAD_CONFIG),
        };
    }
    match run(arguments, &loaded.config, tls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if is_configuration(&error) { EXIT_BAD_CONFIG } else { 1 };
            told(&format!("{error:#}"), code)
        }
    }
}

fn is_configuration(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::Pooled))
        || error.is::<LicenceError>()
        || error.downcast_ref().is_some_and(StartError::is_configuration)
}

/// What of the configuration lies in files.
fn checked(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(licence::check(config))?)
}

fn printed(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&error, 1),
    }
}

#[allow(clippy::print_stderr, reason = "the log may not have begun")]
fn told(what: &impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("keywright-api: {what}");
    ExitCode::from(code)
}

fn run(arguments: Arguments, config: &Config, tls: Option<Arc<Certificate>>) -> anyhow::Result<()> {
    telemetry::start(&config.log, config.log_format)?;
    process::forbid_core_dumps();
    let _exporting =
        config.otlp_endpoint.as_ref().map(|url| telemetry::traces::export(url, "keywright-api")).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match arguments.command {
            Some(command) => operate(command, config).await,
            None => serve(arguments.migrate, config, tls).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn open(config: &Config) -> anyhow::Result<Database> {
    let opening = || format!("opening {}", config.database_url);
    let database = Database::open(config.database_url.expose(), config.db_pool).await.with_context(opening)?;
    database.refuse_pooled().await.with_context(opening)?;
    Ok(database)
}

async fn require_schema(database: &Database) -> anyhow::Result<()> {
    anyhow::ensure!(
        database.schema_is_current().await?,
        "the database does not have the schema of this version; start with --migrate, or run `keywright-api migrate`"
    );
    Ok(())
}

async fn operate(command: Command, config: &Config) -> anyhow::Result<()> {
    let database = open(config).await?;
    let secret = match command {
        Command::Migrate => {
            database.migrate().await.context("migrating")?;
            None
        }
        Command::CreateToken { name, role, user, expires_in } => {
            let span = expires_in.as_deref().map(operator::parse_span).transpose()?;
            Some(operator::create_token(&database, &name, role, user.as_deref(), span).await?)
        }
        Command::RotateSigningKey { alone } => {
            let sealing = Sealing::start(&database, config.master_keys()).await?;
            // where none ever signed, the first one is made and then replaced
            SigningKeys::load(&database, &sealing).await?;
            let when = if alone { When::NowAlone } else { When::Now };
            anyhow::ensure!(
                signing_keys::rotate(&database, &sealing, when).await?,
                "somebody else rotated the key at the same time; nothing was done"
            );
            None
        }
        Command::RotateEvidenceKey { alone } => {
            let sealing = Sealing::start(&database, config.master_keys()).await?;
            anyhow::ensure!(
                audit::keys::rotate(&database, &sealing, alone).await?,
                "somebody else rotated the key at the same time; nothing was done"
            );
            None
        }
        Command::Rewrap => {
            require_schema(&database).await?;
            let sealing = Sealing::start(&database, config.master_keys()).await?;
            let done = sealing.rewrap(&database).await.context("not everything was re-wrapped; run this again")?;
            let (count, key) = (done.values, done.key);
            writeln!(std::io::stdout(), "re-wrapped: {count}\neverything is sealed under the key {key}")?;
            None
        }
        Command::ResetPassword { name } => Some(operator::reset_password(&database, &Passwords::new()?, &name).await?),
    };
    if let Some(secret) = secret {
        writeln!(std::io::stdout(), "{}", secret.expose_secret())?;
    }
    database.close().await?;
    Ok(())
}

/// Clients at once: what the open files leave after the database and the rest.
fn connections(files: u64) -> usize {
    const OTHER_FILES: u64 = 256;
    usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).clamp(64, 4096)
}

async fn serve(migrate: bool, config: &Config, tls: Option<Arc<Certificate>>) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("signal handlers")?;
    let database = open(config).await?;
    if migrate {
        database.migrate().await.context("migrating")?;
    }
    require_schema(&database).await?;
    let sealing = Sealing::start(&database, config.master_keys()).await?;
    let clock = Clock::system();
    // a token from one process is good at every other, whatever its machine's clock shows
    let tokens = Clock::of_database(&database, stop.clone()).await?;
    let (key, file) = (config.licence_public_key, config.licence_file.clone());
    let licence = Licence::open(key, file, database.clone(), tokens.clone()).await?;
    let identity = Identity::start(database.clone(), &sealing, tokens, Settings::of(config)).await?;
    match bootstrap::first_admin(&database, &identity.passwords, config.admin_password.as_ref()).await? {
        FirstAdmin::Exists => {}
        FirstAdmin::Configured => tracing::info!("made the first user, admin, with the configured password"),
        FirstAdmin::Generated(password) => {
            let mut out = std::io::stdout();
            writeln!(out, "First user: admin\nPassword:   {}", password.expose_secret())?;
            writeln!(out, "It is shown this once. Change it with POST /api/auth/password.")?;
            out.flush()?;
        }
    }
    let app = service::build(Parts {
        database: database.clone(),
        identity: Arc::clone(&identity),
        sealing,
        clock,
        licence: Arc::new(licence),
        evidence: evidence::Setup::of(config),
        worker_silence: config.lease * 2,
        listen: config.listen.ip(),
        edge: Surroundings::of(config).context("KEYWRIGHT_OIDC_CLIENT_SECRET_FILE")?,
        draining: stop.clone(),
        pace: Pace::default(),
        check_answers: false,
    })?;
    let files = process::raise_open_files();
    let listening = Listening::bind(config.listen).await.with_context(|| format!("binding {}", config.listen))?;
    let listening = listening.with_tls(tls).with_connections(connections(files));
    tracing::info!(address = %listening.address(), "keywright-api ready");
    if !config.cookie_secure {
        tracing::warn!("KEYWRIGHT_COOKIE_SECURE=false: cookies travel over plain http and can be read on the way");
    }
    listening.serve(app, stop, config.shutdown_grace).await?;
    identity.denials.write(true).await?;
    database.close().await?;
    Ok(())
}
