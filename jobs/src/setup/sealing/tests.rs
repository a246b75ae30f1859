use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use sea_orm::DbBackend;
use std::path::Path;

const HERE: Binding<'static> = Binding { table: "signing_key", record: "k1", purpose: "private" };

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
    let sealed = first.seal(&HERE, b"secret").unwrap();
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
    let source = MasterKeySource::Local(path.clone());
    let made = source.load(DbBackend::Sqlite).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(source.load(DbBackend::Sqlite).unwrap().id(), made.id());
    assert_eq!(MasterKeySource::File(path.clone()).load(DbBackend::Postgres).unwrap().id(), made.id());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(source.load(DbBackend::Sqlite), Err(MasterKeyError::Exposed { .. })));
}

#[test]
fn no_key_is_made_for_postgres_and_no_bad_key_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let local = MasterKeySource::Local(path.clone()).load(DbBackend::Postgres);
    assert!(matches!(local, Err(MasterKeyError::Demanded)));
    assert!(!path.exists());
    for text in ["", "hello", "AAAA", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33])] {
        let error = MasterKeySource::Given(text.to_owned().into()).load(DbBackend::Sqlite).err().unwrap();
        assert!(matches!(error, MasterKeyError::Form), "{text}: {error}");
    }
    assert!(matches!(MasterKeySource::File(path).load(DbBackend::Sqlite), Err(MasterKeyError::File { .. })));
}
