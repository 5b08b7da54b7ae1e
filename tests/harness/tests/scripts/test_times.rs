//! `.ci/time-tests.sh`, through which cargo runs each test program.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use policy_operator_harness::run_directory::RunDirectory;
use policy_operator_harness::tools::repository_root;

/// What libtest prints with `--report-time`; it fails as libtest does.
const PROGRAM: &str = r#"#!/bin/bash
echo "arguments: $*" >"${0%/*}/../arguments"
echo "RUSTC_BOOTSTRAP=$RUSTC_BOOTSTRAP" >>"${0%/*}/../arguments"
printf 'running 3 tests\n'
printf 'test domain::quick ... ok <0.001s>\n'
printf 'test domain::slow - should panic ... ok <12.345s>\n'
printf 'test domain::skipped ... ignored\n'
printf 'took <1.0s> in all\n'
exit 101
"#;

fn run(directory: &RunDirectory, program: &str) -> Output {
    let program = directory.file(program);
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    Command::new(repository_root().join(".ci/time-tests.sh"))
        .arg(program)
        .args(["--skip", "slower"])
        .env("TEST_TIMES", directory.file("times"))
        .env_remove("RUSTC_BOOTSTRAP")
        .output()
        .unwrap()
}

#[test]
fn times_are_written_down_and_taken_out_of_the_output() {
    let directory = RunDirectory::new("test-times").unwrap();
    let output = run(&directory, "deps/policy_operator-0123456789abcdef");
    assert_eq!(output.status.code(), Some(101), "the status of the program");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "running 3 tests\n\
         test domain::quick ... ok\n\
         test domain::slow - should panic ... ok\n\
         test domain::skipped ... ignored\n\
         took <1.0s> in all\n"
    );
    assert_eq!(
        fs::read_to_string(directory.file("times")).unwrap(),
        "0.001 policy_operator domain::quick\n12.345 policy_operator domain::slow\n"
    );
    assert_eq!(
        fs::read_to_string(directory.file("arguments")).unwrap(),
        "arguments: --skip slower -Z unstable-options --report-time\nRUSTC_BOOTSTRAP=1\n"
    );
}

#[test]
fn a_program_that_is_no_test_program_is_left_alone() {
    let directory = RunDirectory::new("test-times").unwrap();
    let output = run(&directory, "doctest/rust_out");
    assert_eq!(output.status.code(), Some(101));
    assert!(String::from_utf8(output.stdout).unwrap().contains("<0.001s>"));
    assert!(!directory.file("times").exists());
    assert_eq!(
        fs::read_to_string(directory.file("arguments")).unwrap(),
        "arguments: --skip slower\nRUSTC_BOOTSTRAP=\n"
    );
}
