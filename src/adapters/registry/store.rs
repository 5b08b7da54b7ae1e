//! Blobs on disk: complete, checked, each under the scope of whoever fetched it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::{NamedTempFile, TempPath};

use crate::domain::access::Scope;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::pipeline::ports::RegistryError;

/// Where blobs are while they are incomplete.
const PARTIAL: &str = "partial";
/// Where they are afterwards, as `<scope>-<digest>`.
const BLOBS: &str = "blobs";

/// A directory of blobs with a bound on its size. The least recently used go first; one that is being read stays
/// readable, because its file is open.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    capacity: u64,
    entries: Mutex<HashMap<PathBuf, Entry>>,
    clock: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    used: u64,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    size: u64,
}

impl Content for File {
    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(fs::File::open(&self.path)?))
    }
}

impl Store {
    /// Opens a directory, and removes what an earlier process left in it: it could not say under which limits it was
    /// kept.
    pub(super) fn open(directory: PathBuf, capacity: u64) -> Result<Self, RegistryError> {
        for part in [PARTIAL, BLOBS] {
            let path = directory.join(part);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
                _ => fs::create_dir_all(&path).map_err(|error| failed(&error))?,
            }
        }
        Ok(Self {
            directory,
            capacity,
            entries: Mutex::default(),
            clock: AtomicU64::default(),
        })
    }

    /// A blob that is there with the size it should have. Its bytes are hashed again by whoever reads them.
    pub(super) fn find(&self, scope: &Scope, digest: &Digest, size: u64) -> Option<Arc<dyn Content>> {
        let path = self.path(scope, digest);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let present = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size);
        if !present {
            entries.remove(&path);
            return None;
        }
        entries.get_mut(&path)?.used = self.tick();
        Some(Arc::new(File { path, size }))
    }

    /// A file to download into. It is deleted when dropped.
    pub(super) fn partial(&self) -> Result<NamedTempFile, RegistryError> {
        tempfile::Builder::new()
            .tempfile_in(self.directory.join(PARTIAL))
            .map_err(|error| failed(&error))
    }

    /// Takes a complete, checked file over.
    pub(super) fn keep(
        &self,
        scope: &Scope,
        digest: &Digest,
        size: u64,
        file: TempPath,
    ) -> Result<Arc<dyn Content>, RegistryError> {
        let path = self.path(scope, digest);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        file.persist(&path).map_err(|error| failed(&error.error))?;
        entries.insert(
            path.clone(),
            Entry {
                size,
                used: self.tick(),
            },
        );
        self.evict(&mut entries, &path);
        Ok(Arc::new(File { path, size }))
    }

    fn evict(&self, entries: &mut HashMap<PathBuf, Entry>, newest: &Path) {
        let mut total: u64 = entries.values().map(|entry| entry.size).sum();
        while total > self.capacity {
            let oldest = entries
                .iter()
                .filter(|(path, _)| *path != newest)
                .min_by_key(|(_, entry)| entry.used);
            let Some((path, size)) = oldest.map(|(path, entry)| (path.clone(), entry.size)) else {
                return;
            };
            // A file that cannot be removed is forgotten all the same; the next start removes it.
            let _ = fs::remove_file(&path);
            entries.remove(&path);
            total = total.saturating_sub(size);
        }
    }

    fn path(&self, scope: &Scope, digest: &Digest) -> PathBuf {
        self.directory
            .join(BLOBS)
            .join(format!("{}-{}", scope.hex(), digest.hex()))
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

/// An error of the disk.
pub(super) fn failed(error: &io::Error) -> RegistryError {
    RegistryError::Storage {
        cause: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn scope(image: &str) -> Scope {
        let reference: crate::domain::reference::ImageReference = image.parse().unwrap();
        crate::domain::access::Access::default().scope(reference.repository())
    }

    fn put(store: &Store, scope: &Scope, bytes: &[u8]) -> Arc<dyn Content> {
        let mut file = store.partial().unwrap();
        file.write_all(bytes).unwrap();
        store
            .keep(scope, &Digest::of(bytes), bytes.len() as u64, file.into_temp_path())
            .unwrap()
    }

    #[test]
    fn what_one_scope_fetched_is_not_there_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), 1000).unwrap();
        let (mine, yours) = (scope("ghcr.io/acme/mine"), scope("ghcr.io/acme/yours"));
        put(&store, &mine, b"private");
        assert!(store.find(&mine, &Digest::of(b"private"), 7).is_some());
        assert!(store.find(&yours, &Digest::of(b"private"), 7).is_none());
    }

    #[test]
    fn the_least_recently_used_goes_first_and_open_ones_stay_readable() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), 25).unwrap();
        let scope = scope("ghcr.io/acme/p");
        let first = put(&store, &scope, b"0123456789");
        put(&store, &scope, b"abcdefghij");
        let mut reading = first.open().unwrap();
        assert!(store.find(&scope, &Digest::of(b"abcdefghij"), 10).is_some());
        put(&store, &scope, b"ABCDEFGHIJ");
        assert!(store.find(&scope, &Digest::of(b"0123456789"), 10).is_none());
        assert!(store.find(&scope, &Digest::of(b"abcdefghij"), 10).is_some());
        let mut text = String::new();
        reading.read_to_string(&mut text).unwrap();
        assert_eq!(text, "0123456789");
    }

    #[test]
    fn a_file_that_was_cut_is_not_served() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), 1000).unwrap();
        let scope = scope("ghcr.io/acme/p");
        put(&store, &scope, b"0123456789");
        fs::write(store.path(&scope, &Digest::of(b"0123456789")), b"012").unwrap();
        assert!(store.find(&scope, &Digest::of(b"0123456789"), 10).is_none());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join(PARTIAL)).unwrap();
        fs::write(directory.path().join(PARTIAL).join("left"), b"half").unwrap();
        Store::open(directory.path().to_owned(), 1000).unwrap();
        assert_eq!(fs::read_dir(directory.path().join(PARTIAL)).unwrap().count(), 0);
    }
}
