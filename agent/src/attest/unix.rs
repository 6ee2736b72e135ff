//! Processes of a machine without Kubernetes, by rules: user, group, executable. Between processes of
//! one user this is no boundary: one may trace the other, or start it with an environment of its choice.

use std::path::PathBuf;

use signet_certs::ServiceAccountId;
use tokio::net::UnixStream;

use super::peer::{Peer, PeerError};
use super::process::{FileId, ProcessError};
use super::{AttestError, Entitlement, Place, Subject, UnixRule, Wanted, Workload};

/// The attestor by rules.
#[derive(Debug)]
pub struct Unix {
    host_proc: PathBuf,
    rules: Vec<UnixRule>,
    mounts: FileId,
}

impl Unix {
    /// Processes by the table at `host_proc`.
    ///
    /// # Errors
    /// A sentence, when our own mount namespace cannot be told.
    pub fn new(host_proc: PathBuf, rules: Vec<UnixRule>) -> Result<Self, String> {
        let own = host_proc.join("self/ns/mnt");
        let mounts = FileId::of_path(&own).map_err(|e| format!("{}: {e}", own.display()))?;
        for rule in &rules {
            if let Some(executable) = &rule.executable
                && let Err(error) = FileId::of_path(executable)
            {
                tracing::warn!(
                    executable = %executable.display(), %error,
                    "a rule asks for an executable that is not there; it matches nothing until it is"
                );
            }
        }
        Ok(Self {
            host_proc,
            rules,
            mounts,
        })
    }

    /// All identities of the rules.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            ids: self
                .rules
                .iter()
                .map(|rule| (rule.id.clone(), super::WantedBy::default()))
                .collect(),
            synced: true,
        }
    }

    /// A handle on the peer.
    ///
    /// # Errors
    /// A [`PeerError`].
    pub fn peer(&self, stream: &UnixStream) -> Result<Peer, PeerError> {
        Peer::of(stream, &self.host_proc)
    }

    /// The workload of the peer.
    ///
    /// # Errors
    /// An [`AttestError`].
    pub fn attest(&self, peer: &Peer) -> Result<Workload, AttestError> {
        let mut found = Found::default();
        for rule in &self.rules {
            if self.matches(rule, peer, &mut found)? && found.identities.iter().all(|e| e.id != rule.id) {
                found.identities.push(Entitlement {
                    id: rule.id.clone(),
                    hint: rule.hint.clone(),
                });
                if found.executable.is_none() {
                    found.executable.clone_from(&rule.executable);
                }
            }
        }
        // Only now is it believed: all that was read was of the process that connected, and it lives.
        peer.recheck()?;
        if found.identities.is_empty() {
            return Err(match found.unreadable {
                Some(fault) => AttestError::Denied {
                    reason: "executable_unreadable",
                    text: fault.to_string(),
                },
                None => AttestError::Denied {
                    reason: "no_rule",
                    text: "no rule of the agent's configuration is about this process".into(),
                },
            });
        }
        Ok(Workload {
            identities: found.identities,
            subject: Subject::Process {
                uid: peer.uid(),
                executable: found.executable,
            },
        })
    }

    /// Whether the rules say the same of the peer as they did.
    ///
    /// # Errors
    /// An [`AttestError`].
    pub fn recheck(&self, peer: &Peer, workload: &Workload) -> Result<(), AttestError> {
        if self.attest(peer)? == *workload {
            return Ok(());
        }
        Err(AttestError::Denied {
            reason: "rules_changed",
            text: "the process is not what it was when it connected".into(),
        })
    }

    /// Namespace and labels of the default identity's rules.
    #[must_use]
    pub fn place(&self, workload: &Workload) -> Option<Place> {
        let id = &workload.identities.first()?.id;
        let account = ServiceAccountId::try_from(id).ok()?;
        let rule = self.rules.iter().find(|rule| rule.id == *id)?;
        Some(Place {
            workload: signet_policy::Workload {
                namespace: account.namespace().to_owned(),
                labels: rule.labels.clone(),
                role: signet_policy::scope::Role::Sidecar,
            },
            ports: Vec::new(),
        })
    }

    fn matches(&self, rule: &UnixRule, peer: &Peer, found: &mut Found) -> Result<bool, AttestError> {
        if rule.uid.is_some_and(|uid| uid != peer.uid()) || rule.gid.is_some_and(|gid| gid != peer.gid()) {
            return Ok(false);
        }
        let Some(path) = &rule.executable else {
            // A rule asks for something; configuration sees to it.
            return Ok(rule.uid.is_some() || rule.gid.is_some());
        };
        let Some((executable, mounts)) = found.read(peer)? else {
            return Ok(false);
        };
        // A file that is not there matches nothing.
        let asked = FileId::of_path(path).ok();
        Ok(mounts == self.mounts && asked == Some(executable))
    }
}

/// What was found out so far.
#[derive(Default)]
struct Found {
    identities: Vec<Entitlement>,
    executable: Option<PathBuf>,
    facts: Option<(FileId, FileId)>,
    unreadable: Option<ProcessError>,
}

impl Found {
    /// Executable and mount namespace, read at most once; none when we may not know.
    fn read(&mut self, peer: &Peer) -> Result<Option<(FileId, FileId)>, AttestError> {
        if self.facts.is_none() && self.unreadable.is_none() {
            match peer
                .executable()
                .and_then(|executable| Ok((executable, peer.mounts()?)))
            {
                Ok(facts) => self.facts = Some(facts),
                Err(fault @ ProcessError::Unreadable(..)) => self.unreadable = Some(fault),
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(self.facts)
    }
}

#[cfg(test)]
mod tests;
