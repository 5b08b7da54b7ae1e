//! Objects of which a part cannot be read: counted, and logged once each.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::operator::metrics::{Metrics, Watched};
use crate::operator::received::is_identified;

pub(super) use crate::operator::metrics::UnreadablePart as Part;

/// Most objects that are remembered as told of. Above it all are forgotten, and told of again: better than to grow.
const MAX_TOLD: usize = 10_000;

/// What one watch has told of already.
pub(super) struct Faults {
    kind: Watched,
    metrics: Arc<Metrics>,
    told: HashMap<(String, String), Part>,
}

impl Faults {
    pub(super) fn new(kind: Watched, metrics: Arc<Metrics>) -> Self {
        Self {
            kind,
            metrics,
            told: HashMap::new(),
        }
    }

    /// Notes what of an object cannot be read, and answers whether anything can be done with the rest.
    pub(super) fn note(&mut self, metadata: &ObjectMeta, fault: Option<Part>, gone: bool) -> bool {
        let identified = is_identified(metadata);
        let fault = if identified { fault } else { Some(Part::Metadata) };
        let key = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        match fault.filter(|_| !gone) {
            None if self.told.is_empty() => {}
            None => drop(self.told.remove(&key)),
            Some(part) => self.tell(key, part),
        }
        identified
    }

    fn tell(&mut self, key: (String, String), part: Part) {
        if self.told.get(&key) == Some(&part) {
            return;
        }
        let (namespace, name) = &key;
        let (kind, unreadable) = (<&str>::from(self.kind), <&str>::from(part));
        tracing::warn!(
            kind,
            namespace,
            name,
            unreadable,
            "a part of an object cannot be read and is passed over"
        );
        self.metrics.unreadable(self.kind, part);
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        self.told.insert(key, part);
    }
}
