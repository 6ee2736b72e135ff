//! `signet bundle`: whom a trust domain accepts, from a file, a socket or a CA; shown, or written down.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use signet_certs::bundle::Root;
use signet_certs::jwt::JwtKey;
use signet_certs::{TrustBundle, TrustDomain, UnixTime};
use signet_runtime::files::{PUBLIC_MODE, write_atomic};

use crate::Shell;
use crate::admin::Admin;
use crate::args::{BundleExportArgs, BundleSourceArgs, CaArgs};
use crate::ca::Ca;
use crate::fault::{Answer, Fault};
use crate::inputs::{self, STDIN};
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
    /// The keys that verify its JWT-SVIDs.
    pub jwt_keys: Vec<ShownKey>,
}

/// One key for JWT-SVIDs.
#[derive(Clone, Debug, Serialize)]
pub struct ShownKey {
    /// Its name in token headers.
    pub kid: String,
    /// Kind of the key.
    pub key: String,
    /// The algorithm it signs with.
    pub algorithm: String,
}

impl ShownKey {
    fn of(key: &JwtKey) -> Self {
        Self {
            kid: key.kid().into(),
            key: key.public_key().kind().to_string(),
            algorithm: key.algorithm().into(),
        }
    }
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
            subject: certificate.subject().text(),
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
        if !self.jwt_keys.is_empty() {
            page.gap();
            let row = |key: &ShownKey| vec![(&*key.kid).into(), (&*key.key).into(), (&*key.algorithm).into()];
            let rows = self.jwt_keys.iter().map(row);
            page.table(&["JWT key", "key", "algorithm"], rows.collect());
        }
    }
}

/// A bundle and where it was found.
struct Found {
    source: String,
    bundle: TrustBundle,
    /// Whether somebody says whose it is.
    named: bool,
    /// Whether somebody numbers its versions.
    numbered: bool,
}

impl Found {
    fn told(source: String, bundle: TrustBundle) -> Self {
        Self {
            source,
            bundle,
            named: true,
            numbered: true,
        }
    }
}

pub(crate) async fn show(args: BundleSourceArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let found = find(args, shell).await?;
    let now = shell.now();
    shell.show(&shown(&found, now))?;
    Ok(Answer::Yes)
}

pub(crate) async fn export(args: BundleExportArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let found = find(args.source, shell).await?;
    let jwks = found.bundle.to_jwks() + "\n";
    if args.out == Path::new(STDIN) {
        shell.printer.write(&jwks)?;
        return Ok(Answer::Yes);
    }
    write_atomic(&args.out, jwks.as_bytes(), PUBLIC_MODE)?;
    let now = shell.now();
    shell.show(&shown(&found, now))?;
    Ok(Answer::Yes)
}

async fn find(args: BundleSourceArgs, shell: &Shell) -> Result<Found, Fault> {
    match (&args.file, &args.admin, args.ca) {
        (Some(file), _, _) => {
            let unknown: Option<TrustDomain> = "unknown".parse().ok();
            let named = inputs::bundle(file, args.trust_domain.as_ref(), unknown)?;
            Ok(Found {
                source: file.display().to_string(),
                named: named.named_by != inputs::NamedBy::Chain,
                // A PEM file carries no sequence; a JWK set does, even if it is the first.
                numbered: named.bundle.sequence() > 0,
                bundle: named.bundle,
            })
        }
        (_, Some(admin), _) => from_daemon(admin).await,
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
            Ok(Found::told(address, bundle.bundle))
        }
        (None, None, None) => Err(Fault::unanswered("name a file, --admin or --ca")),
    }
}

async fn from_daemon(admin: &Path) -> Result<Found, Fault> {
    let answer = Admin::at(admin).bundle().await?;
    let wrong = |e: &dyn std::fmt::Display| Fault::Unanswered(format!("{}: {e}", admin.display()));
    let domain: TrustDomain = answer.trust_domain.parse().map_err(|e| wrong(&e))?;
    let bundle = match &answer.jwks {
        Some(jwks) => TrustBundle::from_jwks(domain, jwks.as_bytes()),
        None => TrustBundle::from_pem(domain, answer.pem.as_bytes(), answer.sequence),
    };
    let bundle = bundle.map_err(|e| wrong(&e))?.with_sequence(answer.sequence);
    let bundle = match answer.refresh_hint_seconds {
        Some(hint) => bundle.with_refresh_hint(Duration::from_secs(hint)),
        None => bundle,
    };
    Ok(Found::told(admin.display().to_string(), bundle))
}

fn shown(found: &Found, now: UnixTime) -> Shown {
    let bundle = &found.bundle;
    Shown {
        source: found.source.clone(),
        trust_domain: found.named.then(|| bundle.trust_domain().to_string()),
        sequence: found.numbered.then(|| bundle.sequence()),
        refresh_hint_seconds: bundle.refresh_hint().map(|hint| hint.as_secs()),
        roots: bundle
            .roots()
            .iter()
            .map(|root| ShownRoot::of(root, now))
            .collect(),
        jwt_keys: bundle.jwt_keys().iter().map(ShownKey::of).collect(),
    }
}
