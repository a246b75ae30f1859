//! From an ID token to a user of ours. A user is who the issuer says, by its subject: names and e-mail addresses change hands, and
//! are never what somebody is known by.

use super::{Registration, provider::Person, refusal::Refusal};
use crate::{
    auth::{
        Client, Identity,
        sessions::{self, SignedIn, event},
        users::{self, MAX_NAME},
    },
    error::ApiError,
};
use keywright_entities::{
    api_token, clock,
    session::{self, Which},
    types::Role,
    user_account,
};
use keywright_jobs::{
    audit::{Actor, EventType},
    domain::licence::Limit,
    licence::Licence,
    setup::{config::Oidc, database::Write, ids},
};
use sea_orm::{ActiveModelTrait, DbErr, IntoActiveModel, SqlErr};
use serde_json::{Map, Value, json};

/// Names that are tried for a new user before it is given up.
const NAMES: usize = 50;
/// How often it is begun anew because somebody else was faster.
const ATTEMPTS: usize = 3;

/// Lets the person in: as the user that they are, or as a new one.
///
/// # Errors
/// 403 for who may not; 403 `limit_reached` where the licence has no room for one more; 409 `last_admin`.
pub(super) async fn enter(
    identity: &Identity,
    licence: &Licence,
    registration: &Registration,
    person: &Person,
    client: Client,
) -> Result<SignedIn, Refusal> {
    let settings = &registration.settings;
    let issuer = registration.issuer.as_str();
    let role = check_address(settings, person).and_then(|()| role(settings, &person.claims).ok_or(NO_ROLE));
    for _ in 0..ATTEMPTS {
        let write = identity.db.begin().await?;
        let user = match user_account::by_subject(&*write, issuer, &person.subject).await? {
            Some(user) => admit(&write, &user, role).await,
            None => create(&write, licence, registration, person, role).await,
        };
        match user {
            Ok(Some(user)) => {
                let tokens = sessions::begin(identity, &write, &user, client, true).await?;
                write.commit().await?;
                return Ok(tokens);
            }
            Ok(None) => write.rollback().await?,
            // what was done is part of the denial: sessions and tokens that ended
            Err(Refusal::Denied(detail, user)) => {
                write.commit().await?;
                return Err(Refusal::Denied(detail, user));
            }
            Err(refusal) => {
                write.rollback().await?;
                return Err(refusal);
            }
        }
    }
    Err(ApiError::conflict("Somebody else changed this user at the same time. Begin again at /api/auth/sso/login.")
        .into())
}

/// A user who has been here before, with the role of today. `None` when they are gone meanwhile.
async fn admit(
    write: &Write,
    found: &user_account::Model,
    role: Result<Role, &'static str>,
) -> Result<Option<user_account::Model>, Refusal> {
    // in the order of every change of users
    let admins = user_account::admins_locked(&**write).await?;
    let Some(user) = user_account::by_id_locked(&**write, found.id).await? else { return Ok(None) };
    if user.disabled {
        return Err(Refusal::Denied(
            "This user is disabled. An administrator can enable it.".to_owned(),
            Some(user.id),
        ));
    }
    let role = match role {
        Ok(role) => role,
        // who may not come in must not go on by what they took with them
        Err(detail) => {
            session::revoke(&**write, user.id, Which::All).await?;
            api_token::revoke_of(&**write, user.id).await?;
            return Err(Refusal::Denied(detail.to_owned(), Some(user.id)));
        }
    };
    if role == user.role {
        return Ok(Some(user));
    }
    if user.role == Role::Admin {
        users::refuse_last(&admins, user.id)?;
    }
    if role == Role::Admin && user.subscriptions.is_some() {
        let detail = "Your groups make you an administrator, and this user is restricted to some subscriptions, which an \
                      administrator cannot be. Another administrator can lift the restriction.";
        return Err(Refusal::Denied(detail.to_owned(), Some(user.id)));
    }
    let mut after = user.clone();
    after.role = role;
    after.updated_at = clock::micros(clock::now(&**write).await?);
    after.version += 1;
    let after = after.into_active_model().reset_all().update(&**write).await?;
    event(EventType::UserUpdated, Actor::SYSTEM, "user")
        .subject(after.id)
        .detail("role", json!({"from": user.role, "to": after.role}))
        .detail("by", "sso")
        .write(&**write)
        .await?;
    Ok(Some(after))
}

const NO_ROLE: &str = "None of your groups has a role here. Ask an administrator which group you need, and whether the provider \
                       tells groups to Keywright.";

const NO_ADDRESS: &str = "Only people with a verified e-mail address of certain domains are let in here \
                          (KEYWRIGHT_OIDC_EMAIL_DOMAINS), and the provider tells of none of yours.";

/// A user who was never here. `None` when somebody took the name, or made the same user, at the same time.
async fn create(
    write: &Write,
    licence: &Licence,
    registration: &Registration,
    person: &Person,
    role: Result<Role, &'static str>,
) -> Result<Option<user_account::Model>, Refusal> {
    let role = role.map_err(|detail| Refusal::Denied(detail.to_owned(), None))?;
    if !registration.settings.create_users {
        let detail = "Nobody who comes for the first time is let in here (KEYWRIGHT_OIDC_CREATE_USERS).";
        return Err(Refusal::Denied(detail.to_owned(), None));
    }
    licence.admit(write, Limit::Users).await.map_err(ApiError::from)?;
    let name = free_name(write, &name(&registration.settings, person)).await?;
    let now = clock::micros(clock::now(&**write).await?);
    let row = user_account::Model {
        id: ids::new(),
        name_key: user_account::name_key(&name),
        name,
        password_hash: None,
        password_generated: false,
        role,
        disabled: false,
        subscriptions: None,
        sso_issuer: Some(registration.issuer.as_str().to_owned()),
        sso_subject: Some(person.subject.clone()),
        created_at: now,
        updated_at: now,
        version: 1,
    };
    let row = match row.into_active_model().insert(&**write).await {
        Ok(row) => row,
        Err(error) if is_taken(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    event(EventType::UserCreated, Actor::SYSTEM, "user")
        .subject(row.id)
        .detail("name", row.name.as_str())
        .detail("role", row.role.as_str())
        .detail("enabled", true)
        .detail("by", "sso")
        .detail("issuer", row.sso_issuer.clone())
        .detail("ssoSubject", row.sso_subject.clone())
        .write(&**write)
        .await?;
    Ok(Some(row))
}

fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// An address that nobody verified says nothing about who somebody is.
fn check_address(settings: &Oidc, person: &Person) -> Result<(), &'static str> {
    if settings.email_domains.is_empty() {
        return Ok(());
    }
    let verified = match person.claims.get("email_verified") {
        Some(Value::Bool(verified)) => *verified,
        Some(Value::String(verified)) => verified == "true",
        _ => false,
    };
    let address = person.claims.get("email").and_then(Value::as_str).filter(|_| verified);
    let domain = address.and_then(|address| address.rsplit_once('@')).map(|(_, domain)| domain.to_ascii_lowercase());
    if domain.is_some_and(|domain| settings.email_domains.contains(&domain)) { Ok(()) } else { Err(NO_ADDRESS) }
}

/// The highest role of all groups, or that of everybody.
fn role(settings: &Oidc, claims: &Map<String, Value>) -> Option<Role> {
    let groups = match claim(claims, &settings.groups_claim) {
        Some(Value::String(group)) => vec![group.as_str()],
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    settings.roles.highest(groups).or(settings.default_role)
}

/// The claim of this name; where there is none and the name has dots, what the path leads to.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let mut steps = name.split('.');
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    })
}

/// What a new user is to be called.
fn name(settings: &Oidc, person: &Person) -> String {
    let of = |name: &str| claim(&person.claims, name).and_then(Value::as_str).map(presentable);
    let names = [settings.name_claim.as_str(), "preferred_username", "email", "name"].into_iter().filter_map(of);
    names.chain([presentable(&person.subject)]).find(|name| !name.is_empty()).unwrap_or_else(|| "user".to_owned())
}

/// As names may be: nothing that does not show, no white space at the ends, and room for a number.
fn presentable(name: &str) -> String {
    let shown: String = name.chars().filter(|letter| !letter.is_control()).collect();
    let short: String = shown.trim().chars().take(MAX_NAME - 16).collect();
    short.trim().to_owned()
}

/// The name, or one like it that nobody has: whoever has it keeps it, and stays another user.
async fn free_name(write: &Write, name: &str) -> Result<String, Refusal> {
    for number in 1..=NAMES {
        let candidate = match number {
            1 => name.to_owned(),
            2 => format!("{name} (SSO)"),
            _ => format!("{name} (SSO {})", number - 1),
        };
        if user_account::by_name(&**write, &candidate).await?.is_none() {
            return Ok(candidate);
        }
    }
    Err(ApiError::conflict("There are too many users of this name already. Ask an administrator to rename some.")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywright_jobs::setup::config::GroupRoles;

    fn person(claims: Value) -> Person {
        Person { subject: "s-1".to_owned(), claims: claims.as_object().unwrap().clone() }
    }

    #[test]
    fn groups_are_found_in_lists_texts_and_objects() {
        let roles: GroupRoles = "it=admin,staff=viewer".parse().unwrap();
        let with = |groups_claim: &str, default_role| {
            let mut settings = Oidc::default();
            (settings.groups_claim, settings.roles) = (groups_claim.to_owned(), roles.clone());
            settings.default_role = default_role;
            settings
        };
        for (settings, claims, expected) in [
            (with("groups", None), json!({"groups": ["staff", "it"]}), Some(Role::Admin)),
            (with("groups", None), json!({"groups": "staff"}), Some(Role::Viewer)),
            (with("groups", None), json!({"groups": ["other"]}), None),
            (with("groups", None), json!({"groups": {"it": true}}), None),
            (with("groups", None), json!({"groups": [["it"], 7, null]}), None),
            (with("groups", None), json!({}), None),
            (with("groups", Some(Role::Auditor)), json!({}), Some(Role::Auditor)),
            (with("groups", Some(Role::Auditor)), json!({"groups": ["staff"]}), Some(Role::Viewer)),
            (with("realm_access.roles", None), json!({"realm_access": {"roles": ["it"]}}), Some(Role::Admin)),
            (with("https://kw.example/roles", None), json!({"https://kw.example/roles": ["it"]}), Some(Role::Admin)),
            (with("a.b", None), json!({"a": "it"}), None),
        ] {
            assert_eq!(role(&settings, &person(claims.clone()).claims), expected, "{claims}");
        }
    }

    #[test]
    fn only_a_verified_address_of_the_domain_itself_counts() {
        let mut settings = Oidc::default();
        settings.email_domains = vec!["example.com".to_owned()];
        for (claims, fit) in [
            (json!({"email": "ada@example.com", "email_verified": true}), true),
            (json!({"email": "ada@EXAMPLE.com", "email_verified": "true"}), true),
            (json!({"email": "ada@example.com", "email_verified": false}), false),
            (json!({"email": "ada@example.com"}), false),
            (json!({"email": "ada@sub.example.com", "email_verified": true}), false),
            (json!({"email": "ada@example.com@evil.example", "email_verified": true}), false),
            (json!({"email": "example.com", "email_verified": true}), false),
            (json!({"email_verified": true}), false),
        ] {
            assert_eq!(check_address(&settings, &person(claims.clone())).is_ok(), fit, "{claims}");
        }
    }

    #[test]
    fn names_are_presentable_whatever_the_provider_says() {
        let settings = Oidc::default();
        for (claims, expected) in [
            (json!({"preferred_username": "ada", "email": "ada@example.com"}), "ada"),
            (json!({"preferred_username": " \u{0}\n ", "email": "ada@example.com"}), "ada@example.com"),
            (json!({"preferred_username": 7, "name": "Ada\tL"}), "AdaL"),
            (json!({}), "s-1"),
        ] {
            assert_eq!(name(&settings, &person(claims)), expected);
        }
        let long = name(&settings, &person(json!({"preferred_username": "a".repeat(5000)})));
        assert!(long.len() + " (SSO 50)".len() <= MAX_NAME);
    }
}
