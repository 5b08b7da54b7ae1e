//! Arguments that several programs share. Every flag has an environment variable, so that a Deployment can set either.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::telemetry::LogFormat;

/// Flags about registries.
#[derive(Args, Debug)]
pub struct RegistryArguments {
    /// Directory for downloaded bundles, created if needed; one of its own below the system's temporary directory where
    /// empty
    #[arg(long, env = "POLICY_OPERATOR_CACHE_DIR", value_name = "DIRECTORY")]
    pub cache_dir: Option<PathBuf>,

    /// Most bytes kept there, in MiB
    #[arg(long, env = "POLICY_OPERATOR_CACHE_SIZE", value_name = "MIB", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(64..))]
    pub cache_size: u32,

    /// Registry hosts that may be used, such as 'ghcr.io' or '*.acme.example:5000'; repeat or separate by commas; any
    /// where empty
    #[arg(
        long = "allow-registry",
        env = "POLICY_OPERATOR_ALLOW_REGISTRY",
        value_name = "GLOB",
        value_delimiter = ','
    )]
    pub allow_registries: Vec<String>,

    /// Refuse registries at private addresses (10/8, 172.16/12, 192.168/16, 100.64/10, unique local IPv6)
    #[arg(long, env = "POLICY_OPERATOR_DENY_PRIVATE_ADDRESSES", action = ArgAction::SetTrue)]
    pub deny_private_addresses: bool,

    /// Allow registries on this machine's loopback addresses, for tests and laptops
    #[arg(long, env = "POLICY_OPERATOR_ALLOW_LOOPBACK", action = ArgAction::SetTrue)]
    pub allow_loopback: bool,
}

/// Flags about logs.
#[derive(Args, Debug)]
pub struct LogArguments {
    /// Format of the log on standard error
    #[arg(long, env = "POLICY_OPERATOR_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a filter such as 'info,kube=debug'
    #[arg(
        long,
        env = "POLICY_OPERATOR_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log_level: String,
}
