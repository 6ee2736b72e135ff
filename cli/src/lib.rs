//! `signet`: sees and steers the parts. `signet dev` runs all of it on one machine.
//!
//! | module | owns |
//! |---|---|
//! | [`args`] | the command line |
//! | [`svid`] | request, show, verify, watch, rotate |
//! | [`jwt`] | fetch, inspect, validate |
//! | [`workload`], [`federation`] | who is on a node, and which foreign trust domains are accepted |
//! | [`bundle`] | trust bundles |
//! | [`authority`] | the CA's authorities and the encrypted backup of its state |
//! | [`policy`] | check, explain, diff, analyze |
//! | [`proxy`] | what running proxies say of themselves and find when asked to try; whether STRICT would cut somebody off |
//! | [`token`] | what the CA will say to a token, and the fix |
//! | [`dev`] | a whole system as child processes, for `signet dev` and for tests |
//! | [`admin`] | the client of the admin sockets |
//! | [`ca`], `workload_api` | the clients of the CA's own services and of an agent's workload socket |
//! | [`mod@print`], [`times`], [`fault`] | pages and contracts, times, exit codes |
//! | [`inputs`], [`kubernetes`] | files an operator names, clusters an operator names |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod admin;
pub mod args;
pub mod authority;
pub mod bundle;
pub mod ca;
pub mod dev;
pub mod fault;
pub mod federation;
#[cfg(test)]
mod golden;
pub mod inputs;
pub mod jwt;
pub mod kubernetes;
pub mod policy;
pub mod print;
pub mod proxy;
pub mod svid;
pub mod times;
pub mod token;
pub mod workload;
mod workload_api;

use std::sync::Arc;

use clap::CommandFactory as _;
use signet_runtime::{Clock, UnixTime};

use args::{
    AuthorityCommand, BundleCommand, Cli, Command, FederationCommand, JwtCommand, SvidCommand, TokenCommand,
    WorkloadCommand,
};
use fault::{Answer, Fault};
use print::Printer;

/// What a command works with: the time, and where its data goes.
pub struct Shell {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where data goes.
    pub printer: Printer,
}

impl Shell {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Shows a view.
    ///
    /// # Errors
    /// As [`Printer::show`].
    pub fn show(&mut self, view: &impl print::View) -> Result<(), Fault> {
        let now = self.now();
        self.printer.show(view, now)
    }

    /// Words for people, on stderr. They carry no data, so nothing depends on their arrival.
    pub fn say(&self, words: impl std::fmt::Display) {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{words}");
    }
}

/// Runs one command.
///
/// # Errors
/// A [`Fault`] when there is nothing to show; its text is for stderr.
pub async fn run(cli: Cli, shell: &mut Shell) -> Result<Answer, Fault> {
    match cli.command {
        Command::Svid(command) => run_svid(command, shell).await,
        Command::Jwt(JwtCommand::Fetch(args)) => jwt::fetch::run(&args, shell).await,
        Command::Jwt(JwtCommand::Inspect(args)) => jwt::inspect::run(&args, shell),
        Command::Jwt(JwtCommand::Validate(args)) => jwt::validate::run(&args, shell).await,
        Command::Workload(WorkloadCommand::List(args)) => workload::list(&args, shell).await,
        Command::Workload(WorkloadCommand::Policies(args)) => workload::policies::run(&args, shell).await,
        Command::Bundle(BundleCommand::Show(args)) => bundle::show(args, shell).await,
        Command::Bundle(BundleCommand::Export(args)) => bundle::export(args, shell).await,
        Command::Federation(FederationCommand::List(args)) => federation::list(&args, shell).await,
        Command::Authority(AuthorityCommand::Show(args)) => authority::show::run(&args, shell).await,
        Command::Authority(AuthorityCommand::Export(args)) => authority::export(&args, shell).await,
        Command::Authority(AuthorityCommand::Restore(args)) => authority::restore(&args, shell).await,
        Command::Token(TokenCommand::Check(args)) => token::run(&args, shell).await,
        Command::Policy(command) => policy::run(command, shell).await,
        Command::Analyze(args) => policy::analyze::run(&args, shell).await,
        Command::Proxy(command) => proxy::run(command, shell).await,
        Command::StrictReady(args) => proxy::strict_ready::run(&args, shell).await,
        Command::TlsCheck(args) => proxy::tls_check::run(&args, shell).await,
        Command::Why(args) => proxy::why::run(&args, shell).await,
        Command::Dev(args) => dev::command::run(args, shell).await,
        Command::DevGuard => dev::guard::run(),
        Command::Completions { shell: kind } => {
            let mut script = Vec::new();
            clap_complete::generate(kind, &mut Cli::command(), "signet", &mut script);
            shell.printer.write(&String::from_utf8_lossy(&script))?;
            Ok(Answer::Yes)
        }
    }
}

async fn run_svid(command: SvidCommand, shell: &mut Shell) -> Result<Answer, Fault> {
    match command {
        SvidCommand::Request(args) => svid::request::run(args, shell).await,
        SvidCommand::Show(args) => svid::show::run(&args, shell).await,
        SvidCommand::Verify(args) => svid::verify::run(args, shell),
        SvidCommand::Watch(args) => svid::watch::run(&args, shell).await,
        SvidCommand::Rotate(args) => svid::rotate::run(&args, shell).await,
    }
}
