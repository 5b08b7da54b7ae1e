use std::path::Path;
use std::time::Duration;

use super::{Program, Signal};
use crate::run_directory::RunDirectory;

const LIMIT: Duration = Duration::from_secs(10);

fn runs(id: &str) -> bool {
    // The state of a process that ended but was not collected is Z.
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn gone(id: &str) -> bool {
    for _ in 0..100 {
        if !runs(id) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

fn sleeper(directory: &RunDirectory) -> super::Process {
    Program::new("sleep")
        .arg("600")
        .start(directory.file("sleep.log"))
        .unwrap()
}

#[tokio::test]
async fn output_and_exit_code_of_a_program_are_kept() {
    let directory = RunDirectory::new("process").unwrap();
    let program = Program::new("sh").args(["-c", "echo out; echo err >&2; exit 7"]);
    let mut process = program.start(directory.file("sh.log")).unwrap();
    let status = process.wait(LIMIT).await.unwrap();
    assert_eq!((status.code(), process.log_text().as_str()), (Some(7), "out\nerr\n"));
}

#[tokio::test]
async fn stop_asks_politely() {
    let directory = RunDirectory::new("process").unwrap();
    let mut process = sleeper(&directory);
    assert_eq!(process.stop().await.unwrap().code(), Some(128 + 15));
    process.signal(Signal::TERM).unwrap_err();
}

#[tokio::test]
async fn a_dropped_process_ends() {
    let directory = RunDirectory::new("process").unwrap();
    let process = sleeper(&directory);
    let id = process.id().to_string();
    assert!(runs(&id));
    drop(process);
    assert!(gone(&id).await);
}

/// This same test, run again as a process of its own, starts a program and is then killed without warning.
#[tokio::test]
async fn a_program_ends_with_the_killed_process_that_started_it() {
    const CHILD: &str = "POLICY_OPERATOR_HARNESS_CHILD";
    if let Some(file) = std::env::var_os(CHILD) {
        let directory = RunDirectory::new("process").unwrap();
        let process = sleeper(&directory);
        std::fs::write(Path::new(&file), process.id().to_string()).unwrap();
        tokio::time::sleep(Duration::from_mins(1)).await;
        return;
    }
    let directory = RunDirectory::new("process").unwrap();
    let file = directory.file("id");
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "process::tests::a_program_ends_with_the_killed_process_that_started_it",
        ])
        .env(CHILD, &file)
        .spawn()
        .unwrap();
    let id = loop {
        match std::fs::read_to_string(&file) {
            Ok(id) if !id.is_empty() => break id,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(runs(&id));
    child.kill().await.unwrap();
    assert!(gone(&id).await);
}
