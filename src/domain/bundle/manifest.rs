//! The `.manifest` of a bundle.
//!
//! Source: OPA documentation, "Bundle File Format"; `open-policy-agent/opa:v1/bundle/bundle.go`, `Manifest`.

use serde::Deserialize;

use super::error::BundleError;
use crate::domain::strict_json;
use crate::domain::text::excerpt;

/// Its path.
pub(super) const MANIFEST: &str = ".manifest";
/// A bundle that only changes data.
const PATCH: &str = "patch.json";
/// Most roots, and the most bytes of one root or of the revision: they are shown in status.
const MAX_ROOTS: usize = 256;
const MAX_TEXT_BYTES: usize = 1024;
/// Files that become data at the path of their directory.
const DATA_FILES: [&str; 3] = ["data.json", "data.yaml", "data.yml"];

/// The parts of a manifest that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) revision: String,
    pub(super) roots: Vec<String>,
    pub(super) rego_version: Option<u8>,
}

#[derive(Deserialize, Default)]
struct WireManifest {
    revision: Option<String>,
    roots: Option<Vec<String>>,
    rego_version: Option<u64>,
}

/// Whether OPA loads the file from a bundle; it passes over all others.
pub(super) fn is_read_by_opa(path: &str) -> bool {
    let name = file_name(path);
    let is_rego = name.rsplit_once('.').is_some_and(|(_, extension)| extension == "rego");
    is_rego || DATA_FILES.contains(&name) || ["policy.wasm", "plan.json", PATCH].contains(&name) || path == MANIFEST
}

/// Reads the manifest, if there is one, and checks that `files` fit it.
pub(super) fn read(manifest: Option<&[u8]>, files: &[String]) -> Result<Manifest, BundleError> {
    if files.iter().any(|path| path == PATCH) {
        return Err(BundleError::Delta);
    }
    // OPA goes by the end of the path, so `app/x.manifest` would be read in place of the manifest or beside it.
    if let Some(path) = files.iter().find(|path| path.ends_with(MANIFEST) && *path != MANIFEST) {
        return Err(BundleError::SecondManifest { path: excerpt(path) });
    }
    let wire: WireManifest = match manifest {
        None => WireManifest::default(),
        Some(bytes) => strict_json::parse(bytes).map_err(|error| malformed(&error.to_string()))?,
    };
    let revision = wire.revision.unwrap_or_default();
    let rego_version = match wire.rego_version {
        None => None,
        Some(0) => Some(0),
        Some(1) => Some(1),
        Some(_) => return Err(malformed("'rego_version' is neither 0 nor 1")),
    };
    let roots = wire.roots.unwrap_or_else(|| vec![String::new()]);
    let roots: Vec<String> = roots.iter().map(|root| root.trim_matches('/').to_owned()).collect();
    if roots.len() > MAX_ROOTS || roots.iter().chain([&revision]).any(|text| text.len() > MAX_TEXT_BYTES) {
        return Err(malformed(
            "more than 256 roots, or a root or revision of more than 1024 bytes",
        ));
    }
    check_overlap(&roots)?;
    check_data(&roots, files)?;
    Ok(Manifest {
        revision,
        roots,
        rego_version,
    })
}

fn check_overlap(roots: &[String]) -> Result<(), BundleError> {
    for (position, one) in roots.iter().enumerate() {
        for other in roots.iter().skip(position + 1) {
            if contains(one, other) || contains(other, one) {
                return Err(BundleError::OverlappingRoots {
                    one: excerpt(one),
                    other: excerpt(other),
                });
            }
        }
    }
    Ok(())
}

/// Data outside the roots, as far as paths show: what a data file above a root holds, and which package a policy
/// declares, is OPA's to check.
fn check_data(roots: &[String], files: &[String]) -> Result<(), BundleError> {
    for path in files.iter().filter(|path| DATA_FILES.contains(&file_name(path))) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let inside = roots
            .iter()
            .any(|root| contains(root, directory) || root.starts_with(directory));
        // `opa build` writes an empty `data.json` at the root even if there are no roots.
        if !inside && !directory.is_empty() {
            return Err(BundleError::OutsideRoots { path: excerpt(path) });
        }
    }
    Ok(())
}

/// Whether `path` is `root` or lies below it; the empty root holds everything.
fn contains(root: &str, path: &str) -> bool {
    root.is_empty()
        || path
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn malformed(cause: &str) -> BundleError {
    BundleError::Manifest {
        cause: cause.chars().take(200).collect(),
    }
}
