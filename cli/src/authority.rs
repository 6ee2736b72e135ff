//! `signet authority`: what the CA signs with, and the encrypted backup of its state.
//!
//! | module | owns |
//! |---|---|
//! | [`show`] | the roots and the issuing authority, from the CA's admin socket |
//! | [`backup`] | the encrypted file, bytes in and bytes out |
//! | [`state`] | what has to be known of the CA's state to move it safely |
//! | [`place`] | the directory or the Secret the CA keeps it in |

pub mod backup;
pub mod place;
pub mod show;
pub mod state;

use serde::Serialize;
use signet_certs::UnixTime;
use signet_runtime::files::{SECRET_MODE, read_bounded, write_atomic};

use crate::Shell;
use crate::args::{ExportArgs, RestoreArgs};
use crate::fault::{Answer, Fault};
use crate::inputs;
use crate::print::{Cell, Page, Tone, View};
use place::Place;
use state::State;

/// What was moved, and where to.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    /// Where it came from.
    pub from: String,
    /// Where it is now.
    pub to: String,
    /// Its trust domain.
    pub trust_domain: String,
    /// Its bundle sequence, as written.
    pub sequence: u64,
    /// Its roots.
    pub roots: Vec<MovedRoot>,
    /// Its keys for JWT-SVIDs.
    pub jwt_keys: Vec<MovedKey>,
}

/// One key for JWT-SVIDs in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MovedKey {
    /// Its name in token headers.
    pub kid: String,
    /// Whether its private half is there.
    pub has_key: bool,
    /// Where it stands in its life: `prepared`, `active` or `old`.
    pub state: String,
}

/// One root in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MovedRoot {
    /// Its name in logs.
    pub authority_id: String,
    /// Whether its private key is there.
    pub has_key: bool,
    /// Whether it is the one that signs.
    pub active: bool,
}

impl View for Moved {
    fn page(&self, page: &mut Page, _now: UnixTime) {
        page.fact("from", &*self.from);
        page.fact("to", &*self.to);
        page.fact("trust domain", &*self.trust_domain);
        page.fact("sequence", self.sequence.to_string());
        page.gap();
        let rows = self.roots.iter().map(|root| {
            let key = if root.has_key {
                "yes".into()
            } else {
                Cell::new("no", Tone::Warn)
            };
            vec![
                (&*root.authority_id).into(),
                key,
                if root.active { "yes" } else { "no" }.into(),
            ]
        });
        page.table(&["root", "key", "signs"], rows.collect());
        if !self.jwt_keys.is_empty() {
            page.gap();
            let rows = self.jwt_keys.iter().map(|key| {
                let private = if key.has_key { "yes" } else { "no" };
                vec![(&*key.kid).into(), private.into(), (&*key.state).into()]
            });
            page.table(&["JWT key", "key", "state"], rows.collect());
        }
    }
}

pub(crate) async fn export(args: &ExportArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    if !args.force && args.out.exists() {
        let text = format!(
            "{} exists; choose another name, or pass --force to replace it",
            args.out.display()
        );
        return Err(Fault::Unanswered(text));
    }
    let passphrase = inputs::passphrase(&args.passphrase_file)?;
    let place = Place::named(&args.state)?;
    let json = place.read().await?.ok_or_else(|| {
        Fault::Unanswered(format!(
            "{place} holds no state; has a CA ever been started with it?"
        ))
    })?;
    let state = State::read(&json).map_err(|e| Fault::Unanswered(format!("{place}: {e}")))?;
    let sealed = backup::seal(&json, &passphrase, backup::ITERATIONS).map_err(Fault::unanswered)?;
    write_atomic(&args.out, &sealed, SECRET_MODE)?;
    shell.show(&moved(
        place.to_string(),
        args.out.display().to_string(),
        &state,
        state.sequence(),
    ))?;
    shell.say("keep the backup and its passphrase apart; whoever has both can issue any identity");
    Ok(Answer::Yes)
}

pub(crate) async fn restore(args: &RestoreArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let shown = args.backup.display();
    let sealed = read_bounded(&args.backup, backup::MAX_FILE_BYTES).map_err(Fault::unanswered)?;
    let passphrase = inputs::passphrase(&args.passphrase_file)?;
    let json = backup::open(&sealed, &passphrase).map_err(|e| Fault::Unanswered(format!("{shown}: {e}")))?;
    let state = State::read(&json).map_err(|e| Fault::Unanswered(format!("{shown}: {e}")))?;
    let place = Place::named(&args.state)?;
    let sequence = match place.read().await? {
        None => state.sequence(),
        Some(_) if !args.force => {
            let text =
                format!("{place} holds state already; pass --force to replace it, after an export of it");
            return Err(Fault::Unanswered(text));
        }
        Some(there) => state.sequence_after(&there),
    };
    let json = if sequence == state.sequence() {
        json
    } else {
        shell.say(format_args!(
            "note: the sequence is raised from {} to {sequence}, so that no agent sees the bundle go backwards",
            state.sequence()
        ));
        state::with_sequence(&json, sequence).map_err(Fault::unanswered)?
    };
    place.write(&json, args.force).await?;
    shell.show(&moved(shown.to_string(), place.to_string(), &state, sequence))?;
    shell.say("restart the CA to use it");
    Ok(Answer::Yes)
}

fn moved(from: String, to: String, state: &State, sequence: u64) -> Moved {
    Moved {
        from,
        to,
        trust_domain: state.trust_domain().to_string(),
        sequence,
        roots: state.roots().to_vec(),
        jwt_keys: state.jwt_keys().to_vec(),
    }
}
