//! Finds the programs that `make tools` builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The root of the repository, which holds `e2e/` and `config/`.
#[must_use]
pub fn repository_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        crate_directory.ancestors().nth(2).unwrap_or(crate_directory).to_owned()
    })
}

/// The path of the program `name`.
///
/// # Errors
/// When the program was not built: the message names the make target that does.
pub fn bin(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY
        .get_or_init(|| directory().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|message| anyhow::anyhow!("{message}"))?;
    let program = directory.join(name);
    if !program.exists() {
        bail!(
            "program \"{name}\" is not in {}: run 'make tools', or 'make tools TOOLS={name}' for this one alone",
            directory.display()
        );
    }
    Ok(program)
}

fn directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("POLICY_OPERATOR_TOOLS_BIN") {
        return Ok(directory.into());
    }
    let script = repository_root().join("e2e/tools/tools.sh");
    let output = Command::new(&script)
        .arg("path")
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    if !output.status.success() {
        bail!(
            "{} path: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
