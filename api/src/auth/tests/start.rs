use crate::auth::{
    bootstrap::{self, FirstAdmin},
    operator::{self, OperatorError, parse_span},
    passwords::Passwords,
    signing_keys::SigningKeys,
    testing::{self, ADMIN_PASSWORD, Rig},
};
use chrono::TimeDelta;
use keywright_entities::{
    audit_outbox, signing_key,
    types::{ActorType, Role},
    user_account,
};
use poem::http::StatusCode;
use sea_orm::EntityTrait;
use secrecy::ExposeSecret;

#[tokio::test]
async fn of_processes_that_start_at_once_one_makes_the_key_and_one_the_admin() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (testing::database(&folder).await, testing::database(&folder).await);
    let sealing = testing::sealing(&one).await;
    let (first, second) = tokio::join!(SigningKeys::load(&one, &sealing), SigningKeys::load(&two, &sealing));
    assert_eq!(first.unwrap().jwks(), second.unwrap().jwks());
    assert_eq!(signing_key::Entity::find().all(one.reader()).await.unwrap().len(), 1);

    let passwords = Passwords::new().unwrap();
    let (first, second) =
        tokio::join!(bootstrap::first_admin(&one, &passwords, None), bootstrap::first_admin(&two, &passwords, None));
    let made: Vec<_> = [first.unwrap(), second.unwrap()]
        .into_iter()
        .filter_map(|outcome| match outcome {
            FirstAdmin::Generated(password) => Some(password),
            FirstAdmin::Exists | FirstAdmin::Configured => None,
        })
        .collect();
    let [password] = made.as_slice() else { panic!("{} made an admin", made.len()) };
    let users = user_account::Entity::find().all(one.reader()).await.unwrap();
    let [admin] = users.as_slice() else { panic!("{users:?}") };
    assert_eq!((admin.name.as_str(), admin.role, admin.password_generated), ("admin", Role::Admin, true));
    let place = passwords.enter().unwrap();
    assert!(passwords.verify(&place, password.clone(), admin.password_hash.as_deref()).await.unwrap());
    assert!(!format!("{admin:?}").contains("argon2"));
    let audit = audit_outbox::Entity::find().all(one.reader()).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert!(!format!("{audit:?}").contains(password.expose_secret()));
}

#[tokio::test]
async fn a_configured_password_counts_only_while_there_is_no_user() {
    let rig = Rig::new().await;
    let again = bootstrap::first_admin(&rig.db, rig.passwords(), Some(&"another-password".into())).await.unwrap();
    assert!(matches!(again, FirstAdmin::Exists));
    assert_eq!(rig.login("admin", ADMIN_PASSWORD).await.status, StatusCode::OK);
    assert_eq!(rig.login("admin", "another-password").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_operator_makes_tokens_and_resets_passwords_at_the_command_line() {
    let rig = Rig::new().await;
    let token = operator::create_token(&rig.db, "up", Role::Operator, None, Some(TimeDelta::days(365))).await.unwrap();
    let me = rig.get("/api/auth/me", token.expose_secret()).await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.body);
    let event = rig.audit().await.pop().unwrap();
    assert_eq!((event.event_type.as_str(), event.actor_type), ("token.created", ActorType::System));
    rig.add_user("ada", Role::Viewer).await;
    let high = operator::create_token(&rig.db, "x", Role::Admin, Some("ADA"), None).await;
    assert!(matches!(high, Err(OperatorError::RoleTooHigh { .. })));

    let before = rig.access("ada").await;
    let password = operator::reset_password(&rig.db, rig.passwords(), "Ada").await.unwrap();
    assert_eq!(rig.get("/api/auth/me", &before).await.text("code"), "token_revoked");
    let login = rig.login("ada", password.expose_secret()).await;
    assert_eq!(login.body["password_change_required"], true);
    let unknown = operator::reset_password(&rig.db, rig.passwords(), "nobody").await;
    assert!(matches!(unknown, Err(OperatorError::NoSuchUser(name)) if name == "nobody"));
}

#[test]
fn spans_of_time_are_whole_and_bounded() {
    for (text, span) in [("365d", TimeDelta::days(365)), ("12h", TimeDelta::hours(12)), ("90m", TimeDelta::minutes(90))]
    {
        assert_eq!(parse_span(text).unwrap(), span);
    }
    for text in ["", "d", "1", "1w", "-1d", "0d", "1.5d", "99999999d", "4294967296d", "1 d", "é"] {
        assert!(matches!(parse_span(text), Err(OperatorError::Span(_))), "{text}");
    }
}

#[tokio::test]
async fn nothing_secret_is_in_the_database_in_clear() {
    let rig = Rig::new().await;
    let login = rig.login("admin", ADMIN_PASSWORD).await;
    let token = operator::create_token(&rig.db, "x", Role::Viewer, None, None).await.unwrap();
    let file = rig.db.url().trim_start_matches("sqlite://").to_owned();
    let mut control = false;
    for path in [file.clone(), format!("{file}-wal")] {
        let bytes = std::fs::read(&path).unwrap_or_default();
        control |= bytes.windows(5).any(|part| part == b"admin");
        for secret in [ADMIN_PASSWORD, login.text("refresh_token"), login.text("access_token"), token.expose_secret()] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "a secret is in {path}");
        }
        let keys = rig.identity.keys.current();
        let private = keys.signer.as_bytes();
        assert!(!bytes.windows(private.len()).any(|part| part == private), "the signing key is in {path}");
    }
    assert!(control, "what is not secret is found in the same way");
}
