//! signet-proxy: gives each connection an identity, asks for a permit, forwards.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signet_proxy::config::Config;
use signet_proxy::redirect;

/// Serving a request makes dozens of small allocations. See `docs/adr/0013-an-allocator-of-our-own.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The proxy of signet: mutual TLS and authorization for one workload, with an answer to every refusal.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example: signet-proxy run --config /etc/signet/proxy.yaml"
)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration file (YAML).
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/signet/proxy.yaml"
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
    /// The iptables rules by which a pod's traffic comes to the proxy.
    #[command(subcommand)]
    Redirect(redirect::Verb),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.verb {
        Some(Verb::Redirect(verb @ redirect::Verb::Remove)) => redirected(verb, None),
        verb => Config::load(&args.config)
            .map_err(|e| e.to_string())
            .and_then(|config| match verb {
                None | Some(Verb::Run) => signet_proxy::run::main(config),
                Some(Verb::CheckConfig) => {
                    say(&format!("{}: good", args.config.display()));
                    Ok(())
                }
                Some(Verb::PrintConfig) => config.print().map(|text| say(text.trim_end())),
                Some(Verb::Redirect(verb)) => redirected(verb, Some(&config)),
            }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&fault);
            ExitCode::FAILURE
        }
    }
}

fn redirected(verb: &redirect::Verb, config: Option<&Config>) -> Result<(), String> {
    let done = redirect::run(verb, config).map_err(|e| format!("redirect: {e}"))?;
    say(done.trim_end());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answers of the verbs that end")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "faults before logging is up, or after it is gone"
)]
fn complain(fault: &str) {
    eprintln!("signet-proxy: {fault}");
}
