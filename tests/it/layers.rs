//! The architecture as a test: which layer may know which, what a layer may not touch, and how long a file may be.
//!
//! The compiler holds a part of this (`cargo check --lib --no-default-features`). Each rule here is a function from a
//! file's text to complaints, and `rules` shows each of them complaining.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::source::Source;

mod graph;
mod rules;
mod source;

/// A file longer than this without its tests is two subjects. The aim is 300.
const MAX_LINES: usize = 400;
/// These tell the story of a run, each on one screen: how it is decided and reported, and its steps.
const STORIES: [&str; 2] = ["operator/controller/reconciler.rs", "operator/steps.rs"];
/// Most lines of a story, without its words and imports.
const MAX_STORY_LINES: usize = 90;

/// Lower layers first. Layers of equal rank do not know each other.
const LAYERS: [(&str, usize); 8] = [
    ("domain", 0),
    ("pipeline", 1),
    ("adapters", 2),
    ("runtime", 3),
    ("operator", 4),
    ("sidecar", 4),
    ("cli", 4),
    ("bin", 5),
];

/// What all adapters share. It is below them, and knows none of them.
const SHARED_ADAPTER: &str = "network";

/// Layers whose messages state facts. What to do about a fact, in the fields and flags of one program, is a hint that
/// the program adds.
const STATES_FACTS: [&str; 3] = ["domain", "pipeline", "adapters"];
/// What no message of those layers holds, beside flags and the fields of the CRD: a path of a field, and a Secret by the
/// name that Kubernetes users give it.
const HINTS: [&str; 3] = ["spec.", "status.", "pull secret"];

/// What a layer must not name: a path, or a word that is one segment of a path.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    (
        "domain",
        &[
            "async",
            "await",
            "tokio",
            "futures",
            "moka",
            "strum",
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
    ("runtime", &["kube", "k8s_openapi"]),
    ("sidecar", &["kube", "k8s_openapi"]),
    ("cli", &["kube", "k8s_openapi"]),
];

/// Every rule, applied to the file at `path` below `src/`.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let source = Source::read(path, text);
    let mut complaints = source.wrong_imports();
    complaints.extend(source.forbidden_names());
    complaints.extend(source.hints());
    complaints.extend(source.too_long());
    complaints
        .into_iter()
        .map(|complaint| format!("src/{path}: {complaint}"))
        .collect()
}

/// Imports between the files of one folder that lead back to where they came from, given every file below `src/`. A file
/// `a.rs` and the folder `a/` are one node of the folder they lie in, because `a.rs` lists what is in `a/`; inside `a/`
/// the files are nodes of their own, and `a.rs` is none of them.
fn cycles(files: &[(String, String)]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::read(path, text)).collect();
    let modules: BTreeSet<String> = sources.iter().map(Source::name).collect();
    let re_exports: BTreeMap<String, String> = sources.iter().flat_map(Source::re_exports).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        for (from, to) in source.sibling_imports(&modules, &re_exports) {
            edges.entry(from).or_default().insert(to);
        }
    }
    let mut found = BTreeSet::new();
    for start in edges.keys() {
        if let Some(cycle) = graph::cycle_through(&edges, start) {
            found.insert(graph::canonical(cycle).join(" -> "));
        }
    }
    found.into_iter().collect()
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

/// Every source file, by its path below `src/`.
fn source_files() -> Vec<(String, String)> {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(files.len() > 10, "the sources were not found");
    let path = |file: &Path| {
        file.strip_prefix(&src)
            .expect("below src")
            .to_str()
            .expect("text")
            .to_owned()
    };
    files
        .iter()
        .map(|file| (path(file), fs::read_to_string(file).expect("text")))
        .collect()
}

#[test]
fn every_source_file_keeps_the_rules() {
    let files = source_files();
    for story in STORIES {
        assert!(files.iter().any(|(path, _)| path == story), "src/{story} is gone");
    }
    let found: Vec<_> = files.iter().flat_map(|(path, text)| complaints(path, text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn no_files_of_a_folder_import_each_other_in_a_circle() {
    assert_eq!(cycles(&source_files()), Vec::<String>::new());
}

/// `make lint` checks each feature of Cargo.toml alone, so that a layer cannot lean on a dependency of a layer above.
#[test]
fn each_feature_is_checked_alone() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    assert_eq!(unchecked_features(&manifest, &makefile), Vec::<String>::new());
}

/// Features of the manifest that no line of the Makefile's lint checks by themselves.
fn unchecked_features(manifest: &str, makefile: &str) -> Vec<String> {
    let features = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let features = features
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .filter(|name| !name.starts_with(['#', ' ']) && *name != "default");
    let checked = |name: &str| {
        let command = format!("cargo check --quiet --lib --no-default-features --features {name}");
        makefile.lines().any(|line| line.trim() == command)
    };
    let mut unchecked: Vec<String> = features.filter(|name| !checked(name)).map(str::to_owned).collect();
    let alone = "cargo check --quiet --lib --no-default-features";
    if !makefile.lines().any(|line| line.trim() == alone) {
        unchecked.push("no feature".to_owned());
    }
    unchecked
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
