#![expect(clippy::disallowed_methods, reason = "tests read and write their own files")]

use super::*;
use crate::domain::access::RegistryAccess;
use crate::domain::reference::ImageReference;
use std::io::{Read as _, Write as _};

/// What a small blob counts for.
const FILE: u64 = MIN_FILE_BYTES;

fn access_key(image: &str) -> AccessKey {
    let reference: ImageReference = image.parse().unwrap();
    RegistryAccess::default().key(reference.repository())
}

fn put(store: &BlobStore, access_key: &AccessKey, bytes: &[u8]) -> StoredBlob {
    let unfinished = store.begin(bytes.len() as u64).unwrap();
    unfinished.reopen().unwrap().write_all(bytes).unwrap();
    unfinished.finish(access_key, &Digest::of(bytes)).unwrap()
}

fn has(store: &BlobStore, access_key: &AccessKey, bytes: &[u8]) -> bool {
    store.get(access_key, &Digest::of(bytes), bytes.len() as u64).is_some()
}

#[test]
fn gives_back_what_was_put_in_to_the_same_scope_only() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 10 * FILE).unwrap();
    let blob = put(&store, &access_key("ghcr.io/acme/a"), b"policy");
    let mut text = String::new();
    blob.open().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), blob.size()), ("policy", 6));
    assert!(has(&store, &access_key("ghcr.io/acme/a"), b"policy"));
    assert!(!has(&store, &access_key("ghcr.io/acme/b"), b"policy"));
}

#[test]
fn evicts_what_was_not_used_for_longest() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 2 * FILE).unwrap();
    let access_key = access_key("ghcr.io/acme/a");
    put(&store, &access_key, b"1111");
    put(&store, &access_key, b"2222");
    assert!(has(&store, &access_key, b"1111"));
    put(&store, &access_key, b"3333");
    let left = [b"1111", b"2222", b"3333"].map(|bytes| has(&store, &access_key, bytes));
    assert_eq!(left, [true, false, true]);
}

#[test]
fn a_blob_larger_than_the_cache_is_refused_before_it_is_downloaded() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 2 * FILE).unwrap();
    put(&store, &access_key("ghcr.io/acme/a"), b"1111");
    let refused = store.begin(1 << 40).unwrap_err();
    assert!(
        matches!(refused, ReserveError::LimitSize { capacity } if capacity == 2 * FILE),
        "{refused}"
    );
    assert!(
        has(&store, &access_key("ghcr.io/acme/a"), b"1111"),
        "nothing went for it"
    );
}

#[test]
fn downloads_under_way_count_and_make_room_before_they_begin() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 2 * FILE).unwrap();
    let key = access_key("ghcr.io/acme/a");
    put(&store, &key, b"1111");
    put(&store, &key, b"2222");
    let download = store.begin(FILE).unwrap();
    let left = [b"1111", b"2222"].map(|bytes| has(&store, &key, bytes));
    assert_eq!(left, [false, true]);
    // What is there goes for a download, but no download for another.
    assert!(matches!(store.begin(FILE + 1), Err(ReserveError::Full)));
    assert!(has(&store, &key, b"2222"));
    let other = store.begin(FILE).unwrap();
    assert!(!has(&store, &key, b"2222"));
    assert!(matches!(store.begin(1), Err(ReserveError::Full)));
    drop((download, other));
}

#[test]
fn a_download_that_fails_or_is_dropped_gives_its_room_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 2 * FILE).unwrap();
    let key = access_key("ghcr.io/acme/a");
    for _ in 0..3 {
        let unfinished = store.begin(2 * FILE).unwrap();
        unfinished.reopen().unwrap().write_all(b"half").unwrap();
    }
    assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    for _ in 0..3 {
        put(&store, &key, b"0123456789");
    }
    assert!(has(&store, &key, b"0123456789"));
    let index = store.index();
    assert_eq!((index.bytes, index.reserved), (FILE, 0));
}

#[test]
fn a_blob_that_changed_its_size_is_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 10 * FILE).unwrap();
    let access_key = access_key("ghcr.io/acme/a");
    let blob = put(&store, &access_key, b"policy");
    fs::write(&blob.path, b"poli").unwrap();
    assert!(!has(&store, &access_key, b"policy"));
}

#[test]
fn a_new_run_finds_blobs_and_clears_unfinished_ones() {
    let directory = tempfile::tempdir().unwrap();
    let access_key = access_key("ghcr.io/acme/a");
    put(
        &BlobStore::open(directory.path(), 10 * FILE).unwrap(),
        &access_key,
        b"policy",
    );
    fs::write(directory.path().join("tmp/left-over"), b"half").unwrap();
    let store = BlobStore::open(directory.path(), 10 * FILE).unwrap();
    assert!(has(&store, &access_key, b"policy"));
    assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    assert!(!has(
        &BlobStore::open(directory.path(), FILE).unwrap(),
        &access_key,
        b"other"
    ));
}

#[test]
fn a_smaller_capacity_is_kept_to_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let access_key = access_key("ghcr.io/acme/a");
    let store = BlobStore::open(directory.path(), 10 * FILE).unwrap();
    put(&store, &access_key, b"1111");
    put(&store, &access_key, b"2222");
    drop(store);
    let store = BlobStore::open(directory.path(), FILE).unwrap();
    let left = [b"1111", b"2222"].map(|bytes| has(&store, &access_key, bytes));
    assert_eq!(left.iter().filter(|left| **left).count(), 1);
}

#[test]
fn many_tiny_blobs_are_as_bounded_as_a_few_large_ones() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path(), 5 * FILE).unwrap();
    for number in 0..50_u8 {
        put(&store, &access_key(&format!("ghcr.io/acme/{number}")), &[number]);
    }
    assert_eq!(store.index().entries.len(), 5);
    let directories = fs::read_dir(directory.path().join("blobs")).unwrap().count();
    assert_eq!(directories, 5, "those that became empty are gone");
}
