//! Blobs on disk, least recently used first out.
//!
//! `blobs/<access key>/<digest>` holds what was hashed, `tmp/` what is being downloaded. The access key in the path
//! keeps one tenant's private bytes from being served to another who merely knows their digest. Both directories count:
//! the size of a download is reserved before it begins, so that they never hold more than the capacity, whatever
//! registries send. A file counts for at least a block of the disk, so a million tiny blobs do not pass for a megabyte. The directory belongs to one process at a time. A blob that is evicted while it is being read stays
//! readable, one that is opened afterwards is gone, and its reader gets "not found".

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tempfile::NamedTempFile;

use crate::domain::access::AccessKey;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;

/// What the smallest file counts for: blocks of the disk, a directory, and an entry in the index, which is in memory.
const MIN_FILE_BYTES: u64 = 16 << 10;

/// A blob on disk.
#[derive(Debug)]
pub(super) struct StoredBlob {
    path: PathBuf,
    size: u64,
}

impl Content for StoredBlob {
    fn size(&self) -> u64 {
        self.size
    }

    #[expect(clippy::disallowed_methods, reason = "a blob that this store has counted")]
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn discard(&self) {
        // The index drops it at the next lookup, because the file is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct BlobStore {
    blobs: PathBuf,
    downloads: PathBuf,
    capacity: u64,
    index: Mutex<Index>,
}

/// A download, and the room that is reserved for it. Dropping it releases both.
#[derive(Debug)]
pub(super) struct Unfinished<'a> {
    file: NamedTempFile,
    size: u64,
    reservation: Reservation<'a>,
}

#[derive(Debug)]
struct Reservation<'a> {
    store: &'a BlobStore,
    /// The bytes that it counts for.
    room: u64,
}

/// Why a download cannot begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReserveError {
    /// It is larger than the whole cache.
    #[error("larger than the {capacity} bytes of the cache")]
    LimitSize {
        /// The size of the cache.
        capacity: u64,
    },
    /// Other downloads take the room.
    #[error("downloads under way fill the cache")]
    Full,
    /// The disk failed.
    #[error(transparent)]
    Create(#[from] io::Error),
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<PathBuf, Entry>,
    /// Bytes of all entries.
    bytes: u64,
    /// Bytes that downloads under way may still become.
    reserved: u64,
    /// Counts uses; a clock would not order two of them within its tick.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    room: u64,
    last_use: u64,
}

impl BlobStore {
    /// Opens the directory, creating it if needed, and removes the downloads of a run that was killed.
    pub(super) fn open(directory: &Path, capacity: u64) -> io::Result<Self> {
        let (blobs, downloads) = (directory.join("blobs"), directory.join("tmp"));
        fs::create_dir_all(&blobs)?;
        fs::create_dir_all(&downloads)?;
        for file in fs::read_dir(&downloads)? {
            fs::remove_file(file?.path())?;
        }
        let mut found = scan(&blobs)?;
        found.sort();
        let store = Self {
            blobs,
            downloads,
            capacity,
            index: Mutex::default(),
        };
        for (_, path, size) in found {
            store.index().touch(&path, size);
        }
        store.make_room(0);
        Ok(store)
    }

    /// The blob, if it is there in full. Whoever reads it hashes it again.
    pub(super) fn get(&self, access_key: &AccessKey, digest: &Digest, size: u64) -> Option<StoredBlob> {
        let path = self.path(access_key, digest);
        let is_whole = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size);
        let mut index = self.index();
        if !is_whole {
            index.remove(&path);
            return None;
        }
        index.touch(&path, size);
        Some(StoredBlob { path, size })
    }

    /// A file for a download of `size` bytes. Others are evicted until there is room for it.
    pub(super) fn begin(&self, size: u64) -> Result<Unfinished<'_>, ReserveError> {
        let capacity = self.capacity;
        if size > capacity {
            return Err(ReserveError::LimitSize { capacity });
        }
        let room = room(size);
        if !self.make_room(room) {
            return Err(ReserveError::Full);
        }
        let reservation = Reservation { store: self, room };
        let file = NamedTempFile::new_in(&self.downloads)?;
        Ok(Unfinished {
            file,
            size,
            reservation,
        })
    }

    /// Reserves `size` bytes within the capacity; false if the downloads under way leave no room for them.
    fn make_room(&self, size: u64) -> bool {
        let evicted = {
            let mut index = self.index();
            let reserved = index.reserved.saturating_add(size);
            if reserved > self.capacity {
                return false;
            }
            index.reserved = reserved;
            index.evict(self.capacity - reserved)
        };
        for path in evicted {
            // What cannot be removed now is found again at the next start.
            let _ = fs::remove_file(&path);
            // Only if it is empty.
            let _ = path.parent().map(fs::remove_dir);
        }
        true
    }

    fn path(&self, access_key: &AccessKey, digest: &Digest) -> PathBuf {
        self.blobs.join(access_key.hex()).join(digest.hex())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn touch(&mut self, path: &Path, size: u64) {
        self.remove(path);
        self.uses += 1;
        let (room, last_use) = (room(size), self.uses);
        self.bytes += room;
        self.entries.insert(path.to_owned(), Entry { room, last_use });
    }

    fn remove(&mut self, path: &Path) {
        if let Some(entry) = self.entries.remove(path) {
            self.bytes -= entry.room;
        }
    }

    /// Evicts the least recently used, until at most `capacity` bytes are left.
    fn evict(&mut self, capacity: u64) -> Vec<PathBuf> {
        let mut evicted = Vec::new();
        while self.bytes > capacity {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else {
                break;
            };
            self.remove(&oldest);
            evicted.push(oldest);
        }
        evicted
    }
}

impl Unfinished<'_> {
    /// A second handle to the file, to write to.
    pub(super) fn reopen(&self) -> io::Result<File> {
        self.file.reopen()
    }

    /// Moves the finished download into place. Two of the same blob may race: the bytes are the same.
    pub(super) fn finish(self, access_key: &AccessKey, digest: &Digest) -> io::Result<StoredBlob> {
        let (store, size) = (self.reservation.store, self.size);
        let path = store.path(access_key, digest);
        persist(self.file, &path)?;
        store.index().touch(&path, size);
        Ok(StoredBlob { path, size })
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut index = self.store.index();
        index.reserved = index.reserved.saturating_sub(self.room);
    }
}

/// Moves a file into a directory that an eviction may remove at any moment.
fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)?;
    match file.persist(path) {
        Err(again) if again.error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory)?;
            again.file.persist(path).map(drop).map_err(|error| error.error)
        }
        persisted => persisted.map(drop).map_err(|error| error.error),
    }
}

/// What a file of `size` bytes counts for.
fn room(size: u64) -> u64 {
    size.max(MIN_FILE_BYTES)
}

/// Every file below, with the time it was written.
fn scan(blobs: &Path) -> io::Result<Vec<(SystemTime, PathBuf, u64)>> {
    let mut found = Vec::new();
    for directory in fs::read_dir(blobs)? {
        let directory = directory?;
        if !directory.file_type()?.is_dir() {
            continue;
        }
        for blob in fs::read_dir(directory.path())? {
            let (path, metadata) = blob.and_then(|blob| Ok((blob.path(), blob.metadata()?)))?;
            if metadata.is_file() {
                found.push((metadata.modified()?, path, metadata.len()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
