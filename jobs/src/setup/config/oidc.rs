//! What the operator says about single sign-on: the provider, and as what its users may come.

use super::{Config, KEYS, Problem, Sources, parse::list};
use keywright_entities::types::Role;
use secrecy::SecretString;
use std::{fmt, io, path::PathBuf, str::FromStr};
use url::{Host, Url};

/// Where the provider sends browsers back to, below the address by which they reach the API.
pub const CALLBACK: &str = "/api/auth/sso/callback";

const PREFIX: &str = "KEYWRIGHT_OIDC_";
const ISSUER: &str = "KEYWRIGHT_OIDC_ISSUER";
/// Most bytes of a client's or a claim's name.
const MAX_PLAIN: usize = 200;

/// The settings of single sign-on as they were given. It is off without an issuer.
#[derive(Clone, Debug)]
pub struct Oidc {
    pub issuer: Option<Issuer>,
    pub client_id: Option<String>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) client_secret_file: Option<PathBuf>,
    /// As it is registered at the provider.
    pub redirect_url: Option<Url>,
    /// What is asked for; `openid` is always among them.
    pub scopes: Vec<String>,
    /// The claim of the ID token that names groups; with dots a path into objects.
    pub groups_claim: String,
    /// Which role the members of a group get.
    pub roles: GroupRoles,
    /// The role of users without a group that has one; `None` = they may not come in.
    pub default_role: Option<Role>,
    /// The claim after which a new user is called.
    pub name_claim: String,
    /// Whoever comes for the first time becomes a user.
    pub create_users: bool,
    /// Only users with a verified e-mail address of these domains may come in; empty = all.
    pub email_domains: Vec<String>,
    /// How the provider is called on pages that people see.
    pub name: String,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: None,
            client_id: None,
            client_secret: None,
            client_secret_file: None,
            redirect_url: None,
            scopes: ["openid", "profile", "email"].map(str::to_owned).into(),
            groups_claim: "groups".to_owned(),
            roles: GroupRoles::default(),
            default_role: None,
            name_claim: "preferred_username".to_owned(),
            create_users: true,
            email_domains: Vec::new(),
            name: "single sign-on".to_owned(),
        }
    }
}

impl Oidc {
    /// The secret by which the provider knows this client; `None` for a client that has none. Reads the file, if it is in one.
    ///
    /// # Errors
    /// When the file cannot be read or holds nothing.
    pub fn client_secret(&self) -> io::Result<Option<SecretString>> {
        match &self.client_secret_file {
            Some(path) => {
                let text = zeroize::Zeroizing::new(std::fs::read_to_string(path)?);
                match text.trim() {
                    "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
                    secret => Ok(Some(secret.to_owned().into())),
                }
            }
            None => Ok(self.client_secret.clone()),
        }
    }

    /// The secret's file, when it cannot be used.
    pub(super) fn unreadable_file(&self) -> Option<Problem> {
        let (path, wrong) = (self.client_secret_file.as_ref()?, self.client_secret().err()?);
        let text = format!("{} cannot be read ({wrong}); name a file that this process may read", path.display());
        Some(Problem { name: "KEYWRIGHT_OIDC_CLIENT_SECRET_FILE".to_owned(), text })
    }
}

/// Who vouches for users: compared letter by letter with what tokens say, hence kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    url: Url,
}

impl Issuer {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Issuer {
    type Err = String;

    /// The text is not repeated: an address may carry a password, which is refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "is not the address of an issuer: write https://login.example.com/realm just as the provider spells it, without user, \
             query and fragment; http:// only for an address of this machine"
                .to_owned()
        };
        let url = web_address(text).ok_or_else(wrong)?;
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), url })
    }
}

/// Groups in the order in which they were given, each with the role of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRoles(Vec<(String, Role)>);

impl GroupRoles {
    /// The highest role that one of these groups has.
    pub fn highest<'a>(&self, groups: impl IntoIterator<Item = &'a str>) -> Option<Role> {
        let role = |group: &str| self.0.iter().find(|(name, _)| name == group).map(|(_, role)| *role);
        groups.into_iter().filter_map(role).max_by_key(|role| rank(*role))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Roles in the order of what they may do; an operator may do more than an auditor, though not all that one may see.
fn rank(role: Role) -> u8 {
    match role {
        Role::Viewer => 0,
        Role::Auditor => 1,
        Role::Operator => 2,
        Role::Admin => 3,
    }
}

impl fmt::Display for GroupRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.0.iter().any(|(group, _)| group.contains(',')) { ";" } else { "," };
        let pairs: Vec<String> = self.0.iter().map(|(group, role)| format!("{group}={role}")).collect();
        f.write_str(&pairs.join(separator))
    }
}

impl FromStr for GroupRoles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let separator = if text.contains(';') { ';' } else { ',' };
        let mut pairs: Vec<(String, Role)> = Vec::new();
        for part in text.split(separator).map(str::trim).filter(|part| !part.is_empty()) {
            // the last: a distinguished name has equals signs of its own
            let (group, role) = part.rsplit_once('=').ok_or_else(|| {
                format!("`{part}` is not a group with a role; write for example keywright-admins=admin")
            })?;
            let (group, role) = (group.trim(), self::role(role.trim())?);
            if group.is_empty() {
                return Err(format!("`{part}` names no group; write for example keywright-admins=admin"));
            }
            if pairs.iter().any(|(given, _)| given == group) {
                return Err(format!("names {group} twice; give it one role"));
            }
            pairs.push((group.to_owned(), role));
        }
        Ok(Self(pairs))
    }
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| {
        format!("`{text}` is no role; the roles are viewer, auditor, operator and admin, in small letters")
    })
}

/// Where browsers come back to.
pub(super) fn redirect_url(text: &str) -> Result<Url, String> {
    let url = web_address(text).filter(|url| url.path().ends_with(CALLBACK));
    url.ok_or_else(|| {
        format!(
            "is not an address that the provider can send browsers to; write the one by which they reach the API with {CALLBACK} \
             at its end, as https://keywright.example.com{CALLBACK}"
        )
    })
}

/// Names without spaces, separated by spaces or commas.
pub(super) fn scopes(text: &str) -> Result<Vec<String>, String> {
    let mut scopes = vec!["openid".to_owned()];
    for scope in text.split([' ', ',']).filter(|scope| !scope.is_empty()) {
        // RFC 6749, 3.3
        if !scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            return Err(format!("`{scope}` is not a scope; write for example openid profile email"));
        }
        if scopes.iter().all(|given| given != scope) {
            scopes.push(scope.to_owned());
        }
    }
    Ok(scopes)
}

/// What is compared as it stands. `what` says of which kind it is, with an example.
pub(super) fn plain(text: &str, what: &str) -> Result<String, String> {
    if text.len() <= MAX_PLAIN && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("is not {what}: at most {MAX_PLAIN} bytes without control characters"))
}

pub(super) fn domains(text: &str) -> Result<Vec<String>, String> {
    list(text, |part| {
        let domain = part.strip_prefix('@').unwrap_or(part);
        let good =
            domain.contains('.') && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        if good {
            Ok(domain.to_ascii_lowercase())
        } else {
            Err(format!("`{part}` is not a domain of e-mail addresses; write for example example.com"))
        }
    })
}

/// What people are shown: short, and nothing that does not show.
pub(super) fn shown_name(text: &str) -> Result<String, String> {
    if text.chars().count() <= 60 && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("is too long to be shown; write at most 60 characters, such as Example Ltd".to_owned())
}

fn web_address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())?;
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && url.query().is_none() && url.fragment().is_none()).then_some(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Settings of single sign-on that are right alone but wrong together.
pub(super) fn contradictions(config: &Config, sources: &Sources) -> Vec<Problem> {
    let given = |name: &str| KEYS.iter().any(|key| key.name == name && sources.get(key).is_some());
    let problem = |name: &str, text: String| Problem { name: name.to_owned(), text };
    let mut found = Vec::new();
    if !given(ISSUER) {
        let ours = KEYS.iter().filter(|key| key.name.starts_with(PREFIX) && given(key.name));
        let lone = |name: &str| problem(name, format!("is given without {ISSUER}; give the issuer, or remove this"));
        return ours.map(|key| lone(key.name)).collect();
    }
    for name in ["KEYWRIGHT_OIDC_CLIENT_ID", "KEYWRIGHT_OIDC_REDIRECT_URL"] {
        if !given(name) {
            let text = format!("is required with {ISSUER}; write what is registered at the provider");
            found.push(problem(name, text));
        }
    }
    if given("KEYWRIGHT_OIDC_CLIENT_SECRET") && given("KEYWRIGHT_OIDC_CLIENT_SECRET_FILE") {
        let text = "is given also as KEYWRIGHT_OIDC_CLIENT_SECRET_FILE; keep one of them".to_owned();
        found.push(problem("KEYWRIGHT_OIDC_CLIENT_SECRET", text));
    }
    if !given("KEYWRIGHT_OIDC_ROLES") && !given("KEYWRIGHT_OIDC_DEFAULT_ROLE") {
        let text = "is required unless there is KEYWRIGHT_OIDC_DEFAULT_ROLE: without either nobody would have a role";
        found.push(problem("KEYWRIGHT_OIDC_ROLES", text.to_owned()));
    }
    let unsafe_return = |url: &Url| url.scheme() == "http" && !is_loopback(url) && config.cookie_secure;
    if config.oidc.redirect_url.as_ref().is_some_and(unsafe_return) {
        let text = "begins with http://, over which browsers send no cookies back; write https://, or set \
                    KEYWRIGHT_COOKIE_SECURE=false where that is meant";
        found.push(problem("KEYWRIGHT_OIDC_REDIRECT_URL", text.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_https_or_of_this_machine_and_kept_as_written() {
        for good in [
            "https://accounts.google.com",
            "https://login.example.com/realms/one/",
            "http://127.0.0.1:9400",
            "http://[::1]:1",
            "http://localhost:8080/x",
        ] {
            assert_eq!(good.parse::<Issuer>().unwrap().as_str(), good);
        }
        for wrong in [
            "http://login.example.com",
            "https://u:p@login.example.com",
            "https://login.example.com/?x=1",
            "https://login.example.com/#x",
            "ftp://localhost",
            "login.example.org",
            "http://localhost.example.com",
            "",
        ] {
            let error = wrong.parse::<Issuer>().unwrap_err();
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn the_highest_role_of_all_groups_wins() {
        let roles: GroupRoles = "/ops=operator, readers=viewer,books=auditor,it=admin".parse().unwrap();
        for (groups, role) in [
            (&["readers", "/ops", "books"][..], Some(Role::Operator)),
            (&["books", "readers"], Some(Role::Auditor)),
            (&["it", "readers"], Some(Role::Admin)),
            (&["IT", "ops", " it"], None),
            (&[], None),
        ] {
            assert_eq!(roles.highest(groups.iter().copied()), role, "{groups:?}");
        }
    }

    #[test]
    fn groups_may_be_distinguished_names() {
        let text = "cn=ops,ou=groups,dc=example=operator;cn=it,ou=groups=admin";
        let roles: GroupRoles = text.parse().unwrap();
        assert_eq!(roles.highest(["cn=ops,ou=groups,dc=example"]), Some(Role::Operator));
        assert_eq!(roles.to_string(), text);
        for wrong in ["it", "it=root", "it=Admin", "=admin", "it=admin,it=viewer"] {
            assert!(wrong.parse::<GroupRoles>().is_err(), "{wrong}");
        }
    }
}
