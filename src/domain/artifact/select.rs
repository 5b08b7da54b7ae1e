//! Which layer of an image is the bundle, and which image of an index has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::wire::{Entry, Image, Platform};
use super::{
    BUNDLE_LAYER, DOCKER_MANIFEST, Descriptor, MAX_ANNOTATION_CHARACTERS, MAX_ANNOTATIONS, ManifestError, OCI_MANIFEST,
    OPENPOLICYAGENT_LAYER, PolicyManifest,
};
use crate::domain::text::{excerpt, quoted_list, truncate};

/// The bundle of an image: the first layer of type [`BUNDLE_LAYER`], which is the one that OPA takes; if there is
/// none, the first of type [`OPENPOLICYAGENT_LAYER`]. Docker's layer type is not taken, since OPA does not take it: a
/// policy that only runs behind this operator would be a surprise. Container images have layers of the same type; what
/// they hold is found out when the layer is read.
pub(super) fn bundle(image: Image) -> Result<PolicyManifest, ManifestError> {
    let of_type = |media_type: &str| image.layers.iter().find(|layer| layer.media_type == media_type);
    let Some(mut layer) = of_type(BUNDLE_LAYER)
        .or_else(|| of_type(OPENPOLICYAGENT_LAYER))
        .cloned()
    else {
        return Err(not_a_policy_image(&image));
    };
    let mut annotations = std::mem::take(&mut layer.annotations);
    annotations.extend(image.annotations);
    // A text of any length, which is not used again.
    layer.artifact_type = None;
    Ok(PolicyManifest {
        bundle: layer,
        annotations: Arc::new(truncated(&annotations)),
    })
}

fn truncated(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let first = annotations.iter().take(MAX_ANNOTATIONS);
    let cut = |text| truncate(text, MAX_ANNOTATION_CHARACTERS);
    first.map(|(name, value)| (cut(name), cut(value))).collect()
}

/// The one manifest of an index that can be a policy image: the one that is left when attestations (`BuildKit` adds
/// them) and what is no image manifest are passed over.
///
/// OPA takes the first child that has a bundle layer. Several candidates are refused here instead, for to choose by
/// order is to let whoever assembles an index choose what runs, and policies do not differ by platform.
pub(super) fn indexed_manifest(index: Vec<Entry>) -> Result<Descriptor, ManifestError> {
    let mut candidates: Vec<Descriptor> = Vec::new();
    for entry in index.into_iter().filter(Entry::is_candidate) {
        if candidates.iter().all(|known| known.digest != entry.descriptor.digest) {
            // Texts of any length, which nobody asks for again.
            candidates.push(Descriptor {
                artifact_type: None,
                annotations: BTreeMap::new(),
                ..entry.descriptor
            });
        }
    }
    match candidates.len() {
        0 => Err(ManifestError::EmptyIndex),
        1 => candidates.pop().ok_or(ManifestError::EmptyIndex),
        found => Err(ManifestError::AmbiguousIndex { found }),
    }
}

impl Entry {
    fn is_candidate(&self) -> bool {
        let attestation = self.descriptor.annotations.get("vnd.docker.reference.type");
        [OCI_MANIFEST, DOCKER_MANIFEST].contains(&self.descriptor.media_type.as_str())
            && attestation.is_none_or(|kind| kind != "attestation-manifest")
            && !self.platform.as_ref().is_some_and(Platform::is_unknown)
    }
}

impl Platform {
    fn is_unknown(&self) -> bool {
        self.os.as_deref() == Some("unknown") && self.architecture.as_deref() == Some("unknown")
    }
}

/// Says what the image seems to be instead, judging by its media types.
fn not_a_policy_image(image: &Image) -> ManifestError {
    let config = image.config.as_ref().map(|config| config.media_type.as_str());
    let types = || {
        let layers = image.layers.iter().map(|layer| layer.media_type.as_str());
        layers.chain(config).chain(image.artifact_type.as_deref())
    };
    let has = |part: &str| types().any(|media_type| media_type.contains(part));
    let kind = if has("openpolicyagent.policy.layer") || has("openpolicyagent.data.layer") {
        "a Conftest image, which holds single files"
    } else if has("cncf.helm") {
        "a Helm chart"
    } else if has("cosign.simplesigning") || has("dev.sigstore.bundle") {
        "a signature"
    } else if has("in-toto") {
        "an attestation"
    } else if has("kyverno") {
        "a Kyverno policy"
    } else if has("wasm") || has("kubewarden") {
        "a WebAssembly module"
    } else if has("docker.container.image") || has("docker.image.rootfs") {
        "a container image in Docker's format"
    } else if image.layers.is_empty() {
        "an image without layers"
    } else if has("layer.v1.tar") {
        "an image whose layer is not compressed with gzip"
    } else {
        "something else"
    };
    ManifestError::NotAPolicyImage {
        kind,
        layers: listed(&image.layers),
    }
}

/// The media types of layers, each once in a row, and only the first few.
fn listed(layers: &[Descriptor]) -> String {
    let mut types: Vec<String> = layers.iter().map(|layer| excerpt(&layer.media_type)).collect();
    types.dedup();
    quoted_list(&types)
}
