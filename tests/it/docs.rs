//! The documentation, held to the program: what it lists is all there is, its manifests are accepted, its links lead
//! somewhere.
//!
//! Each rule is a function from texts to complaints, and [`complaints`] shows each of them complaining.

mod complaints;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use policy_operator::adapters::registry::observer::{RequestKind, RequestObserver as _};
use policy_operator::operator::args::Arguments;
use policy_operator::operator::metrics::{Metrics, UnreadablePart, WatchedKind};
use policy_operator::operator::render::manifests::KubernetesManifests;
use policy_operator::pipeline::reason::{Disposition, Reason};
use policy_operator::pipeline::single_flight::{CacheName, CacheObserver as _};
use strum::VariantArray as _;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files with this ending at the root and below `docs` and `examples`, relative to the root.
fn files(ending: &str) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = ["", "docs", "examples"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(root().join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|found| found == ending))
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .collect();
    assert!(!found.is_empty(), "no *.{ending}: the test looks in the wrong place");
    found
}

/// The lines of the section under `heading`, down to the next heading of any level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no '{heading}'"));
    let body = &page[start + heading.len() + 2..];
    body.find("\n#").map_or(body, |end| &body[..end])
}

/// What stands in backquotes in column `column` of the tables in `text`.
fn listed(text: &str, column: usize) -> BTreeSet<String> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(column + 1));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        // A flag stands with the name of its value: `--kubeconfig FILE`.
        .map(|code| code.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

/// How what a page lists differs from what the program has.
fn differences(listed: &BTreeSet<String>, existing: &BTreeSet<String>) -> Vec<String> {
    let missing = existing.difference(listed).map(|name| format!("'{name}' is missing"));
    let unknown = listed.difference(existing).map(|name| format!("'{name}' is unknown"));
    missing.chain(unknown).collect()
}

fn reasons() -> BTreeSet<String> {
    Reason::VARIANTS.iter().map(ToString::to_string).collect()
}

/// Flags and environment variables of a subcommand.
fn flags(subcommand: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let command = Arguments::definition();
    let command = command.find_subcommand(subcommand).expect("the subcommand");
    let arguments = || command.get_arguments().filter(|argument| argument.get_id() != "help");
    let flags = arguments().flat_map(|argument| {
        let long = argument.get_long().map(|long| format!("--{long}"));
        long.into_iter()
            .chain(argument.get_short().map(|short| format!("-{short}")))
    });
    let variables = arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    (flags.collect(), variables.collect())
}

/// Families as they are scraped: counters and infos with their endings. A family with labels is not written before it
/// was used once, so a new one has to be used here; until then its row in the documentation is unknown.
fn families() -> BTreeSet<String> {
    let metrics = Metrics::new();
    metrics.reconciled(Reason::Internal, Some(Disposition::Retry), Duration::ZERO);
    metrics.request(RequestKind::Token, None);
    metrics.requested(CacheName::Bundle, true);
    metrics.policy_images(0, 0);
    metrics.watches_failing(WatchedKind::ConfigMaps, 0);
    metrics.unreadable(WatchedKind::ConfigMaps, UnreadablePart::Metadata);
    let text = metrics.encode().unwrap();
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let named = declared.map(|line| match line.split_once(' ') {
        Some((name, "counter")) => format!("{name}_total"),
        Some((name, "info")) => format!("{name}_info"),
        Some((name, _)) => name.to_owned(),
        None => panic!("'{line}' declares no type"),
    });
    named.collect()
}

/// The bodies of fenced blocks in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(opened)) => open = Some((opened == language, String::new())),
            (Some(_), Some(_)) => found.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, body)| body)),
            (Some((_, body)), None) => body.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    found
}

/// What the strict reader of `render` says against the manifests.
fn refusal(yaml: &str) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("manifest.yaml");
    fs::write(&file, yaml).unwrap();
    KubernetesManifests::read(&[file], "default")
        .err()
        .map(|error| error.to_string())
}

/// Links of a page that lead to no file, or to no heading of one.
fn broken_links(page: &Path, text: &str) -> Vec<String> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let relative = targets.filter(|target| !target.contains("://"));
    relative
        .filter(|target| !leads_somewhere(page, target))
        .map(str::to_owned)
        .collect()
}

fn leads_somewhere(page: &Path, target: &str) -> bool {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() {
        page.to_owned()
    } else {
        normal(&page.parent().unwrap_or(Path::new("")).join(path))
    };
    let file = root().join(file);
    let has_heading = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with('#'))
            .any(|line| slug(line) == anchor)
    };
    file.exists() && (anchor.is_empty() || has_heading())
}

fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        match component {
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
        normal
    })
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[test]
fn the_page_of_the_kind_explains_every_reason_and_no_other() {
    let page = text("docs/policyimage.md");
    let explained = listed(section(&page, "## Reasons"), 0);
    assert_eq!(differences(&explained, &reasons()), Vec::<String>::new());
}

#[test]
fn every_flag_and_variable_of_run_is_listed_and_no_other() {
    let page = text("docs/operations.md");
    let table = section(&page, "## Flags of `run`");
    let (flags, variables) = flags("run");
    assert_eq!(differences(&listed(table, 0), &flags), Vec::<String>::new());
    let mut listed = listed(table, 1);
    listed.retain(|name| name.starts_with("POLICY_OPERATOR_"));
    assert_eq!(differences(&listed, &variables), Vec::<String>::new());
}

/// Variables that `render` shares with `run` are on that page.
#[test]
fn every_flag_and_variable_of_render_is_listed_and_no_other() {
    let page = text("docs/render.md");
    let (flags, variables) = flags("render");
    let mut named = listed(&page, 0);
    named.retain(|name| name.starts_with('-') && name != "-");
    assert_eq!(differences(&named, &flags), Vec::<String>::new());
    let shared = listed(section(&text("docs/operations.md"), "## Flags of `run`"), 1);
    let missing: Vec<_> = variables.difference(&shared).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_metric_is_listed_and_no_other() {
    let page = text("docs/operations.md");
    let listed = listed(section(&page, "## Metrics"), 0);
    assert_eq!(differences(&listed, &families()), Vec::<String>::new());
}

#[test]
fn every_policy_image_in_the_documentation_is_accepted() {
    let pages = files("md").into_iter().flat_map(|page| {
        let found = blocks(&text(page.to_str().unwrap()), "yaml").into_iter();
        found.map(move |yaml| (page.clone(), yaml))
    });
    let examples = files("yaml")
        .into_iter()
        .map(|file| (file.clone(), text(file.to_str().unwrap())));
    let manifests: Vec<_> = pages
        .chain(examples)
        .filter(|(_, yaml)| yaml.contains("kind: PolicyImage"))
        .collect();
    assert!(manifests.len() >= 8, "only {} manifests were found", manifests.len());
    for (file, yaml) in manifests {
        assert_eq!(refusal(&yaml), None, "{}", file.display());
    }
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let broken = files("md").into_iter().flat_map(|page| {
        let broken = broken_links(&page, &text(page.to_str().unwrap())).into_iter();
        broken.map(move |target| format!("{}: {target}", page.display()))
    });
    assert_eq!(broken.collect::<Vec<_>>(), Vec::<String>::new());
}
