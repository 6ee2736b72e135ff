//! The binary `signet`: reads the command line and its surroundings, runs one command, ends with its
//! exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use signet_cli::args::Cli;
use signet_cli::fault::{Answer, Fault, exit_code};
use signet_cli::print::Printer;
use signet_cli::{Shell, run};
use signet_runtime::SystemClock;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Keys and tokens pass through this process. What cannot be hardened here does not stop the command.
    let _ = signet_runtime::harden::process();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return end(&Err(Fault::unanswered(format!("start: {error}")))),
    };
    let printer = Printer::new(Box::new(std::io::stdout()), cli.output, colours());
    let mut shell = Shell {
        clock: std::sync::Arc::new(SystemClock),
        printer,
    };
    let outcome = runtime.block_on(run(cli, &mut shell));
    // Whatever still waits (a read of standard input, say) must not hold the exit up.
    runtime.shutdown_background();
    end(&outcome)
}

fn end(outcome: &Result<Answer, Fault>) -> ExitCode {
    if let Err(fault @ (Fault::Refused(_) | Fault::Unanswered(_))) = outcome {
        let _ = writeln!(std::io::stderr(), "signet: {fault}");
    }
    exit_code(outcome)
}

/// Colours on a terminal, unless <https://no-color.org> asks for none.
fn colours() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the surroundings of the process are read here"
    )]
    let unwanted = std::env::var("NO_COLOR").is_ok_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !unwanted
}
