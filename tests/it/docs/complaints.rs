//! Each rule about the documentation, complaining.

use std::collections::BTreeSet;
use std::path::Path;

use super::{blocks, broken_links, differences, families, flags, listed, reasons, refusal, section};

fn without(names: &BTreeSet<String>, name: &str) -> BTreeSet<String> {
    assert!(names.contains(name), "{names:?}");
    names.iter().filter(|other| *other != name).cloned().collect()
}

#[test]
fn what_is_not_listed_is_missed() {
    let cases = [
        (reasons(), "Unsigned"),
        (flags("run").0, "--cache-size"),
        (flags("run").1, "POLICY_OPERATOR_CACHE_SIZE"),
        (flags("render").0, "--status"),
        (families(), "policy_operator_panics_total"),
    ];
    for (existing, name) in cases {
        assert_eq!(
            differences(&without(&existing, name), &existing),
            [format!("'{name}' is missing")]
        );
    }
}

#[test]
fn what_does_not_exist_is_unknown() {
    let page = "\n## Reasons\n\n| Reason | Meaning |\n|---|---|\n| `Unsigned` | `no` |\n| `Unsinged` | no |\n\n## Events\n| `Event` |\n";
    let listed = listed(section(page, "## Reasons"), 0);
    let existing = BTreeSet::from(["Unsigned".to_owned()]);
    assert_eq!(differences(&listed, &existing), ["'Unsinged' is unknown"]);
}

#[test]
fn a_manifest_with_a_field_that_does_not_exist_is_refused() {
    let page = "text\n```sh\nls\n```\n```yaml\napiVersion: opcr.io/v1alpha1\nkind: PolicyImage\nmetadata: { name: a }\nspec: { image: a, verfy: {} }\n```\n";
    let found = blocks(page, "yaml");
    assert_eq!(found.len(), 1);
    let refused = refusal(&found[0]).expect("refused");
    assert!(refused.contains("unknown fields: spec.verfy"), "{refused}");
}

#[test]
fn a_link_to_nothing_is_broken() {
    let text = "[a](../README.md) [b](nothing.md) [c](#events) [d](#nothing) [e](https://acme.example/x) [f](operations.md#limits)";
    assert_eq!(
        broken_links(Path::new("docs/policyimage.md"), text),
        ["nothing.md", "#nothing"]
    );
}
