//! Arguments that several programs share.

use std::path::PathBuf;

use clap::{ArgAction, Args, Command};

use super::telemetry::LogFormat;

/// Flags about registries.
#[derive(Args, Debug)]
pub struct RegistryArguments {
    /// Directory for downloaded bundles, created if needed; default: a new one in the system's temporary directory
    #[arg(long, value_name = "DIRECTORY")]
    pub cache_dir: Option<PathBuf>,

    /// Most bytes kept there, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(64..))]
    pub cache_size: u32,

    /// Registry hosts that may be used, such as 'ghcr.io' or '*.acme.example:5000'; repeat or separate by commas;
    /// default: any
    #[arg(long = "allow-registry", value_name = "GLOB", value_delimiter = ',')]
    pub allow_registries: Vec<String>,

    /// Refuse registries at private addresses (10/8, 172.16/12, 192.168/16, 100.64/10, unique local IPv6)
    #[arg(long, action = ArgAction::SetTrue)]
    pub deny_private_addresses: bool,

    /// Allow registries on this machine's loopback addresses, for tests and laptops
    #[arg(long, action = ArgAction::SetTrue)]
    pub allow_loopback: bool,
}

/// Flags about logs.
#[derive(Args, Debug)]
pub struct LogArguments {
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a filter such as 'info,kube=debug'
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log_level: String,
}

/// Gives the flags of this module an environment variable each, so that a Deployment can set either. With the prefix
/// `POLICY_OPERATOR`, that of `--cache-dir` is `POLICY_OPERATOR_CACHE_DIR`.
#[must_use]
pub fn with_environment(command: Command, prefix: &str) -> Command {
    let shared = LogArguments::augment_args(RegistryArguments::augment_args(Command::default()));
    command.mut_args(|argument| {
        let is_shared = shared.get_arguments().any(|known| known.get_id() == argument.get_id());
        match argument.get_long().filter(|_| is_shared) {
            Some(long) => {
                let variable = format!("{prefix}_{}", long.to_uppercase().replace('-', "_"));
                argument.env(variable)
            }
            None => argument,
        }
    })
}
