//! Every rule can fail, and fails only if it should.

use rstest::rstest;

use super::{MAX_LINES, MAX_STORY_LINES, STORIES, complaints, cycles, unchecked_features, unlisted};

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
#[case::the_shared_adapter("adapters/registry/token.rs", "use crate::adapters::network::egress::EgressPolicy;")]
#[case::pem_is_no_flag("domain/trust/key.rs", "const A: &str = \"expected '-----BEGIN PUBLIC KEY-----'\";")]
#[case::a_dash_is_no_flag("domain/a.rs", "const A: &str = \"first -- then --- and 'imagePullSecretsX'\";")]
#[case::a_field_in_a_comment("domain/a.rs", "/// `spec.image` of a PolicyImage, and '--flag'.\nstruct A;")]
#[case::a_field_in_a_program("operator/hints.rs", "const A: &str = \"set 'spec.verify'\";")]
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
#[case::an_adapter_from_the_shared_one(
    "adapters/network/egress.rs",
    "use crate::adapters::registry::Client;",
    "crate::adapters::registry::Client is another adapter"
)]
#[case::a_program_from_the_runtime(
    "runtime/health.rs",
    "use crate::operator::metrics::Metrics;",
    "crate::operator::metrics::Metrics is not below"
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
#[case("domain/a.rs", "use moka::future::Cache;", "moka")]
#[case("domain/a.rs", "#[derive(strum::Display)]\nenum A {}", "strum")]
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
#[case("runtime/a.rs", "use kube::Client;", "kube")]
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

#[rstest]
#[case::a_field("domain/a.rs", "const A: &str = \"set 'spec.verify'\";")]
#[case::a_field_of_the_status("domain/a.rs", "const A: &str = \"see status.bundle\";")]
#[case::a_field_without_its_path("adapters/registry/a.rs", "const A: &str = \"see 'imagePullSecrets'\";")]
#[case::a_flag("pipeline/a.rs", "#[error(\"see '--cache-dir'\")]\nstruct A;")]
#[case::a_flag_within_a_text("pipeline/a.rs", "#[error(\"see --cache-dir\")]\nstruct A;")]
#[case::a_secret("adapters/registry/a.rs", "const A: &str = \"the pull secret\";")]
fn a_message_of_a_shared_layer_names_no_field_or_flag(#[case] path: &str, #[case] text: &str) {
    let found = complaints(path, text);
    assert!(
        found.iter().any(|complaint| complaint.contains("only a program")),
        "{found:?}"
    );
}

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    cycles(&files.iter().map(owned).collect::<Vec<_>>())
}

#[test]
fn a_circle_of_imports_is_reported_once() {
    let two = [
        ("operator/a.rs", "use super::b::B;"),
        ("operator/b.rs", "use crate::operator::a::A;"),
    ];
    assert_eq!(circles(&two), ["operator::a -> operator::b -> operator::a"]);
    let three = [
        ("operator/run/a.rs", "use super::b::B;"),
        ("operator/run/b.rs", "use super::c::C;"),
        ("operator/run/c.rs", "use super::a::A;"),
    ];
    let expected = "operator::run::a -> operator::run::b -> operator::run::c -> operator::run::a";
    assert_eq!(circles(&three), [expected]);
    let through_a_folder = [
        ("operator/a.rs", "pub mod inner;"),
        ("operator/a/inner.rs", "use crate::operator::b::B;"),
        ("operator/b.rs", "use super::a::A;"),
    ];
    assert_eq!(
        circles(&through_a_folder),
        ["operator::a -> operator::b -> operator::a"]
    );
}

#[rstest]
#[case("pub")]
#[case("pub(crate)")]
#[case("pub(super)")]
#[case("pub(in crate::operator)")]
fn a_circle_is_seen_through_what_its_folder_re_exports(#[case] visibility: &str) {
    let re_exports = format!(
        "mod a;\nmod b;\n/// Because of b;\n{visibility} use self::a::{{A, Other}};\n    {visibility} use b::B;"
    );
    let files = [
        ("operator/run.rs", re_exports.as_str()),
        ("operator/run/a.rs", "use super::B;"),
        ("operator/run/b.rs", "use super::{A, Own};"),
    ];
    assert_eq!(
        circles(&files),
        ["operator::run::a -> operator::run::b -> operator::run::a"]
    );
}

#[test]
fn what_leads_only_down_is_no_circle() {
    let files = [
        ("operator/a.rs", "use super::b::B;\nuse self::inner::I;\npub mod inner;"),
        ("operator/a/inner.rs", "use super::A;\nuse crate::operator::b::B;"),
        ("operator/b.rs", "use super::c::C;\nfn a() { b() }"),
        ("operator/c.rs", "use crate::domain::digest::Digest;"),
    ];
    assert_eq!(circles(&files), Vec::<String>::new());
}

#[test]
fn a_feature_that_is_not_checked_alone_is_found() {
    let manifest = "[features]\ndefault = [\"b\"]\n# words = none\na = [\n  \"dep:x\",\n]\nb = [\"a\"]\n\n[dependencies]\nx = \"1\"\n";
    let all = "\tcargo check --quiet --lib --no-default-features\n\tcargo check --quiet --lib --no-default-features --features a\n";
    assert_eq!(unchecked_features(manifest, all), ["b"]);
    assert_eq!(unchecked_features(manifest, ""), ["a", "b", "no feature"]);
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
fn a_story_stays_on_one_screen_and_its_words_do_not_count() {
    let story = format!(
        "//! Words.\n\nuse crate::domain::digest::Digest;\n{}",
        "    step();\n".repeat(MAX_STORY_LINES)
    );
    for path in STORIES {
        assert_eq!(complaints(path, &story), Vec::<String>::new());
        assert_eq!(complaints(path, &format!("{story}    step();\n")).len(), 1);
    }
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
