//! Turns a spec and the values it names into a [`Plan`]. After this step the spec cannot be wrong any more.

mod bounds;
mod duration;

use std::time::Duration;

use super::dereference::References;
use crate::domain::access::credentials::MAX_DOCKER_CONFIG_ENTRIES;
use crate::domain::access::{ClientCertificate, Keyring, KeyringError, RegistryAccess, Secret, TransportSettings};
use crate::domain::reference::{ImageReference, ReferenceError};
use crate::domain::source::{ImageSource, Source, SourceError};
use crate::domain::trust::{Authority, PublicKey, PublicKeyError, TrustPolicy, TrustPolicyError};
use crate::operator::api::spec::{ConfigMapDeliverySpec, MAX_SPEC_BYTES, PolicyImage, UnreadableSpec, Verify};
use crate::operator::delivery::{ConfigMapDelivery, Delivery};
use crate::operator::hints;
use crate::operator::identity::{MissingField, ObjectKey};
use crate::pipeline::reason::{Classify, Disposition, Reason};
pub use duration::{MAX_TIMEOUT, deadline, interval_or_default, parse_max_timeout};
use duration::{interval, timeout};

/// Namespaces in which nothing is delivered: what runs there runs the cluster.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What one run is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to follow.
    pub source: Source,
    /// Which signatures it must have.
    pub trust: TrustPolicy,
    /// Where the bundle goes.
    pub deliveries: Vec<Delivery>,
}

impl Plan {
    /// The largest bundle that any of the deliveries could take, in bytes.
    #[must_use]
    pub fn largest_bundle(&self) -> u64 {
        let each = self.deliveries.iter().map(Delivery::largest_bundle);
        each.max().unwrap_or_default()
    }
}

/// What the operator's administrator decided for all objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorOptions {
    /// Objects without `spec.verify` are refused.
    pub require_verification: bool,
    /// No run takes longer, whatever its `spec.timeout` says.
    pub max_timeout: Duration,
}

impl Default for OperatorOptions {
    fn default() -> Self {
        Self {
            require_verification: false,
            max_timeout: MAX_TIMEOUT,
        }
    }
}

/// Why a spec cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidateError {
    /// The object has no namespace, name or UID: not from an API server.
    #[error(transparent)]
    FindIdentity(#[from] MissingField),
    /// The whole spec.
    #[error(
        "{field} cannot be read by this version of the operator{}; compare the spec with `policy-operator crd`, which prints the schema of this version",
        missing.as_ref().map_or_else(String::new, |missing| format!(": '{missing}' is missing"))
    )]
    ReadSpec {
        /// The field in which decoding failed.
        field: String,
        /// What is missing.
        missing: Option<String>,
    },
    /// Over [`MAX_SPEC_BYTES`].
    #[error(
        "the spec has more than {} KiB; put keys into a Secret or ConfigMap, and shorten labels and annotations",
        MAX_SPEC_BYTES >> 10
    )]
    LimitSpec,
    /// `spec.image`.
    #[error("spec.image: {0}")]
    ParseImage(ReferenceError),
    /// `spec.semver`.
    #[error("spec.semver: {0}")]
    ParseSource(SourceError),
    /// `spec.interval` or `spec.timeout`.
    #[error("{field} '{value}' is not a duration between {low} and {high}, such as '90s' or '1h30m'")]
    ParseDuration {
        /// The field.
        field: &'static str,
        /// What was written.
        value: String,
        /// The least that is allowed.
        low: &'static str,
        /// The most that is allowed.
        high: &'static str,
    },
    /// `spec.timeout` is longer than `spec.interval`.
    #[error("spec.timeout must not be longer than spec.interval")]
    CompareTimeout,
    /// `spec.tls` beside `spec.insecure`.
    #[error("spec.insecure means plain HTTP, which uses no certificates; remove 'tls' or 'insecure'")]
    CombineInsecure,
    /// A field is not what the schema allows, and no API server has said so.
    #[error("{field} {fault}")]
    SchemaViolation {
        /// The field.
        field: &'static str,
        /// What is wrong, and what is right.
        fault: &'static str,
    },
    /// A pull secret is broken.
    #[error("key '.dockerconfigjson' of Secret '{name}': {source}")]
    ReadPullSecret {
        /// The Secret.
        name: String,
        /// What is wrong with it.
        source: KeyringError,
    },
    /// A key is broken.
    #[error("the key of authority '{authority}': {source}")]
    ReadKey {
        /// The authority.
        authority: String,
        /// What is wrong with it.
        source: PublicKeyError,
    },
    /// The authorities do not form a policy.
    #[error("spec.verify: {0}")]
    CombineAuthorities(TrustPolicyError),
    /// The administrator requires `spec.verify`.
    #[error("this operator delivers verified policies only ('--require-verification'); set 'spec.verify'")]
    RequireVerification,
    /// The namespace belongs to Kubernetes.
    #[error("nothing is delivered to namespace '{0}', which belongs to Kubernetes; use a namespace of your own")]
    DeliverToSystem(String),
    /// The ConfigMap belongs to Kubernetes.
    #[error("ConfigMap '{0}' belongs to Kubernetes; choose another 'spec.delivery.configMap.name'")]
    DeliverToReserved(String),
}

impl ValidateError {
    /// What can be done about a fact of the domain. The operator's own messages say it themselves.
    #[must_use]
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ParseImage(error) => hints::of_reference(error),
            Self::ReadKey { source, .. } => hints::of_key(source),
            Self::CombineAuthorities(error) => hints::of_trust_policy(error),
            _ => None,
        }
    }
}

impl Classify for ValidateError {
    fn reason(&self) -> Reason {
        match self {
            Self::ReadPullSecret { .. } | Self::ReadKey { .. } => Reason::ReferenceInvalid,
            Self::RequireVerification => Reason::VerificationRequired,
            Self::DeliverToSystem(_) | Self::DeliverToReserved(_) => Reason::NotOwned,
            Self::FindIdentity(_)
            | Self::ReadSpec { .. }
            | Self::LimitSpec
            | Self::ParseImage(_)
            | Self::ParseSource(_)
            | Self::ParseDuration { .. }
            | Self::CompareTimeout
            | Self::CombineInsecure
            | Self::SchemaViolation { .. }
            | Self::CombineAuthorities(_) => Reason::InvalidSpec,
        }
    }

    fn disposition(&self) -> Disposition {
        Disposition::Stalled
    }
}

/// Makes the plan.
///
/// # Errors
/// [`ValidateError`] for the first thing that is wrong.
pub fn validate(
    object: &PolicyImage,
    references: &References,
    options: OperatorOptions,
) -> Result<Plan, ValidateError> {
    let spec = &object.spec;
    match &spec.unreadable {
        None => {}
        Some(UnreadableSpec::TooLarge) => return Err(ValidateError::LimitSpec),
        Some(UnreadableSpec::Field { field, missing }) => {
            let (field, missing) = (field.clone(), missing.clone());
            return Err(ValidateError::ReadSpec { field, missing });
        }
    }
    if spec.insecure && spec.tls.is_some() {
        return Err(ValidateError::CombineInsecure);
    }
    bounds::check(spec)?;
    let image: ImageReference = spec.image.parse().map_err(ValidateError::ParseImage)?;
    interval(spec)?;
    timeout(spec)?;
    Ok(Plan {
        source: Source::Image(
            ImageSource::new(&image, spec.semver.as_deref(), access(object, &image, references)?)
                .map_err(ValidateError::ParseSource)?,
        ),
        trust: trust(spec.verify.as_ref(), references, options)?,
        deliveries: vec![Delivery::ConfigMap(config_map(object)?)],
    })
}

fn access(
    object: &PolicyImage,
    image: &ImageReference,
    references: &References,
) -> Result<RegistryAccess, ValidateError> {
    let mut keyring = Keyring::default();
    let mut entries = 0;
    for (name, json) in &references.pull_secrets {
        let failed = |source| ValidateError::ReadPullSecret {
            name: name.clone(),
            source,
        };
        let mut read = Keyring::from_docker_config(json).map_err(failed)?;
        entries += read.len();
        if entries > MAX_DOCKER_CONFIG_ENTRIES {
            return Err(failed(KeyringError::LimitEntries));
        }
        read.retain_candidates(image.repository());
        keyring.extend(read);
    }
    keyring.retain_candidates(image.repository());
    let certificate = references.client_certificate.as_ref();
    Ok(RegistryAccess {
        tenant: object.metadata.namespace.as_deref().unwrap_or_default().into(),
        keyring,
        transport: TransportSettings {
            authorities_pem: references.authority_certificates.clone(),
            client_certificate: certificate.map(|(chain, key)| ClientCertificate {
                chain_pem: chain.clone(),
                key_pem: Secret::new(key.clone()),
            }),
            insecure: object.spec.insecure,
        },
    })
}

fn trust(
    verify: Option<&Verify>,
    references: &References,
    options: OperatorOptions,
) -> Result<TrustPolicy, ValidateError> {
    let Some(verify) = verify else {
        return if options.require_verification {
            Err(ValidateError::RequireVerification)
        } else {
            Ok(TrustPolicy::NotConfigured)
        };
    };
    let mut authorities = Vec::with_capacity(verify.authorities.len());
    for authority in &verify.authorities {
        let pem = references.keys.get(&authority.name).ok_or(bounds::NO_KEY)?;
        let keys = PublicKey::from_pem(pem).map_err(|source| ValidateError::ReadKey {
            authority: authority.name.clone(),
            source,
        })?;
        authorities.push(Authority {
            name: authority.name.clone(),
            keys,
        });
    }
    // A negative number is refused by the schema; as zero it is refused here.
    let minimum_matches = usize::try_from(verify.minimum_matches).unwrap_or_default();
    TrustPolicy::signed_by(authorities, minimum_matches).map_err(ValidateError::CombineAuthorities)
}

/// The ConfigMap that the bundle of `object` goes to.
fn config_map(object: &PolicyImage) -> Result<ConfigMapDelivery, ValidateError> {
    let owner = ObjectKey::of(&object.metadata)?;
    let delivery = object
        .spec
        .delivery
        .as_ref()
        .and_then(|delivery| delivery.config_map.clone());
    let ConfigMapDeliverySpec {
        name,
        key,
        labels,
        annotations,
    } = delivery.unwrap_or_default();
    let name = name.unwrap_or_else(|| format!("{}-bundle", owner.name()));
    if SYSTEM_NAMESPACES.contains(&owner.namespace()) {
        return Err(ValidateError::DeliverToSystem(owner.namespace().to_owned()));
    }
    if name == "kube-root-ca.crt" {
        return Err(ValidateError::DeliverToReserved(name));
    }
    bounds::check_target(&name, &key)?;
    Ok(ConfigMapDelivery {
        owner,
        name,
        key,
        labels,
        annotations,
    })
}

#[cfg(test)]
mod tests;
