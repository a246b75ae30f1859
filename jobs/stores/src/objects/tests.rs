use super::*;
use aws_lc_rs::digest::digest;

fn content(bytes: &[u8]) -> Content {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    Content { size: bytes.len() as u64, sha256: finish(context) }
}

async fn all(objects: &Objects, key: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
    let mut chunks = objects.read(key, range).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

#[test]
fn a_place_is_a_whole_place_and_is_shown_as_given() {
    for good in
        ["local", "s3://acme-evidence/", "s3://acme-evidence/keywright/prod/", "gs://acme_evidence/", "gs://a.b.c/x=1/"]
    {
        assert_eq!(good.parse::<Place>().unwrap().to_string(), good);
    }
    assert_eq!("s3://bucket/p".parse::<Place>().unwrap().to_string(), "s3://bucket/p/");
    assert_eq!("s3://bucket".parse::<Place>().unwrap().to_string(), "s3://bucket/");
    for bad in [
        "",
        "Local",
        "s3://",
        "s3://ab",
        "s3:///x",
        "s3://Bucket/x",
        "s3://bucket/../x",
        "s3://bucket//x",
        "s3://a..b/x",
        "s3://bucket/x?y",
        "s3://bucket/x y",
        "az://bucket",
        "bucket",
        "file:///tmp",
    ] {
        assert_eq!(bad.parse::<Place>(), Err(WrongPlace), "{bad}");
    }
}

#[tokio::test]
async fn a_directory_keeps_whole_objects_and_never_replaces_one() {
    let data = tempfile::tempdir().unwrap();
    let folder = local_folder(data.path());
    let objects = Objects::open(&Place::Local, &folder, None).await.unwrap();
    let (first, second) = (vec![7; 700_000], vec![8; 700_000]);
    let file = data.path().join("built");
    std::fs::write(&file, &first).unwrap();
    objects.create("p/a.zip", &file, &content(&first)).await.unwrap();
    assert_eq!(all(&objects, "p/a.zip", 0..700_000).await.unwrap(), first);
    assert_eq!(all(&objects, "p/a.zip", 300_000..300_003).await.unwrap(), [7, 7, 7]);
    assert!(all(&objects, "p/a.zip", 5..5).await.unwrap().is_empty());
    // beyond the end: told, not silently short
    assert!(all(&objects, "p/a.zip", 699_999..700_001).await.is_err());
    objects.create("p/a.zip", &file, &content(&first)).await.expect("the same again is as good");
    std::fs::write(&file, &second).unwrap();
    let refused = objects.create("p/a.zip", &file, &content(&second)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(all(&objects, "p/a.zip", 0..700_000).await.unwrap(), first, "it was left as it is");
    let refused = objects.create("p/b.zip", &file, &content(&first)).await;
    assert!(matches!(refused, Err(StoreError::WrongChecksum { .. })), "{refused:?}");
    let missing = all(&objects, "p/b.zip", 0..1).await;
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
    assert_eq!(names(&folder.join("p")), ["a.zip"], "no part of anything is left");
}

#[tokio::test]
async fn a_directory_that_is_gone_is_told_and_not_made_anew() {
    let data = tempfile::tempdir().unwrap();
    let folder = local_folder(data.path());
    let objects = Objects::open(&Place::Local, &folder, None).await.unwrap();
    let file = data.path().join("built");
    std::fs::write(&file, b"x").unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let refused = objects.create("a.zip", &file, &content(b"x")).await;
    assert!(matches!(refused, Err(StoreError::NoPlace { .. })), "{refused:?}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn processes_that_share_a_directory_know_it_and_others_do_not() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |folder: PathBuf| async move { Objects::open(&Place::Local, &folder, None).await.unwrap() };
    let many = futures::future::join_all((0..8).map(|_| open(one.path().join("s")))).await;
    for objects in &many {
        assert_eq!(objects.identity(), many[0].identity());
    }
    assert_ne!(open(other.path().join("s")).await.identity(), many[0].identity());
    assert_eq!(names(&one.path().join("s")), [".keywright-evidence-store"], "drafts of the marker are gone");
}

#[test]
fn finishing_is_the_digest() {
    assert_eq!(content(b"abc").sha256.as_slice(), digest(&SHA256, b"abc").as_ref());
}
