//! Shows the main job on real programs: a signed policy image becomes the policy of a real OPA, and an unsigned one
//! does not.
//!
//! Runs until Ctrl-C after that, for hacking by hand; with `DEMO_ONCE=1` it ends. All it started ends with it.
#![expect(clippy::disallowed_methods, reason = "test equipment reads and writes its own files")]
#![expect(clippy::print_stdout, reason = "a program for people")]

mod stage;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use policy_operator_harness::cosign::{self, Format, Keys, Kind};
use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::{object, opa, process};
use serde_json::json;

use stage::{Stage, heading, indented};

const NAME: &str = "orders";
const CONFIG_MAP: &str = "orders-bundle";
const LIMIT: Duration = Duration::from_secs(30);

/// Managers may approve any order, everyone else only small ones.
const POLICY: &str =
    "package orders\n\ndefault allow := false\n\nallow if input.role == \"manager\"\n\nallow if input.amount < 100\n";
/// What an attacker without the key would like: everything is allowed.
const FORGERY: &str = "package orders\n\nallow := true\n";

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::start().await?;
    let outcome = play(&stage).await;
    if outcome.is_ok() && std::env::var_os("DEMO_ONCE").is_none() {
        stage.print_how_to_use();
        process::until_asked_to_end().await?;
    }
    stage.end().await?;
    outcome
}

async fn play(stage: &Stage) -> Result<()> {
    deliver_signed(stage).await?;
    let opa = ask_opa(stage).await?;
    refuse_unsigned(stage, &opa).await
}

async fn deliver_signed(stage: &Stage) -> Result<()> {
    heading("A policy image is pushed and signed with cosign");
    let keys = Keys::generate(Kind::P256).await?;
    let bundle = Bundle::build(
        &[("orders/policy.rego", POLICY), (".manifest", r#"{"roots":["orders"]}"#)],
        "1.0.0",
    );
    let pushed = PolicyImage::new(bundle.await?)
        .push(stage.registry(), "acme/orders", "stable")
        .await?;
    cosign::sign(&keys, stage.registry(), &pushed.pinned, Format::Bundle).await?;
    println!(
        "{}\n  manifest {}\n  bundle   {}",
        pushed.reference, pushed.digest, pushed.layer_digest
    );

    heading("A PolicyImage names the image, and the key that must have signed it");
    stage.apply(&policy_image(&pushed.reference, &keys.public_pem)).await?;
    object::until(
        &stage.objects().await?,
        NAME,
        "Ready",
        |ready| ready.status == "True",
        LIMIT,
    )
    .await?;
    stage.show(&["get", "policyimages"]).await?;
    stage.show(&["describe", "configmap", CONFIG_MAP]).await
}

/// The manifest, as a user would write it.
fn policy_image(image: &str, public_key: &str) -> String {
    let key: Vec<_> = public_key
        .trim()
        .lines()
        .map(|line| format!("            {line}"))
        .collect();
    format!(
        "\
apiVersion: opcr.io/v1alpha1
kind: PolicyImage
metadata:
  name: {NAME}
spec:
  image: {image}
  insecure: true # this registry has no TLS
  interval: 30s
  timeout: 20s
  verify:
    authorities:
      - name: release
        key:
          data: |
{key}
",
        key = key.join("\n")
    )
}

async fn ask_opa(stage: &Stage) -> Result<opa::Server> {
    heading("A real OPA serves the policy from the ConfigMap");
    let bundle = stage.write_delivered(CONFIG_MAP).await?;
    println!("$ opa run --server --bundle --watch {}", bundle.display());
    let opa = opa::Server::watching(&bundle).await?;
    for (input, allowed) in [
        (json!({ "role": "clerk", "amount": 50 }), true),
        (json!({ "role": "clerk", "amount": 5000 }), false),
        (json!({ "role": "manager", "amount": 5000 }), true),
    ] {
        let answer = opa.ask("orders/allow", &input).await?;
        println!("  {input} -> allow is {}", answer.clone().unwrap_or_default());
        ensure!(answer == Some(json!(allowed)), "the policy says otherwise");
    }
    Ok(opa)
}

async fn refuse_unsigned(stage: &Stage, opa: &opa::Server) -> Result<()> {
    heading("An attacker moves the tag to an unsigned image that allows everything");
    let before = stage.delivered(CONFIG_MAP).await?;
    let forgery = Bundle::build(&[("orders/policy.rego", FORGERY)], "2.0.0").await?;
    let pushed = PolicyImage::new(forgery)
        .push(stage.registry(), "acme/orders", "stable")
        .await?;
    println!("{}\n  manifest {}", pushed.reference, pushed.digest);
    stage
        .show(&[
            "annotate",
            "policyimage",
            NAME,
            "--overwrite",
            "reconcile.opcr.io/requestedAt=now",
        ])
        .await?;
    let objects = stage.objects().await?;
    let refused = object::until(&objects, NAME, "Verified", |verified| verified.status == "False", LIMIT).await?;
    stage.show(&["get", "policyimages"]).await?;
    let verified = object::condition(&refused, "Verified").context("no condition Verified")?;
    println!("Verified is {}, {}:", verified.status, verified.reason);
    println!("{}", indented(&verified.message));

    heading("The old policy stays in force");
    ensure!(stage.delivered(CONFIG_MAP).await? == before, "the ConfigMap changed");
    println!("The bundle in the ConfigMap is the same, byte for byte.");
    let input = json!({ "role": "clerk", "amount": 5000 });
    let answer = opa.ask("orders/allow", &input).await?;
    println!("  {input} -> allow is {}", answer.clone().unwrap_or_default());
    ensure!(answer == Some(json!(false)), "the forged policy is active");
    Ok(())
}
