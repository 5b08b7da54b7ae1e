//! Every rule can fail, and fails only where it should.

use rstest::rstest;

use super::{MAX_LINES, MAX_RECONCILE_LINES, complaints, unlisted};

#[rstest]
#[case::downwards(
    "operator/leader.rs",
    "use crate::pipeline::ports::Registry;\nuse crate::domain::digest::Digest;"
)]
#[case::inside_a_layer("domain/access.rs", "use super::digest::Digest;\nuse crate::domain::reference::Tag;")]
#[case::inside_an_adapter(
    "adapters/registry/token.rs",
    "use super::Endpoint; use crate::adapters::registry::Blob;"
)]
#[case::adapters_listed("adapters.rs", "pub mod registry;\npub use self::registry::Client;")]
#[case::a_program("bin/policy-operator.rs", "use policy_operator::operator::run;")]
#[case::in_a_comment(
    "domain/digest.rs",
    "// use crate::operator::leader;\n/* tokio */ /// std::fs\nstruct A;"
)]
#[case::in_a_text(
    "domain/digest.rs",
    "const A: &str = \"tokio \\\" std::fs\"; const B: &str = r#\"async \" await\"#;"
)]
#[case::lifetimes_are_not_quotes("domain/digest.rs", "fn a<'a>(a: &'a str) -> char { 'x' } // 'tokio'")]
#[case::in_tests("domain/digest.rs", "struct A;\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}")]
#[case::in_a_test_file("domain/digest/tests.rs", "use std::fs;")]
#[case::part_of_a_word("domain/digest.rs", "fn asynchronous(instant: Instants) {}")]
fn what_is_right_passes(#[case] path: &str, #[case] text: &str) {
    assert_eq!(complaints(path, text), Vec::<String>::new());
}

#[rstest]
#[case::upwards(
    "domain/digest.rs",
    "use crate::pipeline::ports::Registry;",
    "crate::pipeline::ports::Registry is not below"
)]
#[case::upwards_in_a_tree(
    "pipeline/acquire.rs",
    "use crate::{domain::digest, adapters::{git, registry}};",
    "crate::adapters::git is not below"
)]
#[case::upwards_in_a_call(
    "pipeline/acquire.rs",
    "fn a() { crate::operator::leader::identity(\"\") }",
    "crate::operator::leader::identity is not below"
)]
#[case::upwards_by_super(
    "pipeline/acquire.rs",
    "use super::super::adapters::git;",
    "crate::adapters::git is not below"
)]
#[case::after_a_test_module_file(
    "domain/a.rs",
    "#[cfg(test)]\nmod tests;\nuse crate::operator::leader;",
    "crate::operator::leader is not below"
)]
#[case::beside(
    "cli/push.rs",
    "use crate::operator::leader;",
    "crate::operator::leader is not below"
)]
#[case::another_adapter(
    "adapters/git.rs",
    "use crate::adapters::registry::Client;",
    "crate::adapters::registry::Client is another adapter"
)]
#[case::another_adapter_by_super(
    "adapters/git.rs",
    "use super::registry::Client;",
    "crate::adapters::registry::Client is another adapter"
)]
#[case::another_adapter_from_inside(
    "adapters/git/fetch.rs",
    "use super::super::registry::Client;",
    "crate::adapters::registry::Client is another adapter"
)]
#[case::no_layer(
    "domain/digest.rs",
    "use crate::helpers::Thing;",
    "crate::helpers::Thing is in no layer"
)]
#[case::file_in_no_layer("helpers.rs", "struct A;", "is in no layer")]
fn a_wrong_import_is_named(#[case] path: &str, #[case] text: &str, #[case] expected: &str) {
    let found = complaints(path, text);
    assert!(found.iter().any(|complaint| complaint.contains(expected)), "{found:?}");
}

#[rstest]
#[case("domain/a.rs", "pub async fn a() {}", "async")]
#[case("domain/a.rs", "fn a() { tokio::spawn(x) }", "tokio")]
#[case("domain/a.rs", "use std::fs::File;", "std::fs")]
#[case("domain/a.rs", "use std::{fmt, fs};", "std::fs")]
#[case("domain/a.rs", "use std::net::TcpStream;", "std::net")]
#[case("domain/a.rs", "fn a() { std::env::var(\"A\"); }", "std::env")]
#[case("domain/a.rs", "use std::time::SystemTime;", "SystemTime")]
#[case("domain/a.rs", "use std::time; fn a() { time::Instant::now(); }", "Instant")]
#[case("pipeline/a.rs", "fn a(client: reqwest::Client) {}", "reqwest")]
#[case("pipeline/a.rs", "use kube::Client;", "kube")]
#[case("pipeline/a.rs", "use std::fs;", "std::fs")]
#[case("pipeline/a.rs", "use tokio::{fs, sync};", "tokio::fs")]
#[case("adapters/a.rs", "use kube::Client;", "kube")]
#[case("cli/a.rs", "use kube::Client;", "kube")]
#[case("sidecar/a.rs", "use k8s_openapi::api;", "k8s_openapi")]
fn a_forbidden_name_is_named(#[case] path: &str, #[case] text: &str, #[case] name: &str) {
    let found = complaints(path, text);
    assert!(
        found
            .iter()
            .any(|complaint| complaint.contains(&format!("names {name}, which"))),
        "{found:?}"
    );
}

#[test]
fn a_long_file_is_refused_and_its_tests_do_not_count() {
    let code = "struct A;\n".repeat(MAX_LINES);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // more\n".repeat(MAX_LINES));
    assert_eq!(
        complaints("domain/a.rs", &format!("{code}{tests}")),
        Vec::<String>::new()
    );
    assert_eq!(complaints("domain/a.rs", &format!("{code}struct B;\n")).len(), 1);
}

#[test]
fn reconcile_stays_on_one_screen_and_its_words_do_not_count() {
    let story = format!("//! Words.\n\n{}", "    step();\n".repeat(MAX_RECONCILE_LINES));
    assert_eq!(complaints("operator/reconcile.rs", &story), Vec::<String>::new());
    assert_eq!(
        complaints("operator/reconcile.rs", &format!("{story}    step();\n")).len(),
        1
    );
    assert_eq!(
        complaints("operator/other.rs", &format!("{story}    step();\n")).len(),
        0
    );
}

#[test]
fn a_test_file_that_is_not_listed_is_found() {
    let files = ["main", "layers", "forgotten"].map(str::to_owned);
    assert_eq!(unlisted("mod layers;\n// mod forgotten;\n", &files), ["forgotten"]);
}
