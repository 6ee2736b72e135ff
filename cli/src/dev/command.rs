//! `signet dev`: a system in the foreground, until interrupted.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::files::{SECRET_MODE, write_atomic};
use signet_runtime::shutdown::signalled;
use signet_runtime::socket::{own_uid, private_directory};

use super::app::App;
use super::guard::Guard;
use super::plan::SystemOptions;
use super::sample;
use super::system::{System, SystemError};
use super::workload::{Foreign, Workload};
use crate::Shell;
use crate::args::DevArgs;
use crate::fault::{Answer, Fault};
use crate::inputs;

/// Tells a running system from a leftover directory.
const LOCK_FILE: &str = "lock";
/// Says where everything is, as `--json` does, for as long as the system runs.
const READY_FILE: &str = "ready.json";
/// Namespace of the workload that stands for all processes of the user.
const DEMO_NAMESPACE: &str = "demo";
/// Account of that workload.
const DEMO_ACCOUNT: &str = "web";

pub(crate) async fn run(args: DevArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    if let Some(command) = args.command {
        return super::apply::run(command, shell).await;
    }
    let samples = args.workloads.is_empty() && args.apps.is_empty();
    let apps: Vec<App> = if samples {
        sample::apps().map_err(Fault::unanswered)?
    } else {
        args.apps
    };
    let workloads = workloads(args.workloads)?;
    note_others(&workloads, shell);
    check_foreign(&args.foreign, &args.trust_domain)?;
    let home = Home::open(args.dir)?;
    let interrupted = signalled();
    tokio::pin!(interrupted);
    let guard = Guard::start()?;
    let mut system = System::new(SystemOptions {
        directory: home.path.clone(),
        trust_domain: args.trust_domain,
        svid_ttl: args.svid_ttl,
        workloads,
        apps,
        samples,
        foreign: args.foreign,
    });
    let outcome = async {
        let ready = tokio::select! {
            ready = system.start(|pid| guard.watch(pid)) => ready.map_err(fault)?,
            _ = &mut interrupted => return Ok(Answer::Yes),
        };
        let line = serde_json::to_string(&ready).map_err(Fault::unanswered)? + "\n";
        write_atomic(&home.path.join(READY_FILE), line.as_bytes(), SECRET_MODE)?;
        if args.json {
            shell.printer.write(&line)?;
        } else {
            shell.show(&ready)?;
        }
        shell.say("ready; Ctrl-C ends it");
        tokio::select! {
            died = system.end() => Err(Fault::refused(died)),
            signal = &mut interrupted => {
                shell.say(format_args!("{}: stopping", signal.unwrap_or("no signals")));
                Ok(Answer::Yes)
            }
        }
    }
    .await;
    system.stop().await;
    guard.dismiss().await;
    home.close(outcome.is_ok());
    outcome
}

/// Workloads of other users are told what they need.
fn note_others(workloads: &[Workload], shell: &Shell) {
    if let Some(uid) = workloads
        .iter()
        .filter_map(|w| w.uid)
        .find(|uid| *uid != own_uid())
    {
        shell.say(format_args!(
            "note: the directory of the agent's socket is private to uid {}; processes of uid {uid} reach it only \
             once you open it to them",
            own_uid()
        ));
    }
}

/// The workloads asked for; every process of this user, as `demo/web`, where none is.
fn workloads(asked: Vec<Workload>) -> Result<Vec<Workload>, Fault> {
    let uid = own_uid();
    if asked.is_empty() {
        let account = ServiceAccountId::new(DEMO_NAMESPACE, DEMO_ACCOUNT).map_err(Fault::unanswered)?;
        return Ok(vec![Workload::of_user(account, uid)]);
    }
    Ok(asked
        .into_iter()
        .map(|workload| workload.or_of_user(uid))
        .collect())
}

/// A bundle that cannot be read is told before anything is started.
fn check_foreign(foreign: &[Foreign], own: &TrustDomain) -> Result<(), Fault> {
    for Foreign { trust_domain, file } in foreign {
        if trust_domain == own {
            return Err(Fault::Unanswered(format!(
                "--foreign {trust_domain}: this is our own trust domain; nobody else vouches for its names"
            )));
        }
        inputs::bundle(file, Some(trust_domain), None)?;
    }
    Ok(())
}

/// A daemon that died is an answer; everything else never got that far.
fn fault(error: SystemError) -> Fault {
    match error {
        SystemError::Process(died @ super::ProcessError::Ended { .. }) => Fault::refused(died),
        other => Fault::unanswered(other),
    }
}

/// The directory of a system: the operator's, or one of our own that goes with us.
struct Home {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
    /// Held as long as the system runs: a second one would replace the first one's tokens.
    _lock: Option<File>,
}

impl Home {
    /// A directory that is already there keeps its permissions: what is private lies below it.
    fn open(given: Option<PathBuf>) -> Result<Self, Fault> {
        if let Some(path) = given {
            if !path.is_dir() {
                private_directory(&path)?;
            }
            let path = std::path::absolute(path)?;
            let lock = lock(&path.join(LOCK_FILE))?;
            return Ok(Self {
                path,
                temporary: None,
                _lock: Some(lock),
            });
        }
        let temporary = tempfile::Builder::new().prefix("signet-dev-").tempdir()?;
        Ok(Self {
            path: temporary.path().to_owned(),
            temporary: Some(temporary),
            _lock: None,
        })
    }

    /// After a failure the logs are worth more than a tidy machine.
    fn close(self, well: bool) {
        let _ = std::fs::remove_file(self.path.join(READY_FILE));
        let has_logs = self.path.join("ca/log").exists();
        if let Some(temporary) = self.temporary
            && !well
            && has_logs
        {
            let _ = temporary.keep();
        }
    }
}

fn lock(path: &Path) -> Result<File, Fault> {
    let named = |e: std::io::Error| Fault::Unanswered(format!("lock {}: {e}", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(named)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Fault::Unanswered(format!(
            "another `signet dev` holds {}; end it, or choose another --dir",
            path.display()
        ))),
        Err(TryLockError::Error(e)) => Err(named(e)),
    }
}
