//! `signet tls-check`: one real handshake between two workloads, and which side is wrong.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;
use signet_runtime::UnixTime;

use super::NONE;
use super::asked::{AskedRequest, Decided, Question, TlsChecked, TlsFacts};
use super::ladder::NOT_NAMED;
use super::link::{Kubectl, Link, LinkError};
use super::place::Place;
use super::ruling::{Ruling, Side, of};
use crate::Shell;
use crate::args::{EndsArgs, PodArgs};
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};
use crate::times::relative;

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct TlsCheck {
    /// Which side is wrong, and what to do.
    #[serde(flatten)]
    pub ruling: Ruling,
    /// Who was asked for the handshake.
    pub from: String,
    /// What came of it.
    pub handshake: TlsChecked,
    /// Who was asked at the other end.
    pub to: Option<String>,
    /// What it says.
    pub to_says: Option<Decided>,
    /// Why it says nothing.
    pub to_silence: Option<String>,
}

impl TlsCheck {
    /// Of these answers.
    #[must_use]
    pub fn of(
        from: String,
        handshake: TlsChecked,
        (to, says): (Option<String>, Result<Decided, String>),
    ) -> Self {
        let (to_says, to_silence) = match says {
            Ok(says) => (Some(says), None),
            Err(silence) => (None, Some(silence)),
        };
        Self {
            ruling: of(&handshake, to_says.as_ref()),
            from,
            handshake,
            to,
            to_says,
            to_silence,
        }
    }
}

impl View for TlsCheck {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let ruling = &self.ruling;
        let (word, tone) = match (ruling.good, ruling.side) {
            (true, _) => ("ok".to_owned(), Tone::Good),
            (false, Some(Side::From)) => (format!("FAILED, by {}", self.from), Tone::Bad),
            (false, Some(Side::To)) => (format!("FAILED, by {}", self.handshake.destination), Tone::Bad),
            (false, Some(Side::Between) | None) => ("FAILED".to_owned(), Tone::Bad),
        };
        page.line(Cell::new(format!("{word}: {}", ruling.sentence), tone));
        page.gap();
        self.calling(page, now);
        page.gap();
        self.called(page);
        if let Some(tls) = &self.handshake.tls {
            page.gap();
            tls.show(page, now);
        }
        if !ruling.fix.is_empty() {
            page.gap();
            page.heading("what to do");
            ruling.fix.iter().for_each(|fix| page.line(format!("  {fix}")));
        }
    }
}

impl TlsCheck {
    fn calling(&self, page: &mut Page, now: UnixTime) {
        let checked = &self.handshake;
        page.fact("from", &*self.from);
        let own = match &checked.own {
            Some(own) => {
                let tone = if own.valid { Tone::Plain } else { Tone::Bad };
                let words = format!("{}, ends {}", own.spiffe_id, relative(own.not_after.0, now));
                Cell::new(words, tone)
            }
            None => Cell::new("nobody: it has no SVID", Tone::Bad),
        };
        page.fact("  presents", own);
        match &checked.listed {
            Some(listed) => {
                page.fact("  by", format!("{} ({})", listed.by, listed.upstream));
                let mode = match listed.mode.as_str() {
                    "mtls" => format!("mutual TLS, expects {}", listed.expected.join(" or ")),
                    other => other.to_owned(),
                };
                page.fact("  mode", mode);
            }
            None => page.fact("  by", format!("default_outbound: {}", checked.default_outbound)),
        }
    }

    fn called(&self, page: &mut Page) {
        let checked = &self.handshake;
        let address = checked.address.map(|address| format!(" at {address}"));
        let address = address.unwrap_or_default();
        page.fact("to", format!("{}{address}", checked.destination));
        if let Some(presented) = checked.tls.as_ref().and_then(|tls| tls.presented.as_deref()) {
            page.fact("  presents", presented);
        }
        let Some(says) = &self.to_says else {
            page.fact("  mode", self.to_silence.as_deref().unwrap_or(NONE));
            return;
        };
        page.fact("  proxy", self.to.as_deref().unwrap_or(NONE));
        page.fact(
            "  is",
            says.spiffe_id.as_deref().unwrap_or("nobody: it has no SVID"),
        );
        let by = says.mode_by.as_deref().unwrap_or("the default");
        let mode = says.mode.as_deref().unwrap_or("none yet: it has no policies");
        page.fact("  mode", format!("{mode} for port {}, by {by}", says.port));
        let step = says.steps.iter().find(|step| step.step == "certificate");
        if let Some(step) = step {
            let tone = match step.outcome.as_str() {
                "ok" => Tone::Good,
                _ => Tone::Bad,
            };
            page.fact("  says", Cell::new(&*step.sentence, tone));
        }
    }
}

impl TlsFacts {
    fn show(&self, page: &mut Page, now: UnixTime) {
        if let Some(version) = &self.version {
            let cipher = self.cipher.as_deref().unwrap_or(NONE);
            let alpn = self.alpn.as_deref().unwrap_or("none");
            page.fact("tls", format!("{version}, {cipher}, ALPN {alpn}"));
        }
        if self.chain.is_empty() {
            return;
        }
        let headings = ["chain", "signed by", "known as", "valid until"];
        let rows = self.chain.iter().map(|link| {
            let names = link.names.join(" ");
            let who = if link.names.is_empty() {
                &link.subject
            } else {
                &names
            };
            let known = match &link.signed_by {
                Some(known) => Cell::from(&**known),
                None => Cell::new("nobody: not in the bundles of the calling proxy", Tone::Bad),
            };
            let tone = if link.valid { Tone::Plain } else { Tone::Bad };
            vec![
                Cell::from(&**who),
                Cell::from(&*link.issuer),
                known,
                Cell::new(link.not_after.words(now), tone),
            ]
        });
        page.table(&headings, rows.collect());
    }
}

impl PodArgs {
    pub(super) fn kubectl(&self) -> Kubectl {
        Kubectl {
            program: self.kubectl.clone(),
            kubeconfig: self.kubeconfig.clone(),
            container: self.container.clone(),
        }
    }
}

/// Whom to ask at the other end, and about what.
pub(super) struct Other<'a> {
    /// Its proxy, if it was named.
    pub(super) proxy: Option<&'a Place>,
    /// Where it is reached, if that is not what is dialled.
    pub(super) address: Option<SocketAddr>,
    /// The request.
    pub(super) request: AskedRequest,
}

/// A handshake by FROM's proxy, and the word of TO's, or why there is none.
pub(super) async fn ask(
    (from, destination): (&Place, &str),
    other: Other<'_>,
    kubectl: &Kubectl,
) -> Result<(TlsChecked, Result<Decided, String>), LinkError> {
    let checked = Link::open(from, kubectl).await?.tls_check(destination).await?;
    let Some(place) = other.proxy else {
        return Ok((checked, Err(NOT_NAMED.to_owned())));
    };
    let address = other.address.or(checked.address);
    let Some(address) = address.or_else(|| destination.parse().ok()) else {
        let sentence =
            "nothing was dialled that the other side's proxy could be asked about; --to-address names it";
        return Ok((checked, Err(sentence.to_owned())));
    };
    // What was not found is asked about as it would be met.
    let mutual = checked.is_mutual() || (checked.listed.is_none() && !checked.is_plain_by_default());
    let question = Question {
        destination: address,
        source: checked
            .source
            .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        chain_pem: checked.own_chain_pem.clone().filter(|_| mutual),
        request: other.request,
    };
    let decided = async { Link::open(place, kubectl).await?.decision(&question).await };
    let decided = decided.await.map_err(|error| error.to_string());
    Ok((checked, decided))
}

/// A request that only asks for the root.
pub(super) fn plain_request(host: &str) -> AskedRequest {
    AskedRequest {
        method: "GET".into(),
        path: "/".into(),
        host: host.into(),
        headers: Vec::new(),
        token: None,
    }
}

pub(crate) async fn run(args: &EndsArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let kubectl = args.pods.kubectl();
    let other = Other {
        proxy: args.to_proxy.as_ref(),
        address: args.to_address,
        request: plain_request(&args.to),
    };
    let (handshake, says) = ask((&args.from, &args.to), other, &kubectl).await?;
    let to = args.to_proxy.as_ref().map(Place::to_string);
    let check = TlsCheck::of(args.from.to_string(), handshake, (to, says));
    shell.show(&check)?;
    Ok(if check.ruling.good {
        Answer::Yes
    } else {
        Answer::No
    })
}
