//! The command line. Every flag has an environment variable, so that a Deployment can set either.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::steps::validate::parse_max_timeout;
use crate::runtime::args::{LogArguments, RegistryArguments, with_environment};
use crate::runtime::listen::ListenAddress;

/// The program's name, as users, registries and temporary directories see it.
pub(super) const PROGRAM: &str = "policy-operator";

/// Runs Open Policy Agent policies on Kubernetes.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version, max_term_width = 120)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// The definition of the command line.
    #[must_use]
    pub fn definition() -> clap::Command {
        Self::command().mut_subcommands(|subcommand| with_environment(subcommand, "POLICY_OPERATOR"))
    }

    /// Reads the command line. Ends the program if it is wrong, or asks for help.
    #[must_use]
    pub(super) fn read() -> Self {
        let matches = Self::definition().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Watch PolicyImages and deliver their policies
    Run(Box<RunArguments>),
    /// Print the CustomResourceDefinition of PolicyImage
    Crd,
    /// Do for manifest files what the operator would do in a cluster, and print the ConfigMaps
    ///
    /// Exit status: 0 all policies can be delivered; 1 at least one cannot, and only a change of the manifest, the image
    /// or a key helps; 2 the files or flags are wrong; 3 at least one could not be looked up, and trying again may help.
    Render(Box<RenderArguments>),
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Kubeconfig file; without one the pod's service account is used, then the file that KUBECONFIG names
    #[arg(long, env = "POLICY_OPERATOR_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespaces to watch, separated by commas; default: all
    #[arg(
        long,
        env = "POLICY_OPERATOR_WATCH_NAMESPACES",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,

    /// Objects worked on at the same time; those that wait for a registry do not count
    #[arg(long, env = "POLICY_OPERATOR_CONCURRENCY", value_name = "COUNT", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,

    /// Longest that one run of an object may take, whatever its spec.timeout says, such as '90s'; at most '10m'
    #[arg(long, env = "POLICY_OPERATOR_MAX_TIMEOUT", value_name = "DURATION", default_value = "10m",
          value_parser = parse_max_timeout)]
    pub max_timeout: Duration,

    /// Compete with other replicas for a Lease, and work only while holding it
    #[arg(long, env = "POLICY_OPERATOR_LEADER_ELECT", action = ArgAction::SetTrue)]
    pub leader_elect: bool,

    /// Namespace of the Lease; default: the pod's
    #[arg(long, env = "POLICY_OPERATOR_LEADER_ELECT_NAMESPACE", value_name = "NAME")]
    pub leader_elect_namespace: Option<String>,

    /// Address of /healthz and /readyz
    #[arg(
        long,
        env = "POLICY_OPERATOR_HEALTH_ADDR",
        value_name = "ADDRESS",
        default_value = ":8081"
    )]
    pub health_addr: ListenAddress,

    /// Address of /metrics
    #[arg(
        long,
        env = "POLICY_OPERATOR_METRICS_ADDR",
        value_name = "ADDRESS",
        default_value = ":8080"
    )]
    pub metrics_addr: ListenAddress,

    /// Where and how registries are reached.
    #[command(flatten)]
    pub registry: RegistryArguments,

    /// Refuse objects that have no spec.verify
    #[arg(long, env = "POLICY_OPERATOR_REQUIRE_VERIFICATION", action = ArgAction::SetTrue)]
    pub require_verification: bool,

    /// How logs are written.
    #[command(flatten)]
    pub log: LogArguments,
}

/// Flags of `render`.
#[derive(Args, Debug)]
pub struct RenderArguments {
    /// Manifest files with PolicyImages and the Secrets, ConfigMaps and ServiceAccounts they name; '-' is standard input
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub files: Vec<PathBuf>,

    /// Print each PolicyImage with the status it would have, too
    #[arg(long)]
    pub status: bool,

    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub namespace: String,

    /// Where and how registries are reached.
    #[command(flatten)]
    pub registry: RegistryArguments,

    /// Refuse objects that have no spec.verify
    #[arg(long, env = "POLICY_OPERATOR_REQUIRE_VERIFICATION", action = ArgAction::SetTrue)]
    pub require_verification: bool,

    /// How logs are written.
    #[command(flatten)]
    pub log: LogArguments,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::definition().debug_assert();
    }

    #[test]
    fn every_flag_of_run_has_an_environment_variable() {
        let command = Arguments::definition();
        let run = command.find_subcommand("run").unwrap();
        for argument in run.get_arguments().filter(|argument| argument.get_id() != "help") {
            let long = argument.get_long().unwrap();
            let expected = format!("POLICY_OPERATOR_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(expected.as_str()),
                "--{long}"
            );
        }
    }
}
