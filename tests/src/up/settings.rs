//! Where the instance lives: the settings of both programs, with what `./just up` decides by itself.

use anyhow::{Context, Result, bail};
use keywright_jobs::setup::config::{Loaded, Origin};
use std::{
    fs::{DirBuilder, File, TryLockError},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// How many ports after the usual one are tried when it is taken.
const MORE_PORTS: u16 = 20;

/// The settings of one run.
#[derive(Debug)]
pub struct Settings {
    /// Where `keywright-api` and `keywright-worker` lie: beside this program.
    pub programs: PathBuf,
    pub data: PathBuf,
    /// Set for both programs, over what they inherit.
    pub environment: Vec<(&'static str, String)>,
    /// Under which clients on this machine reach the API.
    pub url: String,
    /// The usual address, when another program has it.
    taken: Option<SocketAddr>,
    admin_password_configured: bool,
    /// Holds the data directory for this run alone.
    _lock: File,
}

impl Settings {
    /// Makes the data directory (mode 0700) and takes it.
    ///
    /// # Errors
    /// When another run has the directory, and when the API cannot have its address.
    pub fn new(loaded: &Loaded) -> Result<Self> {
        let config = &loaded.config;
        let programs = std::env::current_exe()?.parent().map(Path::to_owned).context("this program lies nowhere")?;
        let data = config.data_dir.clone();
        let logs = data.join("log");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&logs);
        made.with_context(|| format!("{} cannot be made", logs.display()))?;
        let lock = take(&data)?;
        let listen = free_address(config.listen, loaded.origin("KEYWRIGHT_LISTEN") != Origin::Default)?;
        let mut environment = vec![("KEYWRIGHT_LISTEN", listen.to_string())];
        let elsewhere = loaded.origin("KEYWRIGHT_DATA_DIR") != Origin::Default;
        if elsewhere && loaded.origin("DATABASE_URL") == Origin::Default {
            environment.push(("DATABASE_URL", format!("sqlite://{}/keywright.db", data.display())));
        }
        Ok(Self {
            programs,
            data,
            environment,
            url: format!("http://{}", reachable(listen)),
            taken: (listen.port() != config.listen.port() && config.listen.port() != 0).then_some(config.listen),
            admin_password_configured: config.admin_password.is_some(),
            _lock: lock,
        })
    }

    /// Where a program's log lines go.
    pub fn log(&self, program: &str) -> PathBuf {
        self.data.join("log").join(format!("{program}.log"))
    }

    /// Where the operator's token is kept.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("up.token")
    }

    /// Where the API will be.
    pub fn greeting(&self) -> String {
        let note = self.taken.map(|taken| format!(" ({taken} is taken; choose an address with KEYWRIGHT_LISTEN)"));
        format!("Starting Keywright at {}{}", self.url, note.unwrap_or_default())
    }

    /// What a person needs to go on from here.
    pub fn addresses(&self) -> String {
        let url = &self.url;
        let login = if self.admin_password_configured {
            "user admin, with KEYWRIGHT_ADMIN_PASSWORD as it was when the database was new"
        } else {
            "user admin; the password was printed once, when the database was new"
        };
        let database = self.environment.iter().find(|(name, _)| *name == "DATABASE_URL");
        let database = database.map(|(name, value)| format!("{name}={value} ")).unwrap_or_default();
        let api = shown(&self.programs.join("keywright-api"));
        format!(
            "\n  documentation            {url}/docs and {url}/redoc\n  \
             login                    {login}\n  \
             forgotten                {database}{api} reset-password admin\n  \
             operator's API token     {}\n  \
             logs                     {}",
            self.token_file().display(),
            self.data.join("log").display(),
        )
    }
}

/// Two runs on one directory would fight over its port, its token and, with SQLite, every write.
fn take(data: &Path) -> Result<File> {
    let path = data.join("up.lock");
    let lock = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another ./just up is running on {}; stop it, or name another directory in KEYWRIGHT_DATA_DIR",
            data.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// The address itself when it is free. Instead of one that nobody asked for, the next free port does.
fn free_address(wanted: SocketAddr, asked_for: bool) -> Result<SocketAddr> {
    let port = wanted.port();
    let last = if asked_for { port } else { port.saturating_add(MORE_PORTS) };
    for port in port..=last {
        match TcpListener::bind((wanted.ip(), port)) {
            Ok(listener) => return Ok(listener.local_addr()?),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("{wanted} cannot be listened on")),
        }
    }
    bail!("{wanted} is taken by another program; set KEYWRIGHT_LISTEN to a free address, such as 127.0.0.1:9000")
}

/// A server on all addresses is reached by the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// From where the reader stands, when that is shorter.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_only_when_nobody_asked_for_it() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let error = free_address(taken, true).unwrap_err().to_string();
        assert!(error.contains("KEYWRIGHT_LISTEN") && error.contains(&taken.to_string()), "{error}");
        let chosen = free_address(taken, false).unwrap();
        assert_ne!(chosen, taken);
        assert_eq!(chosen.ip(), taken.ip());
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_by_loopback() {
        let shown = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(shown("[::]:8080"), "[::1]:8080");
        assert_eq!(shown("10.1.2.3:8080"), "10.1.2.3:8080");
    }

    #[test]
    fn a_directory_is_held_by_one_run_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(directory.path()).unwrap();
        let error = take(directory.path()).unwrap_err().to_string();
        assert!(error.contains("KEYWRIGHT_DATA_DIR"), "{error}");
        drop(first);
        take(directory.path()).unwrap();
    }
}
