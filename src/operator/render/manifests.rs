//! Manifest files, read as `kubectl apply -f` would.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::operator::api::spec::PolicyImage;
use crate::operator::identity::NamespacedName;
use crate::operator::steps::dereference::{ObjectReader, ReadError, Values};

/// Most bytes of one file.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// A UID for objects that have none because no API server has seen them.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// The objects of some manifest files.
#[derive(Debug, Default)]
pub struct KubernetesManifests {
    policy_images: Vec<PolicyImage>,
    secrets: BTreeMap<NamespacedName, Secret>,
    config_maps: BTreeMap<NamespacedName, ConfigMap>,
    service_accounts: BTreeMap<NamespacedName, ServiceAccount>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// It cannot be read.
    #[error("'{file}' cannot be read")]
    Read {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("'{file}' is larger than 16 MiB")]
    LimitSize {
        /// The file.
        file: String,
    },
    /// It is not YAML.
    #[error("'{file}' is not valid YAML: {cause}")]
    ParseYaml {
        /// The file.
        file: String,
        /// What the parser reported.
        cause: String,
    },
    /// A document is not the object it claims to be.
    #[error("document {number} of '{file}' is not a valid {kind}: {cause}")]
    ParseObject {
        /// The file.
        file: String,
        /// The document, counted from 1.
        number: usize,
        /// Its kind.
        kind: String,
        /// What is wrong.
        cause: String,
    },
    /// There is nothing to render.
    #[error("the files hold no PolicyImage (apiVersion opcr.io/v1alpha1)")]
    FindPolicyImage,
}

impl KubernetesManifests {
    /// Reads files; `-` is standard input. Objects without a namespace get `namespace`. Kinds that a PolicyImage cannot
    /// name are passed over, so that a whole GitOps directory can be given.
    ///
    /// # Errors
    /// [`ManifestsError`].
    pub fn read<P: AsRef<Path>>(files: &[P], namespace: &str) -> Result<Self, ManifestsError> {
        let mut manifests = Self::default();
        for file in files {
            let name = file.as_ref().display().to_string();
            manifests.add(&name, &text(file.as_ref(), &name)?, namespace)?;
        }
        if manifests.policy_images.is_empty() {
            return Err(ManifestsError::FindPolicyImage);
        }
        Ok(manifests)
    }

    /// The PolicyImages, in the order of the files.
    #[must_use]
    pub fn policy_images(&self) -> &[PolicyImage] {
        &self.policy_images
    }

    fn add(&mut self, file: &str, text: &str, namespace: &str) -> Result<(), ManifestsError> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| ManifestsError::ParseYaml {
            file: file.to_owned(),
            cause: error.to_string().lines().next().unwrap_or_default().to_owned(),
        })?;
        let objects = documents
            .into_iter()
            .enumerate()
            .flat_map(|(index, document)| items(document).into_iter().map(move |item| (index, item)));
        for (index, mut document) in objects {
            let field = |name: &str| {
                document
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let (version, kind) = (field("apiVersion"), field("kind"));
            let place = Place {
                file,
                number: index + 1,
                kind: &kind,
            };
            if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.entry("namespace").or_insert_with(|| Value::from(namespace));
            }
            match (version.as_str(), kind.as_str()) {
                ("opcr.io/v1alpha1", "PolicyImage") => self.policy_images.push(policy_image(document, &place)?),
                ("v1", "Secret") => place.insert(&mut self.secrets, place.parse_secret(document)?)?,
                ("v1", "ConfigMap") => place.insert(&mut self.config_maps, place.parse(document)?)?,
                ("v1", "ServiceAccount") => place.insert(&mut self.service_accounts, place.parse(document)?)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The objects of a `List`, which `kubectl get --output=yaml` prints; else the document itself.
fn items(mut document: Value) -> Vec<Value> {
    if (document.get("apiVersion"), document.get("kind")) != (Some(&Value::from("v1")), Some(&Value::from("List"))) {
        return vec![document];
    }
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the files are what the user asked to render")]
fn text(file: &Path, name: &str) -> Result<String, ManifestsError> {
    use std::io::Read as _;
    let failed = |source| ManifestsError::Read {
        file: name.to_owned(),
        source,
    };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
    }
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ManifestsError::LimitSize { file: name.to_owned() });
    }
    Ok(text)
}

struct Place<'a> {
    file: &'a str,
    number: usize,
    kind: &'a str,
}

impl Place<'_> {
    fn parse<T: DeserializeOwned>(&self, document: Value) -> Result<T, ManifestsError> {
        serde_json::from_value(document).map_err(|error| self.wrong(error.to_string()))
    }

    /// The parser's own text would repeat what it found, which is printed in the logs of CI.
    fn parse_secret(&self, document: Value) -> Result<Secret, ManifestsError> {
        serde_json::from_value(document).map_err(|_| {
            self.wrong(
                "its fields are not those of a Secret; 'data' maps names to base64, 'stringData' to texts".into(),
            )
        })
    }

    fn insert<K>(&self, objects: &mut BTreeMap<NamespacedName, K>, object: K) -> Result<(), ManifestsError>
    where
        K: kube::Resource,
    {
        let name = NamespacedName::of(object.meta()).map_err(|error| self.wrong(error.to_string()))?;
        objects.insert(name, object);
        Ok(())
    }

    fn wrong(&self, cause: String) -> ManifestsError {
        ManifestsError::ParseObject {
            file: self.file.to_owned(),
            number: self.number,
            kind: self.kind.to_owned(),
            cause,
        }
    }
}

/// A field that the API does not know is refused: in a file it is a typing error, and verification that is spelled
/// wrong must not be no verification.
fn policy_image(mut document: Value, place: &Place<'_>) -> Result<PolicyImage, ManifestsError> {
    if let Some(fields) = document.as_object_mut() {
        fields.remove("status");
    }
    let mut unknown = Vec::new();
    let parsed = serde_ignored::deserialize(document, |path| unknown.push(path.to_string().replace(".?", "")));
    let mut object: PolicyImage = parsed.map_err(|error: serde_json::Error| place.wrong(error.to_string()))?;
    unknown.retain(|path| path.starts_with("spec"));
    if !unknown.is_empty() {
        return Err(place.wrong(format!("unknown fields: {}", unknown.join(", "))));
    }
    NamespacedName::of(&object.metadata).map_err(|error| place.wrong(error.to_string()))?;
    object.metadata.uid.get_or_insert_with(|| NO_UID.to_owned());
    Ok(object)
}

impl ObjectReader for KubernetesManifests {
    async fn secret(&self, namespace: &str, name: &str, keys: &[&str]) -> Result<Option<Values>, ReadError> {
        let found = self.secrets.get(&NamespacedName::new(namespace, name));
        Ok(found.map(|secret| {
            // An API server never returns `stringData`; in a manifest it says what `data` does not.
            let texts = secret.string_data.iter().flatten();
            let texts = texts.map(|(key, text)| (key, text.as_bytes()));
            let data = secret.data.iter().flatten();
            only(keys, texts.chain(data.map(|(key, value)| (key, value.0.as_slice()))))
        }))
    }

    async fn config_map(&self, namespace: &str, name: &str, keys: &[&str]) -> Result<Option<Values>, ReadError> {
        let found = self.config_maps.get(&NamespacedName::new(namespace, name));
        Ok(found.map(|config_map| {
            let data = config_map.data.iter().flatten();
            only(keys, data.map(|(key, text)| (key, text.as_bytes())))
        }))
    }

    async fn service_account(&self, namespace: &str, name: &str) -> Result<Option<Vec<String>>, ReadError> {
        let found = self.service_accounts.get(&NamespacedName::new(namespace, name));
        Ok(found.map(|account| {
            let secrets = account.image_pull_secrets.iter().flatten();
            secrets.map(|secret| secret.name.clone()).collect()
        }))
    }
}

fn only<'a>(keys: &[&str], values: impl Iterator<Item = (&'a String, &'a [u8])>) -> Values {
    values
        .filter(|(key, _)| keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.to_vec()))
        .collect()
}
