//! `e2e/tools/tools.sh` against a compiler that only pretends: what it builds, what it takes from PATH, and what it says
//! when something is in its way.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use policy_operator_harness::process::Signal;
use policy_operator_harness::run_directory::RunDirectory;
use policy_operator_harness::tools::{self, repository_root};
use rustix::process::{Pid, kill_process_group};

/// Writes down what it is asked to build. It fails if the test wrote a file `go-says`, and waits for a file `go-on`
/// if there is a file `go-waits`.
const GO: &str = r#"#!/bin/bash
case $1 in
  env) printf 'go0.0-test\nnone\nnone\n' ;;
  build)
    echo "${@: -1}" >>"$WORLD/built"
    echo 'go: downloading acme.example/module v1.0.0' >&2
    while [ "$1" != -o ]; do shift; done
    echo half >"$2"
    while [ -e "$WORLD/go-waits" ] && [ ! -e "$WORLD/go-on" ]; do sleep 0.02; done
    if [ -e "$WORLD/go-says" ]; then cat "$WORLD/go-says" >&2; exit 1; fi
    printf '#!/bin/bash\n' >"$2"
    chmod +x "$2"
    ;;
esac
"#;

/// All that the script may find on PATH, beside what a test adds.
const UTILITIES: [&str; 20] = [
    "awk",
    "bash",
    "cat",
    "chmod",
    "cut",
    "df",
    "dirname",
    "flock",
    "grep",
    "head",
    "ln",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
];

const LIMIT: Duration = Duration::from_secs(20);

/// A PATH and a cache of its own.
struct World(RunDirectory);

impl World {
    fn new() -> Self {
        let world = Self(RunDirectory::new("tools").unwrap());
        fs::create_dir(world.file("bin")).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        for utility in UTILITIES {
            let found = std::env::split_paths(&path).map(|directory| directory.join(utility));
            let found = found.into_iter().find(|path| path.exists());
            symlink(found.expect(utility), world.file("bin").join(utility)).unwrap();
        }
        world
    }

    fn with_go() -> Self {
        let world = Self::new();
        world.install("go", GO);
        world
    }

    fn install(&self, program: &str, text: &str) {
        let file = self.file("bin").join(program);
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts an `opa` on PATH that says it is of this version.
    fn install_opa(&self, version: &str) {
        self.install(
            "opa",
            &format!("#!/bin/bash\nprintf 'Version: {version}\\nGo Version: go1.26.8\\n'\n"),
        );
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(repository_root().join("e2e/tools/tools.sh"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", self.file("bin"))
            .env("POLICY_OPERATOR_TOOLS_CACHE", self.file("cache"))
            .env("WORLD", self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn build(&self, programs: &[&str]) -> Output {
        self.script(&[&["build"], programs].concat()).output().unwrap()
    }

    fn build_with_system_tools(&self, programs: &[&str]) -> Output {
        let mut script = self.script(&[&["build"], programs].concat());
        script.env("USE_SYSTEM_TOOLS", "1").output().unwrap()
    }

    /// Starts a build in the background, in a process group of its own, with its output in the file `log`.
    fn start(&self, program: &str, log: &str) -> Child {
        let log = File::create(self.file(log)).unwrap();
        let mut script = self.script(&["build", program]);
        script.process_group(0).stdout(log.try_clone().unwrap()).stderr(log);
        script.spawn().unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// The packages that were compiled, in order.
    fn built(&self) -> Vec<String> {
        self.text("built").lines().map(str::to_owned).collect()
    }

    fn bin_directory(&self) -> PathBuf {
        let output = self.script(&["path"]).output().unwrap();
        PathBuf::from(stdout(&output).trim())
    }

    /// Every file of the cache.
    fn cached(&self) -> Vec<String> {
        let mut found: Vec<String> = fs::read_dir(self.file("cache"))
            .unwrap()
            .flat_map(|directory| fs::read_dir(directory.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        found
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The version of OPA that the repository pins, as OPA prints it.
fn pinned_opa() -> String {
    let pins = fs::read_to_string(repository_root().join("e2e/tools/opa/go.mod")).unwrap();
    let line = pins
        .lines()
        .find_map(|line| line.trim().strip_prefix("github.com/open-policy-agent/opa v"));
    line.unwrap().split(' ').next().unwrap().to_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_what_is_named_is_built_with_one_line_for_each() {
    let world = World::with_go();
    let output = world.build(&["opa", "etcd"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        world.built(),
        ["go.etcd.io/etcd/server/v3", "github.com/open-policy-agent/opa"]
    );
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[1].starts_with("tools: etcd "), "{text}");
    assert!(
        lines[2].starts_with("tools: opa ") && lines[2].contains(" building ... ") && lines[2].ends_with(" s"),
        "{text}"
    );
    assert!(lines[3].starts_with("tools: 2 programs ready in "), "{text}");
    assert!(!text.contains("downloading"), "{text}");
    assert!(world.bin_directory().join("opa").exists());
    assert!(!world.bin_directory().join("kubectl").exists());
}

#[test]
fn without_a_name_everything_is_built_and_nothing_twice() {
    let world = World::with_go();
    assert!(world.build(&[]).status.success());
    assert_eq!(world.built().len(), 7);
    let again = world.build(&[]);
    assert!(
        stdout(&again).starts_with("tools: 7 programs ready in "),
        "{}",
        stdout(&again)
    );
    assert_eq!(world.built().len(), 7);
}

#[test]
fn a_failed_build_names_its_cause_and_its_log() {
    let cases = [
        (
            "write /cache/x.a: no space left on device",
            "no space is left on the disk",
        ),
        (
            "Get \"https://proxy.acme.example/@v/list\": dial tcp: lookup proxy.acme.example: no such host",
            "its modules cannot be downloaded; check the network, or set GOPROXY",
        ),
        ("main.go:1:1: expected 'package'", "go build failed"),
    ];
    for (said, cause) in cases {
        let world = World::with_go();
        fs::write(world.file("go-says"), format!("one\ntwo\nthree\nfour\n{said}\n")).unwrap();
        let output = world.build(&["opa"]);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("tools: opa: {cause}"));
        assert_eq!(lines.len(), 7, "the last five lines of the log, and no more: {text}");
        assert_eq!(lines[6].trim(), said);
        let log = lines[1]
            .strip_prefix("tools: the last lines of ")
            .unwrap()
            .trim_end_matches(':');
        assert!(
            fs::read_to_string(log)
                .unwrap()
                .contains("downloading acme.example/module")
        );
        assert!(!world.bin_directory().join("opa").exists());
    }
}

#[test]
fn a_program_on_path_of_the_pinned_version_is_used_and_go_is_not_needed() {
    let world = World::new();
    world.install_opa(&pinned_opa());
    let output = world.build_with_system_tools(&["opa"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let link = fs::read_link(world.bin_directory().join("opa")).unwrap();
    assert_eq!(link, world.file("bin").join("opa"));
}

#[test]
fn a_program_on_path_of_another_version_is_built_instead_and_named() {
    for version in [
        "0.1.0",
        &format!("{}-rc.1", pinned_opa()),
        &format!("{}0", pinned_opa()),
        "unknown",
    ] {
        let world = World::with_go();
        world.install_opa(version);
        let output = world.build_with_system_tools(&["opa"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(world.built(), ["github.com/open-policy-agent/opa"]);
        assert!(
            stderr(&output).contains(&format!("not v{}: built instead", pinned_opa())),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn programs_on_path_are_used_only_when_that_is_wanted() {
    let world = World::with_go();
    world.install_opa(&pinned_opa());
    assert!(world.build_with_system_tools(&["opa"]).status.success());
    assert!(world.built().is_empty());
    assert!(world.build(&["opa"]).status.success());
    assert_eq!(world.built(), ["github.com/open-policy-agent/opa"]);
    let link = fs::read_link(world.bin_directory().join("opa")).unwrap();
    assert!(link.starts_with(world.file("cache")), "{}", link.display());
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let without_go = World::new();
    let unknown = World::with_go();
    let unwritable = World::with_go();
    fs::write(unwritable.file("cache"), "a file where a directory should be").unwrap();
    let cases = [
        (
            without_go.build(&["opa"]),
            "'opa' has to be built, and 'go' is not on PATH: install Go 1.26 or newer",
        ),
        (
            unknown.build(&["oqa"]),
            "'oqa' is none of the programs: etcd, kube-apiserver",
        ),
        (
            unwritable.build(&["opa"]),
            "name another directory in POLICY_OPERATOR_TOOLS_CACHE",
        ),
    ];
    for (output, expected) in cases {
        assert!(!output.status.success());
        let text = stderr(&output);
        assert!(text.contains(expected) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn two_runs_at_the_same_time_build_once() {
    let world = World::with_go();
    fs::write(world.file("go-waits"), "").unwrap();
    let first = world.start("opa", "first");
    until("the first run builds", || !world.built().is_empty());
    let second = world.start("opa", "second");
    until("the second run waits", || {
        world.text("second").contains("waiting for another run ... ")
    });
    fs::write(world.file("go-on"), "").unwrap();
    for mut run in [first, second] {
        assert!(
            run.wait().unwrap().success(),
            "{}{}",
            world.text("first"),
            world.text("second")
        );
    }
    assert_eq!(world.built().len(), 1);
}

#[test]
fn an_interrupted_build_leaves_nothing_half_done() {
    let world = World::with_go();
    fs::write(world.file("go-waits"), "").unwrap();
    let mut run = world.start("opa", "said");
    until("the run builds", || !world.built().is_empty());
    let group = Pid::from_raw(run.id().try_into().unwrap()).unwrap();
    // Not SIGINT, which is ignored by all processes of a background job.
    kill_process_group(group, Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143), "{}", world.text("said"));
    assert!(
        world.text("said").contains("tools: interrupted; what is built stays"),
        "{}",
        world.text("said")
    );
    assert_eq!(world.cached(), ["opa.lock", "opa.log"]);
    fs::write(world.file("go-on"), "").unwrap();
    assert!(world.build(&["opa"]).status.success());
}

#[test]
fn a_missing_program_is_an_error_that_names_the_make_target() {
    let error = tools::bin("no-such-program").unwrap_err().to_string();
    assert!(error.contains("'make tools TOOLS=no-such-program'"), "{error}");
}
