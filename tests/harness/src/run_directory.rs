//! Directories for the files and logs of one run.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::tools::repository_root;

/// A directory `target/harness/<process id>-<number>-<name>`.
///
/// Removed when it is dropped, but kept, and its path printed, when that happens in a panic: a failing test leaves its
/// logs. Directories of processes that are gone are removed when the next process makes its first one.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Makes an empty directory; `name` is for the reader.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static CLEAN: Once = Once::new();
        let root = root();
        CLEAN.call_once(|| remove_abandoned(&root));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("make directory {}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name` in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the file `name` and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RunDirectory {
    #[expect(clippy::print_stderr, reason = "a failing test tells where its logs are")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("harness: logs kept in {}", self.path.display());
        } else {
            // A leftover is removed by the next run.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn root() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| repository_root().join("target"))
        .join("harness")
}

fn remove_abandoned(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split('-').next())
            .and_then(|id| id.parse::<u32>().ok());
        if owner.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
