//! A PolicyImage as the watch reads it: part by part.

use std::borrow::Cow;
use std::io;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::faults::Part;
use crate::operator::api::spec::{MAX_SPEC_BYTES, PolicyImage, PolicyImageSpec, UnreadableSpec};
use crate::operator::api::status::PolicyImageStatus;
use crate::operator::received::{Body, Received};

/// Most bytes of a status as JSON, a multiple of what is ever written. Whoever may write status must not fill the memory
/// with it: a larger one is as if it had never been written.
const MAX_STATUS_BYTES: usize = 128 << 10;

/// A PolicyImage, and which part of it could not be read.
#[derive(Deserialize, Debug, Clone)]
#[serde(from = "Received<PolicyImage, Parts>")]
pub(super) struct WatchedPolicyImage {
    pub(super) object: PolicyImage,
    pub(super) fault: Option<Part>,
}

#[derive(Deserialize, Clone)]
pub(super) struct Parts {
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl Body for Parts {}

impl From<Received<PolicyImage, Parts>> for WatchedPolicyImage {
    fn from(received: Received<PolicyImage, Parts>) -> Self {
        let Parts { spec, status } = received.body;
        let (spec, status) = (read_spec(spec), Status::read(status));
        let fault = if spec.unreadable.is_some() {
            Some(Part::Spec)
        } else {
            status.fault
        };
        Self {
            object: PolicyImage {
                metadata: received.metadata,
                spec,
                status: status.status,
            },
            fault,
        }
    }
}

impl Resource for WatchedPolicyImage {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic_type: &()) -> Cow<'_, str> {
        PolicyImage::kind(dynamic_type)
    }

    fn group(dynamic_type: &()) -> Cow<'_, str> {
        PolicyImage::group(dynamic_type)
    }

    fn version(dynamic_type: &()) -> Cow<'_, str> {
        PolicyImage::version(dynamic_type)
    }

    fn plural(dynamic_type: &()) -> Cow<'_, str> {
        PolicyImage::plural(dynamic_type)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.object.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.object.metadata
    }
}

/// A spec that the schema admits can be read, but the installed schema may be that of another version.
fn read_spec(spec: Value) -> PolicyImageSpec {
    if !fits(&spec, MAX_SPEC_BYTES) {
        return PolicyImageSpec::unreadable(UnreadableSpec::TooLarge);
    }
    let read: Result<PolicyImageSpec, _> = serde_path_to_error::deserialize(spec);
    read.unwrap_or_else(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            "spec".to_owned()
        } else {
            format!("spec.{path}")
        };
        // What is missing is named by a word of ours. Any other complaint would quote what was found, which could be a
        // private key in the wrong place.
        let cause = error.inner().to_string();
        let missing = cause
            .strip_prefix("missing field ")
            .map(|rest| rest.split('`').nth(1).unwrap_or_default().to_owned());
        PolicyImageSpec::unreadable(UnreadableSpec::Field { field, missing })
    })
}

/// A status of which the parts that cannot be read are left out. Nothing is decided by it alone, and the next run writes
/// what is missing.
struct Status {
    status: Option<PolicyImageStatus>,
    fault: Option<Part>,
}

impl Status {
    fn read(status: Value) -> Self {
        let is_absent = status.is_null();
        let fields = Some(status).filter(|status| fits(status, MAX_STATUS_BYTES));
        let Some(Value::Object(mut fields)) = fields else {
            return Self {
                status: None,
                fault: (!is_absent).then_some(Part::Status),
            };
        };
        let mut fault = None;
        let status = PolicyImageStatus {
            observed_generation: part(&mut fields, "observedGeneration", &mut fault),
            conditions: Self::conditions(fields.remove("conditions"), &mut fault),
            source: part(&mut fields, "source", &mut fault),
            bundle: part(&mut fields, "bundle", &mut fault),
            verification: part(&mut fields, "verification", &mut fault),
            delivery: part(&mut fields, "delivery", &mut fault),
            last_handled_reconcile_at: part(&mut fields, "lastHandledReconcileAt", &mut fault),
        };
        Self {
            status: Some(status),
            fault,
        }
    }

    /// Each by itself: one whose time cannot be read is as if it had never been written.
    fn conditions<T: DeserializeOwned>(conditions: Option<Value>, fault: &mut Option<Part>) -> Vec<T> {
        let Some(Value::Array(conditions)) = conditions else {
            return Vec::new();
        };
        let read = |condition| {
            let read = serde_json::from_value(condition).ok();
            if read.is_none() {
                *fault = Some(Part::Status);
            }
            read
        };
        conditions.into_iter().filter_map(read).collect()
    }
}

/// Whether `value` has at most `limit` bytes as JSON.
fn fits(value: &Value, limit: usize) -> bool {
    struct Budget(usize);
    impl io::Write for Budget {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Budget(limit), value).is_ok()
}

fn part<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str, fault: &mut Option<Part>) -> Option<T> {
    let value = fields.remove(name).filter(|value| !value.is_null())?;
    let read = serde_json::from_value(value).ok();
    if read.is_none() {
        *fault = Some(Part::Status);
    }
    read
}
