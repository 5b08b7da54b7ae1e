use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One request of the operator, as the API server's audit log has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditEntry {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// The plural of the kind, with the subresource if there is one: `policyimages/status`. The path of the request
    /// if there is no resource.
    pub resource: String,
    /// The namespace; empty for a request across all, or for a resource that has none.
    pub namespace: String,
    /// The object's name; empty for lists and some creations.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u64,
}

impl AuditEntry {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// The requests in an audit log, in order.
pub(super) fn read(path: &Path) -> Result<Vec<AuditEntry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    // A watch is written when it starts and when it ends.
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    // The last line may be half written.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in complete.lines() {
        let event: Value = serde_json::from_str(line)?;
        if seen.insert(text_at(&event, "/auditID")) {
            entries.push(entry(&event));
        }
    }
    Ok(entries)
}

fn entry(event: &Value) -> AuditEntry {
    let resource = match (
        text_at(event, "/objectRef/resource"),
        text_at(event, "/objectRef/subresource"),
    ) {
        (resource, _) if resource.is_empty() => text_at(event, "/requestURI"),
        (resource, subresource) if subresource.is_empty() => resource,
        (resource, subresource) => format!("{resource}/{subresource}"),
    };
    AuditEntry {
        verb: text_at(event, "/verb"),
        resource,
        namespace: text_at(event, "/objectRef/namespace"),
        name: text_at(event, "/objectRef/name"),
        code: event
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
    }
}

fn text_at(event: &Value, pointer: &str) -> String {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
