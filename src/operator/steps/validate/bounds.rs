//! The rules of the schema, once more.
//!
//! An API server has checked them already, but `render` reads files that none has seen, and a cluster may still have
//! the CRD of an older release. What one refuses the other refuses too; tests compare the two.

use std::collections::BTreeMap;

use super::ValidateError;
use crate::operator::api::grammar::{is_authority_name, is_data_key, is_label_value, is_metadata_key, is_object_name};
use crate::operator::api::spec::{ConfigMapDeliverySpec, KeyReference, KeySource, PolicyImageSpec, Tls, Verify};
use crate::operator::api::{GROUP, MANAGED_BY_LABEL};

type Checked = Result<(), ValidateError>;

/// An authority whose key is nowhere, or in more than one place.
pub(super) const NO_KEY: ValidateError = ValidateError::SchemaViolation {
    field: "spec.verify.authorities.key",
    fault: "must have exactly one of data, secretRef and configMapRef",
};

/// Checks what no type of the [`Plan`](super::Plan) checks by itself.
pub(super) fn check(spec: &PolicyImageSpec) -> Checked {
    require(
        "spec.image",
        "has more than 512 characters",
        spec.image.chars().count() <= 512,
    )?;
    let range = spec.semver.as_deref().unwrap_or_default();
    require(
        "spec.semver",
        "has more than 128 characters",
        range.chars().count() <= 128,
    )?;
    require(
        "spec.imagePullSecrets",
        "has more than 16 entries",
        spec.image_pull_secrets.len() <= 16,
    )?;
    spec.tls.as_ref().map_or(Ok(()), check_tls)?;
    spec.verify.as_ref().map_or(Ok(()), check_verify)?;
    let delivery = spec.delivery.as_ref().and_then(|delivery| delivery.config_map.as_ref());
    delivery.map_or(Ok(()), check_delivery)
}

/// Checks where the bundle goes.
pub(super) fn check_target(name: &str, key: &str) -> Checked {
    let name_fault = "is not the name of a ConfigMap: at most 253 of a-z, 0-9, '-' and '.'; by default it is metadata.name with '-bundle' appended";
    require("spec.delivery.configMap.name", name_fault, is_object_name(name))?;
    let key_fault =
        "is not at most 253 of letters, digits, '-', '_' and '.', other than '.' and not starting with '..'";
    let key_valid = is_data_key(key) && key != "." && !key.starts_with("..");
    require("spec.delivery.configMap.key", key_fault, key_valid)
}

fn check_tls(tls: &Tls) -> Checked {
    let one = tls.ca_ref.is_some() || tls.cert_secret_ref.is_some();
    require("spec.tls", "is empty; set caRef or certSecretRef, or remove tls", one)?;
    let Some(authority) = &tls.ca_ref else { return Ok(()) };
    let (secret, config_map) = (&authority.secret_ref, &authority.config_map_ref);
    require(
        "spec.tls.caRef",
        "must have exactly one of secretRef and configMapRef",
        secret.is_some() != config_map.is_some(),
    )?;
    secret
        .iter()
        .chain(config_map)
        .try_for_each(|reference| check_key("spec.tls.caRef", reference))
}

fn check_verify(verify: &Verify) -> Checked {
    for authority in &verify.authorities {
        let fault = "is not at most 63 of a-z, 0-9 and inner '-'";
        require(
            "spec.verify.authorities.name",
            fault,
            is_authority_name(&authority.name),
        )?;
        let field = "spec.verify.authorities.key";
        let KeySource {
            data,
            secret_ref,
            config_map_ref,
        } = &authority.key;
        let sources = [data.is_some(), secret_ref.is_some(), config_map_ref.is_some()];
        let one = sources.iter().filter(|set| **set).count() == 1;
        if !one {
            return Err(NO_KEY);
        }
        let short = data.as_ref().is_none_or(|data| data.chars().count() <= 16_384);
        require(
            "spec.verify.authorities.key.data",
            "has more than 16384 characters",
            short,
        )?;
        secret_ref
            .iter()
            .chain(config_map_ref)
            .try_for_each(|reference| check_key(field, reference))?;
    }
    Ok(())
}

fn check_key(field: &'static str, reference: &KeyReference) -> Checked {
    require(
        field,
        "has a key that is not at most 253 of letters, digits, '-', '_' and '.'",
        is_data_key(&reference.key),
    )
}

fn check_delivery(delivery: &ConfigMapDeliverySpec) -> Checked {
    let (labels, annotations) = ("spec.delivery.configMap.labels", "spec.delivery.configMap.annotations");
    check_map(labels, &delivery.labels)?;
    check_map(annotations, &delivery.annotations)?;
    let fault =
        "have a value that is not at most 63 of letters, digits, '-', '_' and '.' with a letter or digit at both ends";
    require(
        labels,
        fault,
        delivery.labels.values().all(|value| is_label_value(value)),
    )?;
    let short = delivery.annotations.values().all(|value| value.chars().count() <= 4096);
    require(annotations, "have a value of more than 4096 characters", short)
}

fn check_map(field: &'static str, map: &BTreeMap<String, String>) -> Checked {
    require(field, "have more than 32 entries", map.len() <= 32)?;
    let fault =
        "have a key that is not an optional DNS prefix and '/', and at most 63 letters, digits, '-', '_' and '.'";
    require(field, fault, map.keys().all(|key| is_metadata_key(key)))?;
    let ours = |key: &String| key == MANAGED_BY_LABEL || key.split_once('/').is_some_and(|(prefix, _)| prefix == GROUP);
    require(
        field,
        "have a key of opcr.io or app.kubernetes.io/managed-by, which the operator sets; remove it",
        !map.keys().any(ours),
    )
}

fn require(field: &'static str, fault: &'static str, satisfied: bool) -> Checked {
    if satisfied {
        Ok(())
    } else {
        Err(ValidateError::SchemaViolation { field, fault })
    }
}
