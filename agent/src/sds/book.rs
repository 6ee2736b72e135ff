//! What one stream asked for, was sent, accepted and rejected. Shared by both protocols; pure.
//!
//! At most one push is unanswered at a time. A version the client rejected is never sent again on
//! that stream: Envoy acknowledges it the second time without using it (`envoy.md` §6).

use std::collections::BTreeMap;
use std::sync::Arc;

use signet_certs::id::MAX_ID_BYTES;
use tonic::Code;

use super::{Closing, MAX_NAMES, Notice};
use crate::ca_client::bounded;
use crate::secrets::{ALL, Encoded, Resolved, resolve};
use crate::svids::Seen;

/// A resource's version; stands for its bytes.
pub type Version = Arc<str>;

/// Most of a name that is shown.
const SHOWN: usize = 200;
/// Most of its own identities that a workload is told beside a refusal: the text travels in a header.
const MOST_TOLD: usize = 3;

/// The state of one stream.
#[derive(Debug, Default)]
pub struct Book {
    names: BTreeMap<String, Option<Version>>,
    rejected: BTreeMap<String, Version>,
    unanswered: Option<Push>,
    pushes: u64,
    node: String,
    acked: Option<String>,
    last_sent: Option<String>,
    last_nack: Option<String>,
    notices: Vec<Notice>,
    seen_first: bool,
}

#[derive(Debug)]
struct Push {
    nonce: String,
    version: String,
    items: Vec<(String, Version)>,
}

/// What can be done for the names asked for.
#[derive(Debug, Default)]
pub struct Look<'a> {
    /// Ready and not sent yet, roots first.
    pub ready: Vec<(String, &'a Encoded)>,
    /// Cannot exist; the names with the reason.
    pub refused: Vec<(String, Closing)>,
}

/// What a nonce says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers nothing.
    None,
    /// It answers the last push.
    Last,
    /// It answers an older one.
    Stale,
}

impl Book {
    /// Notes who the client says it is; only the first message counts. Identity never comes from here.
    /// Says whether this is the first message.
    pub fn begin(&mut self, node: Option<&str>) -> bool {
        if let (false, Some(node)) = (self.seen_first, node) {
            self.node = shown(node);
        }
        !std::mem::replace(&mut self.seen_first, true)
    }

    /// Asks for `name` (again): it counts as not sent.
    ///
    /// # Errors
    /// When there are too many.
    pub fn ask(&mut self, name: String) -> Result<(), Closing> {
        self.enter(name, None)
    }

    /// The client holds `version` of `name` already.
    pub fn has(&mut self, name: &str, version: &str) {
        if let Some(sent) = self.names.get_mut(name) {
            *sent = Some(version.into());
        }
    }

    /// No longer asks for `name`.
    pub fn forget(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// Asks for exactly these names; those asked for before keep what they were sent, unless `anew`.
    ///
    /// # Errors
    /// When there are too many.
    pub fn ask_exactly(&mut self, names: Vec<String>, anew: bool) -> Result<(), Closing> {
        let mut before = std::mem::take(&mut self.names);
        for name in names {
            let sent = if anew {
                None
            } else {
                before.remove(&name).flatten()
            };
            self.enter(name, sent)?;
        }
        Ok(())
    }

    fn enter(&mut self, name: String, sent: Option<Version>) -> Result<(), Closing> {
        if name.len() > MAX_ID_BYTES {
            return Err(no_such_name(&name));
        }
        self.names.insert(name, sent);
        if self.names.len() <= MAX_NAMES {
            return Ok(());
        }
        let text = format!("more than {MAX_NAMES} names on one stream");
        Err(Closing {
            code: Code::ResourceExhausted,
            reason: "too_many_names",
            text,
        })
    }

    /// Takes the answer to a push. `error` is the client's text when it rejects.
    pub fn answer(&mut self, nonce: &str, error: Option<&str>) -> Answer {
        if nonce.is_empty() || self.pushes == 0 {
            return Answer::None;
        }
        match self.unanswered.take_if(|push| push.nonce == nonce) {
            Some(push) => {
                self.settle(push, error);
                Answer::Last
            }
            None if nonce == self.pushes.to_string() => Answer::Last,
            None => {
                self.notices.push(Notice::Stale);
                Answer::Stale
            }
        }
    }

    fn settle(&mut self, push: Push, error: Option<&str>) {
        let Some(error) = error else {
            if !push.items.is_empty() {
                self.acked = Some(push.version);
            }
            self.notices.push(Notice::Acked);
            return;
        };
        let text = bounded(error);
        let rejected = push
            .items
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect::<Vec<_>>();
        self.last_nack = Some(text.clone());
        self.rejected.extend(push.items);
        self.notices.push(Notice::Nacked {
            rejected: rejected.join(", "),
            text,
        });
    }

    /// Whether a push waits for its answer.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.unanswered.is_some()
    }

    /// Looks every name up in what is `seen`.
    #[must_use]
    pub fn look<'a>(&self, seen: &'a Seen) -> Look<'a> {
        let mut look = Look::default();
        let mut ready: Vec<(u8, String, &Encoded)> = Vec::new();
        for (name, sent) in &self.names {
            let (rank, encoded) = match resolve(name, seen) {
                Resolved::Roots(encoded) => (u8::from(name == ALL), encoded),
                Resolved::Pair(encoded) => (2, encoded),
                Resolved::Awaited => continue,
                Resolved::Impossible => {
                    look.refused.push((name.clone(), no_such_name(name)));
                    continue;
                }
                Resolved::NotYours => {
                    look.refused.push((name.clone(), not_yours(name, seen)));
                    continue;
                }
            };
            let rejected = self.rejected.get(name) == Some(encoded.version());
            if sent.as_ref() != Some(encoded.version()) && !rejected {
                ready.push((rank, name.clone(), encoded));
            }
        }
        ready.sort_by_key(|(rank, ..)| *rank);
        look.ready = ready
            .into_iter()
            .map(|(_, name, encoded)| (name, encoded))
            .collect();
        look
    }

    /// Notes a push of these resources and returns its version and nonce.
    pub fn push(&mut self, items: &[(String, &Encoded)]) -> (String, String) {
        self.pushes = self.pushes.saturating_add(1);
        let items: Vec<(String, Version)> = items
            .iter()
            .map(|(name, encoded)| (name.clone(), Arc::clone(encoded.version())))
            .collect();
        for (name, version) in &items {
            self.names.insert(name.clone(), Some(Arc::clone(version)));
        }
        let mut versions: Vec<&str> = items.iter().map(|(_, version)| version.as_ref()).collect();
        versions.dedup();
        let version = versions.join("-");
        let nonce = self.pushes.to_string();
        if !items.is_empty() {
            self.last_sent = Some(version.clone());
        }
        self.unanswered = Some(Push {
            nonce: nonce.clone(),
            version: version.clone(),
            items,
        });
        (version, nonce)
    }

    /// Notes a refusal that does not end the stream.
    pub fn refuse(&mut self, name: &str, closing: Closing) {
        self.names.remove(name);
        self.notices.push(Notice::Refused(closing));
    }

    /// The names asked for that nothing was sent for yet.
    #[must_use]
    pub fn waiting(&self) -> Vec<&str> {
        self.names
            .iter()
            .filter(|(_, sent)| sent.is_none())
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The end of a stream whose secret did not come in time, because of `cause`.
    #[must_use]
    pub fn give_up(&self, cause: &str) -> Closing {
        let waiting = self.waiting();
        let rejected = waiting.iter().any(|name| self.rejected.contains_key(*name));
        let names = waiting.into_iter().map(shown).collect::<Vec<_>>().join(", ");
        let text = match (&self.last_nack, rejected) {
            (Some(nack), true) => {
                format!(
                    "{names}: this client rejected the current version ({nack}); it is not sent unchanged"
                )
            }
            _ => format!("{names}: not ready: {cause}"),
        };
        Closing {
            code: Code::Unavailable,
            reason: "not_ready",
            text,
        }
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// `node.id` of the first message, cut to a bound.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The names asked for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Version of the last push, of the last one accepted, and the client's last rejection.
    #[must_use]
    pub fn progress(&self) -> (Option<&str>, Option<&str>, Option<&str>) {
        (
            self.last_sent.as_deref(),
            self.acked.as_deref(),
            self.last_nack.as_deref(),
        )
    }
}

/// Every message of this service is about secrets; some clients leave the type out.
///
/// # Errors
/// When it names another type.
pub fn check_type(type_url: &str) -> Result<(), Closing> {
    let wanted = signet_proto::sds::SECRET_TYPE_URL;
    if type_url.is_empty() || type_url == wanted {
        return Ok(());
    }
    let text = format!("type {:?} is not served here, only {wanted}", shown(type_url));
    Err(Closing {
        code: Code::InvalidArgument,
        reason: "type_url",
        text,
    })
}

fn no_such_name(name: &str) -> Closing {
    let text = format!(
        "no secret is called {:?}; there are \"default\", \"ROOTCA\", \"ALL\", the SPIFFE IDs of this workload, of \
         its trust domain and of those it federates with",
        shown(name)
    );
    Closing {
        code: Code::NotFound,
        reason: "no_such_name",
        text,
    }
}

fn not_yours(name: &str, seen: &Seen) -> Closing {
    let own = seen.svids.iter().take(MOST_TOLD).map(|held| held.id.as_str());
    let own: Vec<&str> = own.collect();
    let text = format!(
        "this workload may not have {}; it has {}",
        shown(name),
        own.join(", ")
    );
    Closing {
        code: Code::PermissionDenied,
        reason: "not_yours",
        text,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).filter(|c| !c.is_control()).collect()
}
