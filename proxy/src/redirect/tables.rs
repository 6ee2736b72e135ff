//! The kernel's tables, by the programs that know them: `iptables-save` and `iptables-restore`, and those of IPv6.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::rules::{Family, Found, Plan};

/// Addresses of IPv6 in this network namespace, one a line; not there where the kernel has no IPv6.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";
/// Seconds to wait for another program that changes the tables.
const WAIT: &str = "--wait=5";
/// As much of a program's complaint is repeated.
const MAX_COMPLAINT: usize = 1024;

/// Why the tables are not as they were asked to be.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The program is not here.
    #[error(
        "{0} is not found: run this in an image that has iptables (the target redirect of deploy/Dockerfile)"
    )]
    Missing(&'static str),
    /// The program could not be run.
    #[error("run {program}: {source}")]
    Run {
        /// Which.
        program: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// It refused for want of a capability.
    #[error(
        "{program}: {said}: the container needs the capability NET_ADMIN, and user 0 to have it in effect"
    )]
    Forbidden {
        /// Which.
        program: &'static str,
        /// Its words.
        said: String,
    },
    /// It refused.
    #[error("{program}: {said}")]
    Refused {
        /// Which.
        program: &'static str,
        /// Its words.
        said: String,
    },
    /// It said yes, and the rules are not there.
    #[error("{0} took the rules, and they are not in force: does another program change the same tables?")]
    NotInForce(&'static str),
}

struct Programs {
    family: Family,
    save: &'static str,
    restore: &'static str,
}

const V4: Programs = Programs {
    family: Family::V4,
    save: "iptables-save",
    restore: "iptables-restore",
};
const V6: Programs = Programs {
    family: Family::V6,
    save: "ip6tables-save",
    restore: "ip6tables-restore",
};

/// Puts the plan in force for both families. Answers what was done.
pub(super) fn apply(plan: &Plan, ipv4_only: bool) -> Result<String, TableError> {
    V4.apply(plan)?;
    if ipv4_only {
        return Ok("redirected: IPv4 only; whatever speaks IPv6 goes past the proxy".into());
    }
    if !has_ipv6() {
        return Ok("redirected: IPv4; there is no IPv6 here".into());
    }
    V6.apply(plan)?;
    Ok("redirected: IPv4 and IPv6".into())
}

/// Takes away what is there of ours. Answers what was done.
pub(super) fn remove() -> Result<String, TableError> {
    let mut removed = V4.remove()?;
    if has_ipv6() {
        removed |= V6.remove()?;
    }
    Ok(if removed {
        "removed: traffic goes past the proxy".into()
    } else {
        "there was nothing to remove".into()
    })
}

fn has_ipv6() -> bool {
    std::fs::read_to_string(IPV6_ADDRESSES).is_ok_and(|addresses| !addresses.trim().is_empty())
}

impl Programs {
    fn found(&self) -> Result<Found, TableError> {
        run(self.save, &["-t", "nat"], "").map(|saved| Found::read(&saved))
    }

    fn restore(&self, text: &str) -> Result<(), TableError> {
        run(self.restore, &["--noflush", WAIT], text).map(drop)
    }

    fn apply(&self, plan: &Plan) -> Result<(), TableError> {
        self.restore(&plan.text(self.family, &self.found()?))?;
        if plan.holds(&self.found()?) {
            Ok(())
        } else {
            Err(TableError::NotInForce(self.restore))
        }
    }

    fn remove(&self) -> Result<bool, TableError> {
        let found = self.found()?;
        if found.is_empty() {
            return Ok(false);
        }
        self.restore(&found.removal())?;
        if self.found()?.is_empty() {
            Ok(true)
        } else {
            Err(TableError::NotInForce(self.restore))
        }
    }
}

/// Runs a program on `input`, and answers its output.
fn run(program: &'static str, args: &[&str], input: &str) -> Result<String, TableError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => TableError::Missing(program),
        _ => TableError::Run { program, source },
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A text is far smaller than a pipe, so this waits for nobody. One that left without reading says why by itself.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    let said: String = complaint.trim().chars().take(MAX_COMPLAINT).collect();
    Err(if may_change_networks() {
        TableError::Refused { program, said }
    } else {
        TableError::Forbidden { program, said }
    })
}

/// Whether this process has the capability in effect that the tables ask for.
fn may_change_networks() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|own| own.effective.contains(rustix::thread::CapabilitySet::NET_ADMIN))
}
