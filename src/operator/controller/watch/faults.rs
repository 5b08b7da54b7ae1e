//! Objects of which a part cannot be read: counted, and logged once each.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::operator::identity::{NamespacedName, is_identified};
use crate::operator::metrics::{Metrics, WatchedKind};

pub(super) use crate::operator::metrics::UnreadablePart as Part;

/// Most objects that are remembered as reported. Above it all are forgotten, and reported again: better than to grow.
const MAX_REPORTED: usize = 10_000;

/// What one watch has reported already.
pub(super) struct Faults {
    kind: WatchedKind,
    metrics: Arc<Metrics>,
    reported: HashMap<NamespacedName, Part>,
}

impl Faults {
    pub(super) fn new(kind: WatchedKind, metrics: Arc<Metrics>) -> Self {
        Self {
            kind,
            metrics,
            reported: HashMap::new(),
        }
    }

    /// Records which part of an object cannot be read, and returns whether the rest can be used.
    pub(super) fn note<'a>(&mut self, metadata: &'a ObjectMeta, fault: Option<Part>, gone: bool) -> bool {
        let identified = is_identified(metadata);
        let fault = if identified { fault } else { Some(Part::Metadata) };
        // Those without a name share one entry: there is no telling them apart.
        let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default();
        let object = NamespacedName::new(text(&metadata.namespace), text(&metadata.name));
        match fault.filter(|_| !gone) {
            None if self.reported.is_empty() => {}
            None => drop(self.reported.remove(&object)),
            Some(part) => self.report(object, part),
        }
        identified
    }

    fn report(&mut self, object: NamespacedName, part: Part) {
        if self.reported.get(&object) == Some(&part) {
            return;
        }
        let (kind, unreadable) = (<&str>::from(self.kind), <&str>::from(part));
        tracing::warn!(
            kind,
            namespace = %object.namespace,
            name = %object.name,
            unreadable,
            "a part of an object cannot be read and is ignored"
        );
        self.metrics.unreadable(self.kind, part);
        if self.reported.len() >= MAX_REPORTED {
            self.reported.clear();
        }
        self.reported.insert(object, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectMeta {
        let text = |text: &str| Some(text.to_owned());
        ObjectMeta {
            name: text(name),
            namespace: text("acme"),
            uid: text("1"),
            resource_version: text("1"),
            ..ObjectMeta::default()
        }
    }

    fn count(faults: &Faults) -> usize {
        let text = faults.metrics.encode().expect("metrics");
        let samples = text
            .lines()
            .filter_map(|line| line.strip_prefix("policy_operator_unreadable_objects_total{"));
        samples
            .filter_map(|sample| sample.rsplit_once(' ')?.1.parse::<usize>().ok())
            .sum()
    }

    #[test]
    fn an_object_is_reported_once_until_it_is_repaired_or_deleted() {
        let mut faults = Faults::new(WatchedKind::PolicyImages, Arc::new(Metrics::new()));
        for _ in 0..3 {
            assert!(
                faults.note(&object("app"), Some(Part::Status), false),
                "the rest can be used"
            );
        }
        assert_eq!(count(&faults), 1);
        faults.note(&object("app"), Some(Part::Spec), false);
        assert_eq!(count(&faults), 2, "another part");
        faults.note(&object("app"), None, false);
        faults.note(&object("app"), Some(Part::Spec), false);
        assert_eq!(count(&faults), 3, "repaired in between");
        faults.note(&object("app"), Some(Part::Spec), true);
        assert_eq!(count(&faults), 3, "deleted");
        assert!(faults.reported.is_empty(), "and forgotten");
    }

    #[test]
    fn an_object_without_an_identity_cannot_be_used() {
        let mut faults = Faults::new(WatchedKind::ConfigMaps, Arc::new(Metrics::new()));
        for _ in 0..2 {
            assert!(!faults.note(&ObjectMeta::default(), None, false));
        }
        assert_eq!(count(&faults), 1);
    }

    #[test]
    fn no_number_of_objects_makes_the_memory_grow_without_end() {
        let mut faults = Faults::new(WatchedKind::PolicyImages, Arc::new(Metrics::new()));
        for number in 0..=MAX_REPORTED {
            faults.note(&object(&number.to_string()), Some(Part::Status), false);
        }
        assert!(faults.reported.len() <= MAX_REPORTED, "{}", faults.reported.len());
    }
}
