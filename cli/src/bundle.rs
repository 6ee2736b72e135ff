//! `signet bundle show`: whom a trust domain accepts, from a file, a socket or a CA.

use serde::Serialize;
use signet_certs::bundle::Root;
use signet_certs::{TrustBundle, TrustDomain, UnixTime};

use crate::Shell;
use crate::admin::Admin;
use crate::args::{BundleShowArgs, CaArgs};
use crate::ca::Ca;
use crate::fault::{Answer, Fault};
use crate::inputs;
use crate::print::{Cell, Page, Tone, View};
use crate::svid::facts::key_kind;
use crate::times::{Moment, seconds_until};

/// A trust bundle.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The file, socket or address.
    pub source: String,
    /// The trust domain; nothing for a file that does not say.
    pub trust_domain: Option<String>,
    /// Rises with every change; nothing for a PEM file, which does not say.
    pub sequence: Option<u64>,
    /// How soon to ask again.
    pub refresh_hint_seconds: Option<u64>,
    /// The roots.
    pub roots: Vec<ShownRoot>,
}

/// One root.
#[derive(Clone, Debug, Serialize)]
pub struct ShownRoot {
    /// Its name in logs: subject key identifier, or serial.
    pub authority_id: String,
    /// Its subject.
    pub subject: String,
    /// Its serial, hex.
    pub serial: String,
    /// Kind of its key.
    pub key: String,
    /// First second of validity.
    pub not_before: Moment,
    /// Last second of validity.
    pub not_after: Moment,
    /// Seconds until then; negative when it is past.
    pub seconds_left: i64,
}

impl ShownRoot {
    fn of(root: &Root, now: UnixTime) -> Self {
        let certificate = root.certificate();
        Self {
            authority_id: root.authority_id(),
            subject: certificate.subject().text.clone(),
            serial: certificate.serial_hex(),
            key: key_kind(certificate),
            not_before: Moment(certificate.not_before()),
            not_after: Moment(certificate.not_after()),
            seconds_left: seconds_until(certificate.not_after(), now),
        }
    }
}

impl View for Shown {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("source", &*self.source);
        page.fact(
            "trust domain",
            self.trust_domain
                .as_deref()
                .unwrap_or("not said; pass --trust-domain"),
        );
        if let Some(sequence) = self.sequence {
            page.fact("sequence", sequence.to_string());
        }
        if let Some(hint) = self.refresh_hint_seconds {
            page.fact("refresh hint", format!("{hint}s"));
        }
        page.gap();
        let rows = self.roots.iter().map(|root| {
            let tone = if root.seconds_left < 0 {
                Tone::Bad
            } else {
                Tone::Plain
            };
            vec![
                (&*root.authority_id).into(),
                (&*root.subject).into(),
                (&*root.key).into(),
                Cell::new(root.not_after.words(now), tone),
            ]
        });
        page.table(&["root", "subject", "key", "ends"], rows.collect());
    }
}

pub(crate) async fn run(args: BundleShowArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let now = shell.now();
    let shown = match (&args.file, &args.admin, args.ca) {
        (Some(file), _, _) => {
            let unknown: Option<TrustDomain> = "unknown".parse().ok();
            let named = inputs::bundle(file, args.trust_domain.as_ref(), unknown)?;
            let known = named.named_by != inputs::NamedBy::Chain;
            let mut shown = shown(file.display().to_string(), &named.bundle, now);
            // A PEM file carries no sequence; a JWK set does, even if it is the first.
            shown.sequence = shown.sequence.filter(|sequence| *sequence > 0);
            shown.trust_domain = shown.trust_domain.filter(|_| known);
            shown
        }
        (_, Some(admin), _) => from_daemon(admin, now).await?,
        (_, _, Some(address)) => {
            let ca_root = args
                .ca_root
                .ok_or_else(|| Fault::unanswered("--ca needs --ca-root FILE"))?;
            let named = CaArgs {
                ca: address.clone(),
                ca_root,
                server_name: args.server_name,
            };
            let bundle = Ca::named(&named, &shell.clock)?.bundle().await?;
            let bundle = bundle.ok_or_else(|| {
                Fault::Unanswered(format!(
                    "the CA at {address} has no bundle service; it is no signet-ca"
                ))
            })?;
            shown(address, &bundle.bundle, now)
        }
        (None, None, None) => return Err(Fault::unanswered("name a file, --admin or --ca")),
    };
    shell.show(&shown)?;
    Ok(Answer::Yes)
}

async fn from_daemon(admin: &std::path::Path, now: UnixTime) -> Result<Shown, Fault> {
    let answer = Admin::at(admin).bundle().await?;
    let wrong = |e: &dyn std::fmt::Display| Fault::Unanswered(format!("{}: {e}", admin.display()));
    let domain: TrustDomain = answer.trust_domain.parse().map_err(|e| wrong(&e))?;
    let bundle =
        TrustBundle::from_pem(domain, answer.pem.as_bytes(), answer.sequence).map_err(|e| wrong(&e))?;
    let mut shown = shown(admin.display().to_string(), &bundle, now);
    shown.refresh_hint_seconds = answer.refresh_hint_seconds;
    Ok(shown)
}

fn shown(source: String, bundle: &TrustBundle, now: UnixTime) -> Shown {
    Shown {
        source,
        trust_domain: Some(bundle.trust_domain().to_string()),
        sequence: Some(bundle.sequence()),
        refresh_hint_seconds: bundle.refresh_hint().map(|hint| hint.as_secs()),
        roots: bundle
            .roots()
            .iter()
            .map(|root| ShownRoot::of(root, now))
            .collect(),
    }
}
