//! Paths inside a bundle.
//!
//! Nothing is ever unpacked to them. They are held to rules all the same, because OPA makes package paths of them and
//! other consumers do unpack, onto file systems that fold case and normalise Unicode.

use std::collections::BTreeSet;

use super::Limits;
use super::error::BundleError;
use super::manifest::is_read_by_opa;
use crate::domain::strict_json::fold;
use crate::domain::text::excerpt;

/// Combining characters, which a decomposed spelling of a letter has and a composed one has not: without them there is one
/// spelling, so no two paths can be Unicode twins. And characters that show nothing or turn the text around.
const COMBINING: [(char, char); 11] = [
    ('\u{300}', '\u{36f}'),
    ('\u{1100}', '\u{11ff}'),
    ('\u{1ab0}', '\u{1aff}'),
    ('\u{1dc0}', '\u{1dff}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{20d0}', '\u{20ff}'),
    ('\u{3099}', '\u{309a}'),
    ('\u{fe00}', '\u{fe2f}'),
    ('\u{feff}', '\u{feff}'),
];

/// Brings a name to the form `a/b`: OPA writes `/a/b`, tar programs write `./a/b` and `a/`. The root directory is empty.
pub(super) fn normalise(name: &[u8], directory: bool, limits: &Limits) -> Result<String, BundleError> {
    if name.len() > limits.path_bytes {
        return Err(BundleError::limit("bytes in one path", limits.path_bytes as u64));
    }
    let refuse = |cause| BundleError::Path {
        path: excerpt(&String::from_utf8_lossy(name)),
        cause,
    };
    let text = std::str::from_utf8(name).map_err(|_| refuse("is not UTF-8"))?;
    if text.contains('\\') {
        return Err(refuse("has a backslash"));
    }
    if text.chars().any(char::is_control) {
        return Err(refuse("has a control character"));
    }
    if text
        .chars()
        .any(|letter| COMBINING.iter().any(|(first, last)| (*first..=*last).contains(&letter)))
    {
        return Err(refuse("has combining or invisible characters"));
    }
    let path = text
        .strip_prefix("./")
        .or_else(|| text.strip_prefix('/'))
        .unwrap_or(text);
    let path = if directory {
        path.strip_suffix('/').unwrap_or(path)
    } else {
        path
    };
    if directory && (path.is_empty() || path == ".") {
        return Ok(String::new());
    }
    for part in path.split('/') {
        match part {
            "" => return Err(refuse("has an empty part")),
            "." | ".." => return Err(refuse("has a part '.' or '..'")),
            _ => {}
        }
    }
    // `C:x` is absolute where drives have letters.
    if matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic()) {
        return Err(refuse("starts with a drive"));
    }
    if path.split('/').count() > limits.path_depth {
        return Err(BundleError::limit("names in one path", limits.path_depth as u64));
    }
    Ok(path.to_owned())
}

/// All paths of a bundle.
#[derive(Debug, Default)]
pub(super) struct Paths {
    files: BTreeSet<String>,
    /// Files and directories with case folded.
    folded_files: BTreeSet<String>,
    folded_directories: BTreeSet<String>,
}

impl Paths {
    pub(super) fn add_file(&mut self, path: &str) -> Result<(), BundleError> {
        if !self.folded_files.insert(fold(path)) {
            return Err(BundleError::Duplicate { path: excerpt(path) });
        }
        self.files.insert(path.to_owned());
        Ok(())
    }

    /// A directory may be named more than once: it holds nothing by itself.
    pub(super) fn add_directory(&mut self, path: &str) {
        self.folded_directories.insert(fold(path));
    }

    /// The files, sorted, once it is clear that none of them is also a directory.
    pub(super) fn into_files(self) -> Result<Vec<String>, BundleError> {
        let parents = self
            .folded_files
            .iter()
            .chain(&self.folded_directories)
            .flat_map(|path| {
                let ends = path.match_indices('/').map(|(end, _)| end);
                ends.filter_map(|end| path.get(..end))
            });
        let mut directories = parents.chain(self.folded_directories.iter().map(String::as_str));
        if let Some(path) = directories.find(|path| self.folded_files.contains(*path)) {
            return Err(BundleError::FileAndDirectory { path: excerpt(path) });
        }
        if !self.files.iter().any(|file| is_read_by_opa(file)) {
            let found = self.files.first().map_or_else(
                || "it is empty".to_owned(),
                |file| format!("first is '{}'", excerpt(file)),
            );
            return Err(BundleError::Empty { found });
        }
        Ok(self.files.into_iter().collect())
    }
}
