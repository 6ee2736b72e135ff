//! signet-ca: the certificate authority.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signet_ca::config::Config;

/// The certificate authority of signet: validates service-account tokens and issues X.509-SVIDs.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example: signet-ca run --config /etc/signet/ca.yaml"
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT.
    Run {
        /// The configuration file (YAML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Make a new root although a published ConfigMap shows that there was one. Everything issued
        /// under the old root stops being trusted as soon as the new one is published.
        #[arg(long)]
        new_root: bool,
    },
    /// Read the configuration, tell every fault, and exit with 0 or 1.
    CheckConfig {
        /// The configuration file (YAML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the configuration in force, defaults included.
    PrintConfig {
        /// The configuration file (YAML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().verb {
        Verb::Run { config, new_root } => Config::load(&config)
            .map_err(|e| e.to_string())
            .and_then(|c| signet_ca::run::main(c, new_root)),
        Verb::CheckConfig { config } => Config::load(&config)
            .map(|_| say(&format!("{}: good", config.display())))
            .map_err(|e| e.to_string()),
        Verb::PrintConfig { config } => Config::load(&config)
            .map(|c| say(&c.print()))
            .map_err(|e| e.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&fault);
            ExitCode::FAILURE
        }
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
    eprintln!("signet-ca: {fault}");
}
