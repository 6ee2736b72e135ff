//! signet-ca: the certificate authority.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signet_ca::config::Config;

/// Issuing makes a hundred small allocations a call. See `docs/adr/0013-an-allocator-of-our-own.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The certificate authority of signet: validates service-account tokens and issues X.509-SVIDs.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example: signet-ca run --config /etc/signet/ca.yaml"
)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration file (YAML).
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/signet/ca.yaml"
    )]
    config: PathBuf,
    /// With run: make a new root although a published ConfigMap shows that there was one. Everything
    /// issued under the old root stops being trusted as soon as the new one is published.
    #[arg(long, global = true)]
    new_root: bool,
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
    let done = Config::load(&args.config)
        .map_err(|e| e.to_string())
        .and_then(|config| match args.verb {
            None | Some(Verb::Run) => signet_ca::run::main(config, args.new_root),
            Some(Verb::CheckConfig) => {
                say(&format!("{}: good", args.config.display()));
                Ok(())
            }
            Some(Verb::PrintConfig) => {
                say(&config.print());
                Ok(())
            }
        });
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
