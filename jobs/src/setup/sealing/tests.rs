use super::{
    master_key::local,
    places::{Place, Visitor, signing_key},
    *,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sea_orm::DbBackend;
use std::path::Path;

const HERE: Binding<'static> = Binding { table: "signing_key", record: "k1", version: 0, purpose: "private" };

async fn database(folder: &Path) -> Database {
    let db = Database::open(&format!("sqlite://{}/keywright.db", folder.display()), 4).await.unwrap();
    db.migrate().await.unwrap();
    db
}

fn given(byte: u8) -> MasterKeySource {
    MasterKeySource::Given(STANDARD.encode([byte; 32]).into())
}

#[tokio::test]
async fn the_same_key_opens_after_a_restart_and_derives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    let first = Sealing::start(&db, &given(1)).await.unwrap();
    let sealed = first.seal(db.reader(), &HERE, b"secret").await.unwrap();
    let again = Sealing::start(&db, &given(1)).await.unwrap();
    assert_eq!(again.open(&HERE, &sealed.bytes).unwrap().expose_secret(), b"secret");
    assert_eq!(*first.derive("cursor").unwrap(), *again.derive("cursor").unwrap());
    assert_ne!(*first.derive("cursor").unwrap(), *first.derive("csrf").unwrap());
}

#[tokio::test]
async fn a_wrong_key_refuses_to_start_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    Sealing::start(&db, &given(1)).await.unwrap();
    let before = sealing_canary::get(db.reader()).await.unwrap();
    let Err(error) = Sealing::start(&db, &given(2)).await else { panic!("started with a wrong key") };
    assert!(matches!(error, StartError::WrongKey { .. }), "{error}");
    assert!(error.to_string().contains("KEYWRIGHT_MASTER_KEY"), "{error}");
    assert_eq!(sealing_canary::get(db.reader()).await.unwrap(), before);
}

#[tokio::test]
async fn two_processes_that_start_at_once_share_one_key_and_one_canary() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (database(folder.path()).await, database(folder.path()).await);
    let source = MasterKeySource::Local(folder.path().join("data/master.key"));
    let (one, two) = tokio::join!(Sealing::start(&one, &source), Sealing::start(&two, &source));
    assert_eq!(*one.unwrap().derive("x").unwrap(), *two.unwrap().derive("x").unwrap());
    let left: Vec<_> = std::fs::read_dir(folder.path().join("data")).unwrap().collect();
    assert_eq!(left.len(), 1, "no draft is left beside the key: {left:?}");
}

#[cfg(unix)]
#[test]
fn the_local_key_is_private_and_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let load = |may_make| local(&path, DbBackend::Sqlite, may_make);
    assert!(matches!(load(false), Err(MasterKeyError::File { .. })));
    assert!(!path.exists());
    let made = load(true).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(load(true).unwrap().id(), made.id());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(load(true), Err(MasterKeyError::Exposed { .. })));
}

#[tokio::test]
async fn no_key_is_made_for_postgres_and_no_bad_key_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    assert!(matches!(local(&path, DbBackend::Postgres, true), Err(MasterKeyError::Demanded)));
    assert!(!path.exists());
    let db = database(folder.path()).await;
    for text in ["", "hello", "AAAA", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33])] {
        let error = MasterKeySource::Given(text.to_owned().into()).load(&db, true).await.err().unwrap();
        assert!(matches!(error, MasterKeyError::Form), "{text}: {error}");
    }
    assert!(matches!(MasterKeySource::File(path).load(&db, true).await, Err(MasterKeyError::File { .. })));
}

#[tokio::test]
async fn a_lost_key_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    let path = folder.path().join("master.key");
    let source = MasterKeySource::Local(path.clone());
    // a worker waits for the API's key instead of making one of its own
    assert!(Sealing::join(&db, &source).await.unwrap().is_none());
    assert!(!path.exists());
    Sealing::start(&db, &source).await.unwrap();
    assert!(Sealing::join(&db, &source).await.unwrap().is_some());
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for lost in [Sealing::start(&db, &source).await.err().unwrap(), Sealing::join(&db, &source).await.err().unwrap()] {
        assert!(matches!(lost, StartError::Lost { .. }) && lost.is_configuration(), "{lost}");
        assert!(lost.to_string().contains("backup"), "{lost}");
    }
    // with a previous key a new one is made only when that is the one to be replaced
    let with = |previous| MasterKeys { current: source.clone(), previous: Some(previous) };
    assert!(matches!(Sealing::start(&db, with(given(9))).await, Err(StartError::Lost { .. })));
    assert!(!path.exists());
    std::fs::write(folder.path().join("old.key"), &kept).unwrap();
    let old = MasterKeySource::File(folder.path().join("old.key"));
    assert!(Sealing::join(&db, with(old.clone())).await.unwrap().is_none());
    Sealing::start(&db, with(old)).await.unwrap().rewrap(&db).await.unwrap();
    Sealing::start(&db, &source).await.unwrap();
}

fn both(current: u8, previous: u8) -> MasterKeys {
    MasterKeys { current: given(current), previous: Some(given(previous)) }
}

#[tokio::test]
async fn another_key_takes_over_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    let old = Sealing::start(&db, &given(1)).await.unwrap();
    let under_old = old.seal(db.reader(), &HERE, b"old").await.unwrap();
    let both_keys = Sealing::start(&db, both(2, 1)).await.unwrap();
    assert_eq!(*old.derive("x").unwrap(), *both_keys.derive("x").unwrap());
    // until it is brought into force, those with the old key alone must be able to read
    let sealed = both_keys.seal(db.reader(), &HERE, b"before").await.unwrap();
    assert_eq!((&sealed.key_id, old.open(&HERE, &sealed.bytes).is_ok()), (&under_old.key_id, true));
    assert_eq!(both_keys.rewrap(&db).await.unwrap().values, 1);
    assert_eq!(both_keys.rewrap(&db).await.unwrap().values, 0);
    let sealed = both_keys.seal(db.reader(), &HERE, b"after").await.unwrap();
    assert_ne!(sealed.key_id, under_old.key_id);
    assert_eq!(both_keys.open(&HERE, &under_old.bytes).unwrap().expose_secret(), b"old");
    // one who slept through it adds nothing under the old key
    assert!(matches!(old.seal(db.reader(), &HERE, b"x").await, Err(SealError::Superseded { .. })));
    assert!(matches!(Sealing::start(&db, &given(1)).await, Err(StartError::WrongKey { .. })));
    let new = Sealing::start(&db, &given(2)).await.unwrap();
    assert_eq!(*old.derive("x").unwrap(), *new.derive("x").unwrap());
    assert!(matches!(Sealing::start(&db, both(2, 2)).await, Err(StartError::SameKey(_))));
}

#[tokio::test]
async fn a_key_that_is_still_needed_cannot_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    let old = Sealing::start(&db, &given(1)).await.unwrap();
    let binding = signing_key("k1");
    let sealed = old.seal(db.reader(), &binding, b"secret").await.unwrap();
    // as a run leaves it that was killed after its first transaction
    Sealing::start(&db, both(2, 1)).await.unwrap().rewrap(&db).await.unwrap();
    keywright_entities::signing_key::Entity::insert(keywright_entities::signing_key::ActiveModel {
        kid: Set("k1".to_owned()),
        algorithm: Set("EdDSA".to_owned()),
        public_jwk: Set(serde_json::json!({})),
        key_id: Set(sealed.key_id),
        sealed_private: Set(sealed.bytes),
        created_at: Set(clock::now(db.reader()).await.unwrap()),
        retires_at: Set(None),
        purpose: Set(keywright_entities::signing_key::TOKEN.to_owned()),
        voucher: Set(None),
    })
    .exec_without_returning(db.reader())
    .await
    .unwrap();
    let Err(error) = Sealing::start(&db, &given(2)).await else { panic!("started without a key that is needed") };
    assert!(matches!(error, StartError::StillNeeded { .. }) && error.is_configuration(), "{error}");
    assert!(error.to_string().contains("KEYWRIGHT_MASTER_KEY_PREVIOUS"), "{error}");
    let done = Sealing::start(&db, both(2, 1)).await.unwrap().rewrap(&db).await.unwrap();
    assert_eq!(done.values, 1);
    let new = Sealing::start(&db, &given(2)).await.unwrap();
    let row = keywright_entities::signing_key::Entity::find().one(db.reader()).await.unwrap().unwrap();
    assert_eq!(new.open(&binding, &row.sealed_private).unwrap().expose_secret(), b"secret");
    // without the canary another key is no better
    sealing_canary::Entity::delete_many().exec(db.reader()).await.unwrap();
    assert!(matches!(Sealing::start(&db, &given(3)).await, Err(StartError::WrongKey { .. })));
}

#[tokio::test]
async fn a_value_that_does_not_open_is_named_and_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    let old = Sealing::start(&db, &given(1)).await.unwrap();
    let sealed = old.seal(db.reader(), &HERE, b"of another place").await.unwrap();
    let row = keywright_entities::subscription_credential::ActiveModel {
        subscription_id: Set(ids::new()),
        version: Set(1),
        key_id: Set(sealed.key_id),
        sealed: Set(sealed.bytes),
        stored_at: Set(clock::now(db.reader()).await.unwrap()),
    };
    keywright_entities::subscription_credential::Entity::insert(row).exec_without_returning(db.reader()).await.unwrap();
    let error = Sealing::start(&db, both(2, 1)).await.unwrap().rewrap(&db).await.unwrap_err();
    assert!(error.to_string().starts_with("subscription_credential "), "{error}");
}

/// Every table that has a `key_id` is re-wrapped.
#[tokio::test]
async fn the_list_of_places_is_the_schemas() {
    struct Tables(Vec<String>);
    impl Visitor for Tables {
        type Error = ();
        async fn table<E: EntityTrait>(&mut self, _: Place<E>) -> Result<(), ()> {
            self.0.push(E::default().table_name().to_owned());
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path()).await;
    let sql = "SELECT t.name AS name FROM sqlite_master t JOIN pragma_table_info(t.name) c ON c.name = 'key_id' \
               WHERE t.type = 'table' ORDER BY t.name";
    let rows = db.reader().query_all_raw(sea_orm::Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
    let schema: Vec<String> = rows.iter().map(|row| row.try_get("", "name").unwrap()).collect();
    let mut listed = Tables(Vec::new());
    places::visit(&mut listed).await.unwrap();
    listed.0.sort();
    assert_eq!(listed.0, schema);
    assert!(schema.len() >= 3);
}
