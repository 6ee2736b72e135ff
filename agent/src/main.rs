//! signet-agent: keeps the SVIDs of this node's workloads fresh and serves them over Envoy SDS and the
//! SPIFFE Workload API.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signet_agent::config::{Config, Downward};

/// The agent of signet: keeps the SVIDs of local workloads fresh and serves them to proxies and programs.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example: signet-agent run --config /etc/signet/agent.yaml"
)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration file (YAML).
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/signet/agent.yaml"
    )]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT (the default).
    Run,
    /// Read the configuration, tell every fault, and exit with 0 or 1.
    CheckConfig,
    /// Print the configuration in force, defaults included.
    PrintConfig,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = Config::load(&args.config, downward())
        .map_err(|e| e.to_string())
        .and_then(|config| match args.verb {
            None | Some(Verb::Run) => signet_agent::run::main(config),
            Some(Verb::CheckConfig) => {
                say(&format!("{}: good", args.config.display()));
                Ok(())
            }
            Some(Verb::PrintConfig) => config.print().map(|text| say(text.trim_end())),
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&fault);
            ExitCode::FAILURE
        }
    }
}

/// What the downward API tells the pod of itself; nothing else is read from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn downward() -> Downward {
    let told = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    Downward {
        node_name: told("NODE_NAME"),
        pod_uid: told("POD_UID"),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of check-config and print-config")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "faults before logging is up, or after it is gone"
)]
fn complain(fault: &str) {
    eprintln!("signet-agent: {fault}");
}
