//! `signet jwt fetch`: a token from an agent, to the file the operator names.

use std::path::{Path, PathBuf};

use serde::Serialize;
use signet_certs::jwt::{JwtSvid, Unverified};
use signet_certs::{SpiffeId, UnixTime};
use signet_proto::wire::Jwtsvid;
use signet_runtime::files::{SECRET_MODE, write_atomic};
use zeroize::Zeroizing;

use crate::Shell;
use crate::args::JwtFetchArgs;
use crate::fault::{Answer, Fault};
use crate::inputs::STDIN;
use crate::print::{Page, View};
use crate::times::{Moment, seconds_until};
use crate::workload_api::WorkloadApi;

/// What was got, and where it is.
#[derive(Clone, Debug, Serialize)]
pub struct Fetched {
    /// The identity.
    pub spiffe_id: String,
    /// For whom the token is.
    pub audiences: Vec<String>,
    /// The key that signed it.
    pub kid: Option<String>,
    /// When it ends.
    pub expires_at: Moment,
    /// Seconds until then.
    pub seconds_left: i64,
    /// The file the token is in.
    pub token_file: PathBuf,
}

impl View for Fetched {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("SPIFFE ID", &*self.spiffe_id);
        page.fact("audience", self.audiences.join(", "));
        page.fact("key", self.kid.as_deref().unwrap_or("not named"));
        page.fact("ends", self.expires_at.words(now));
        page.fact("token", self.token_file.display().to_string());
    }
}

pub(crate) async fn run(args: &JwtFetchArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let api = WorkloadApi::at(&args.socket);
    let mut svids = api.jwt_svids(&args.audience, args.spiffe_id.as_ref()).await?;
    let wrong = |e: &dyn std::fmt::Display| {
        Fault::Unanswered(format!(
            "{}: the agent's answer is not used: {e}",
            args.socket.display()
        ))
    };
    if svids.is_empty() {
        return Err(wrong(&"it holds no token"));
    }
    if svids.len() > 1 {
        let others: Vec<&str> = svids.iter().skip(1).map(|svid| svid.spiffe_id.as_str()).collect();
        shell.say(format_args!(
            "note: this workload has other identities as well; --spiffe-id chooses one of {}",
            others.join(", ")
        ));
    }
    let mut first = svids.swap_remove(0);
    let says = check(&first, args).map_err(|e| wrong(&e))?;
    let token = Zeroizing::new(std::mem::take(&mut first.svid));
    if args.out == Path::new(STDIN) {
        let line = Zeroizing::new(format!("{}\n", *token));
        shell.printer.write(&line)?;
        return Ok(Answer::Yes);
    }
    write_atomic(&args.out, token.as_bytes(), SECRET_MODE)?;
    let now = shell.now();
    shell.show(&fetched(&first.spiffe_id, &says, &args.out, now).ok_or_else(|| wrong(&"it never ends"))?)?;
    Ok(Answer::Yes)
}

/// The token says what was asked for. Whose key signed it is for its receiver to judge.
fn check(svid: &Jwtsvid, args: &JwtFetchArgs) -> Result<Unverified, String> {
    let says = JwtSvid::read_unverified(&svid.svid).map_err(|e| e.to_string())?;
    says.check().map_err(|e| e.to_string())?;
    let id: SpiffeId = svid
        .spiffe_id
        .parse()
        .map_err(|e| format!("{:?} is no SPIFFE ID: it {e}", svid.spiffe_id))?;
    let expected = args.spiffe_id.as_ref().unwrap_or(&id);
    if says.id().as_ref() != Some(expected) {
        return Err(format!("its token is not of {expected}"));
    }
    let audiences = super::inspect::audiences(&says);
    match args.audience.iter().find(|wanted| !audiences.contains(wanted)) {
        Some(missing) => Err(format!("its token is not for audience {missing:?}")),
        None => Ok(says),
    }
}

fn fetched(spiffe_id: &str, says: &Unverified, out: &Path, now: UnixTime) -> Option<Fetched> {
    let expires_at = says.expires_at()?;
    Some(Fetched {
        spiffe_id: spiffe_id.into(),
        audiences: super::inspect::audiences(says),
        kid: super::inspect::text(&says.header, "kid"),
        expires_at: Moment(expires_at),
        seconds_left: seconds_until(expires_at, now),
        token_file: out.to_owned(),
    })
}
