use std::collections::BTreeMap;

use rstest::rstest;
use strum::VariantArray as _;

use super::*;

/// Every label value that there is, used once.
fn everything() -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new());
    let waiting = Disposition::WaitFor(Duration::ZERO);
    let failures = [
        None,
        Some(Disposition::Stalled),
        Some(Disposition::Retry),
        Some(waiting),
    ];
    for (index, reason) in Reason::VARIANTS.iter().enumerate() {
        metrics.reconciled(*reason, failures[index % failures.len()], Duration::from_millis(30));
    }
    for kind in RequestKind::VARIANTS {
        for status in (0..=999).map(Some).chain([None]) {
            metrics.request(*kind, status);
        }
    }
    for cache in CacheName::VARIANTS {
        metrics.requested(*cache, true);
        metrics.requested(*cache, false);
    }
    for kind in WatchedKind::VARIANTS {
        metrics.watches_failing(*kind, 1);
        for part in UnreadablePart::VARIANTS {
            metrics.unreadable(*kind, *part);
        }
    }
    metrics.downloaded(1234);
    metrics.policy_images(2, 1);
    metrics.leads(true);
    metrics.panicked();
    metrics
}

/// The samples of each family, by its name, with its type.
fn families(text: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut families = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("type");
            current = Some((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with('#') {
            families
                .entry(current.clone().expect("a type before samples"))
                .or_insert_with(Vec::new)
                .push(line.to_owned());
        }
    }
    families
}

fn text(metrics: &Metrics) -> String {
    metrics.encode().expect("text")
}

#[test]
fn no_family_can_outgrow_the_limit() {
    for ((name, _), samples) in families(&text(&everything())) {
        assert!(samples.len() <= MAX_SERIES, "{name} has {} series", samples.len());
    }
}

#[test]
fn names_follow_the_conventions() {
    for ((name, kind), samples) in families(&text(&everything())) {
        assert!(
            name.starts_with("policy_operator_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
        let has_suffix = |suffix: &str| {
            samples
                .iter()
                .all(|sample| sample.starts_with(&format!("{name}{suffix}")))
        };
        match kind.as_str() {
            "counter" => assert!(has_suffix("_total"), "{name}"),
            "info" => assert!(has_suffix("_info"), "{name}"),
            "histogram" => assert!(name.ends_with("_seconds"), "{name}"),
            "gauge" => assert!(!name.ends_with("_total"), "{name}"),
            other => panic!("{name} is a {other}"),
        }
    }
}

#[test]
fn every_family_has_the_documented_name() {
    let names: Vec<_> = families(&text(&everything()))
        .into_keys()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    insta::assert_snapshot!(names.join("\n"), @r"
    policy_operator_build info
    policy_operator_bundle_bytes counter
    policy_operator_cache_requests counter
    policy_operator_leader gauge
    policy_operator_panics counter
    policy_operator_policyimages gauge
    policy_operator_queue_depth gauge
    policy_operator_reconcile counter
    policy_operator_reconcile_duration_seconds histogram
    policy_operator_reconciles_in_flight gauge
    policy_operator_registry_requests counter
    policy_operator_unreadable_objects counter
    policy_operator_watches_failing gauge
    process_cpu_seconds counter
    process_open_fds gauge
    process_resident_memory_bytes gauge
    process_start_time_seconds gauge
    ");
}

#[rstest]
#[case(Some(200), "2xx")]
#[case(Some(206), "2xx")]
#[case(Some(307), "3xx")]
#[case(Some(401), "401")]
#[case(Some(403), "4xx")]
#[case(Some(404), "404")]
#[case(Some(429), "429")]
#[case(Some(503), "5xx")]
#[case(None, "error")]
fn codes_are_told_apart_where_it_helps(#[case] status: Option<u16>, #[case] label: &str) {
    assert_eq!(code_label(status), label);
}

#[test]
fn a_run_is_counted_once_with_its_ending() {
    let metrics = Arc::new(Metrics::new());
    let run = metrics.run();
    assert!(text(&metrics).contains("policy_operator_reconciles_in_flight 1\n"));
    run.ended(Reason::Unsigned, Disposition::Stalled.into());
    let text = text(&metrics);
    assert!(text.contains("policy_operator_reconciles_in_flight 0\n"), "{text}");
    assert!(
        text.contains("policy_operator_reconcile_total{reason=\"Unsigned\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("policy_operator_reconcile_duration_seconds_count{result=\"stalled\"} 1\n"),
        "{text}"
    );
}

/// A conflict with another client is no failure, and no alert counts it.
#[test]
fn a_run_that_is_repeated_is_not_counted() {
    let metrics = Arc::new(Metrics::new());
    metrics.run().repeated();
    let text = text(&metrics);
    assert!(text.contains("policy_operator_reconciles_in_flight 0\n"), "{text}");
    assert!(!text.contains("policy_operator_reconcile_total{"), "{text}");
}

#[test]
fn a_run_that_panics_or_is_cancelled_is_counted_as_internal() {
    let metrics = Arc::new(Metrics::new());
    drop(metrics.run());
    let run = metrics.run();
    std::thread::spawn(move || {
        let _run = run;
        panic!("on purpose");
    })
    .join()
    .expect_err("panicked");
    let text = text(&metrics);
    assert!(
        text.contains("policy_operator_reconcile_total{reason=\"Internal\"} 2\n"),
        "{text}"
    );
    assert!(text.contains("policy_operator_reconciles_in_flight 0\n"), "{text}");
}

#[test]
fn the_process_describes_itself() {
    let text = text(&Metrics::new());
    let value = |name: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .expect(name);
        line.rsplit_once(' ').expect("value").1.parse().expect("number")
    };
    assert!(value("process_resident_memory_bytes") > 1_000_000.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1_700_000_000.0);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}
