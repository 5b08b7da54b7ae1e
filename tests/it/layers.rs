//! The architecture as a test: which layer may know which, what a layer may not touch, and how long a file may be.
//!
//! The compiler holds a part of this (`cargo check --lib --no-default-features`). Each rule here is a function from a
//! file's text to complaints, and `rules` shows each of them complaining.

use std::fs;
use std::path::{Path, PathBuf};

use self::source::Source;

mod rules;
mod source;

/// A file longer than this without its tests is two subjects. The aim is 300.
const MAX_LINES: usize = 400;
/// `reconcile` is a story on one screen.
const MAX_RECONCILE_LINES: usize = 80;

/// Lower layers first. Layers of equal rank do not know each other.
const LAYERS: [(&str, usize); 7] = [
    ("domain", 0),
    ("pipeline", 1),
    ("adapters", 2),
    ("operator", 3),
    ("sidecar", 3),
    ("cli", 3),
    ("bin", 4),
];

/// What a layer must not name: a path, or a word that is one segment of a path.
const FORBIDDEN: [(&str, &[&str]); 5] = [
    (
        "domain",
        &[
            "async",
            "await",
            "tokio",
            "futures",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "SystemTime",
            "Instant",
        ],
    ),
    (
        "pipeline",
        &[
            "reqwest",
            "hyper",
            "axum",
            "kube",
            "k8s_openapi",
            "std::fs",
            "tokio::fs",
            "std::net",
            "tokio::net",
            "std::env",
        ],
    ),
    ("adapters", &["kube", "k8s_openapi", "axum", "clap"]),
    ("sidecar", &["kube", "k8s_openapi"]),
    ("cli", &["kube", "k8s_openapi"]),
];

/// Every rule, applied to the file at `path` below `src/`.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let source = Source::read(path, text);
    let mut complaints = source.wrong_imports();
    complaints.extend(source.forbidden_names());
    complaints.extend(source.too_long());
    complaints
        .into_iter()
        .map(|complaint| format!("src/{path}: {complaint}"))
        .collect()
}

/// Files in `tests/it` that `main.rs` does not list: their tests would never run.
fn unlisted(main: &str, files: &[String]) -> Vec<String> {
    let listed = |name: &str| main.lines().any(|line| line.trim() == format!("mod {name};"));
    files
        .iter()
        .filter(|name| *name != "main" && !listed(name))
        .cloned()
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `directory`, however deep.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_source_file_keeps_the_rules() {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(files.len() > 10, "the sources were not found");
    let mut found = Vec::new();
    for file in files {
        let path = file
            .strip_prefix(&src)
            .expect("below src")
            .to_str()
            .expect("text")
            .to_owned();
        found.extend(complaints(&path, &fs::read_to_string(&file).expect("text")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_test_file_is_listed() {
    let directory = root().join("tests/it");
    let names = fs::read_dir(&directory)
        .expect("directory")
        .map(|entry| entry.expect("entry").path());
    // A directory without a file of its name beside it would be forgotten too.
    let names: Vec<_> = names
        .map(|path| path.file_stem().expect("name").to_str().expect("text").to_owned())
        .collect();
    let names: Vec<_> = names.into_iter().filter(|name| name != "snapshots").collect();
    let main = fs::read_to_string(directory.join("main.rs")).expect("main.rs");
    assert_eq!(
        unlisted(&main, &names),
        Vec::<String>::new(),
        "not listed in tests/it/main.rs"
    );
}
