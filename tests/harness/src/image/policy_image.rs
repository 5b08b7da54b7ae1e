use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::Bundle;
use crate::registry::{Endpoint, digest};

/// The media type of the layer that holds a bundle.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const CREATED: &str = "2026-01-01T00:00:00Z";

/// Which release of the `policy` program wrote the manifest; all of them are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// To v0.1.30: image config, annotations on the layer alone.
    LayerAnnotations,
    /// v0.2.0 to v0.3.5: image config with a time, annotations on layer and manifest. What most registries take.
    ImageConfig,
    /// v0.2.4: like the former, and the manifest's own type as `artifactType`.
    ImageConfigArtifact,
    /// From v0.4.0: empty config, and the manifest's own type as `artifactType`.
    EmptyConfig,
    /// What `docker buildx` adds: an index with the image, and an attestation that is none.
    Index,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::LayerAnnotations,
        Self::ImageConfig,
        Self::ImageConfigArtifact,
        Self::EmptyConfig,
        Self::Index,
    ];
}

/// A policy image to push.
#[derive(Debug, Clone)]
pub struct PolicyImage {
    /// The bytes of its layer.
    pub bundle: Bundle,
    /// The form of its manifest.
    pub shape: Shape,
    /// More annotations, on the manifest and on the layer.
    pub annotations: BTreeMap<String, String>,
}

/// A policy image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `host/repository:tag`.
    pub reference: String,
    /// `host/repository@digest`, which is what one signs.
    pub pinned: String,
    /// The digest that the tag resolves to: of the manifest, or of the index.
    pub digest: String,
    /// The digest of the image manifest; differs from `digest` only below an index.
    pub manifest_digest: String,
    /// The digest of the layer, which is the digest of the bundle.
    pub layer_digest: String,
}

impl PolicyImage {
    /// An image of the most common shape.
    #[must_use]
    pub fn new(bundle: Bundle) -> Self {
        Self {
            bundle,
            shape: Shape::ImageConfig,
            annotations: BTreeMap::new(),
        }
    }

    /// The same image in another shape.
    #[must_use]
    pub fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// Pushes it as `repository:tag`.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push(&self, registry: &Endpoint, repository: &str, tag: &str) -> Result<Pushed> {
        let config = self.config();
        registry.push_blob(repository, config.as_bytes()).await?;
        let layer_digest = registry.push_blob(repository, &self.bundle.0).await?;
        let manifest = self.manifest(repository, &config).to_string();
        let under = if self.shape == Shape::Index {
            digest(manifest.as_bytes())
        } else {
            tag.to_owned()
        };
        let manifest_digest = registry
            .push_manifest(repository, &under, MANIFEST, manifest.as_bytes())
            .await?;
        let digest = match self.shape {
            Shape::Index => push_index(registry, repository, tag, &manifest_digest, manifest.len()).await?,
            _ => manifest_digest.clone(),
        };
        let name = format!("{}/{repository}", registry.host);
        Ok(Pushed {
            reference: format!("{name}:{tag}"),
            pinned: format!("{name}@{digest}"),
            digest,
            manifest_digest,
            layer_digest,
        })
    }

    fn config(&self) -> String {
        match self.shape {
            Shape::EmptyConfig | Shape::LayerAnnotations => "{}".to_owned(),
            _ => json!({ "created": CREATED }).to_string(),
        }
    }

    fn manifest(&self, repository: &str, config: &str) -> Value {
        let mut annotations = self.annotations.clone();
        for (key, value) in [
            ("org.opencontainers.image.created", CREATED),
            ("org.opencontainers.image.title", repository),
            ("org.openpolicyregistry.type", "policy"),
            ("rego.version", "rego.v1"),
        ] {
            annotations.insert(key.to_owned(), value.to_owned());
        }
        let config_type = if self.shape == Shape::EmptyConfig {
            EMPTY
        } else {
            CONFIG
        };
        let mut layer = descriptor(LAYER, &self.bundle.digest(), self.bundle.0.len());
        layer["annotations"] = json!(annotations);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config_type, &digest(config.as_bytes()), config.len()),
            "layers": [layer],
        });
        if matches!(self.shape, Shape::EmptyConfig | Shape::ImageConfigArtifact) {
            manifest["artifactType"] = json!(MANIFEST);
        }
        if self.shape != Shape::LayerAnnotations {
            manifest["annotations"] = json!(annotations);
        }
        manifest
    }
}

/// Pushes an index with the image `manifest` and a manifest that is an attestation, as builders add it.
async fn push_index(registry: &Endpoint, repository: &str, tag: &str, manifest: &str, size: usize) -> Result<String> {
    registry.push_blob(repository, b"{}").await?;
    let attestation = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &digest(b"{}"), 2),
        "layers": [descriptor("application/vnd.in-toto+json", &digest(b"{}"), 2)],
    })
    .to_string();
    let attestation_digest = digest(attestation.as_bytes());
    registry
        .push_manifest(repository, &attestation_digest, MANIFEST, attestation.as_bytes())
        .await?;
    let mut described = descriptor(MANIFEST, &attestation_digest, attestation.len());
    described["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    described["annotations"] =
        json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifest });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(MANIFEST, manifest, size), described],
    });
    registry
        .push_manifest(repository, tag, INDEX, index.to_string().as_bytes())
        .await
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}
