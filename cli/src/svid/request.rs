//! `signet svid request`: asks a CA once, believes nothing unchecked, writes three files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use signet_certs::account_token::AccountClaims;
use signet_certs::key::KeyError;
use signet_certs::verify::{Role, verify_chain};
use signet_certs::{ServiceAccountId, SigningKey, TrustBundle, UnixTime, X509Svid, csr};
use signet_proto::issue::read_response;
use signet_proto::wire::istio::v1::auth::IstioCertificateResponse;
use signet_runtime::files::{PUBLIC_MODE, SECRET_MODE, write_atomic};
use signet_runtime::socket::private_directory;

use crate::Shell;
use crate::args::RequestArgs;
use crate::ca::Ca;
use crate::fault::{Answer, Fault};
use crate::inputs::{self, NamedBundle, NamedBy};
use crate::print::{Page, View};
use crate::times::{Moment, seconds_until};

const KEY_FILE: &str = "key.pem";
const CHAIN_FILE: &str = "cert-chain.pem";
const ROOTS_FILE: &str = "root-cert.pem";

/// What was got, and where it is.
#[derive(Clone, Debug, Serialize)]
pub struct Requested {
    /// The identity.
    pub spiffe_id: String,
    /// Serial of the leaf, hex.
    pub serial: String,
    /// Kind of its key.
    pub key: String,
    /// First second of validity.
    pub not_before: Moment,
    /// Last second of validity.
    pub not_after: Moment,
    /// Seconds from now to then.
    pub seconds_left: i64,
    /// Certificates in the chain.
    pub chain_length: usize,
    /// Roots in the bundle.
    pub roots: usize,
    /// The private key.
    pub key_file: PathBuf,
    /// The chain, leaf first, without the root.
    pub chain_file: PathBuf,
    /// The trust bundle.
    pub roots_file: PathBuf,
}

impl View for Requested {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("SPIFFE ID", &*self.spiffe_id);
        page.fact("serial", &*self.serial);
        page.fact("key", &*self.key);
        page.fact("ends", self.not_after.words(now));
        page.fact("private key", self.key_file.display().to_string());
        page.fact(
            "chain",
            format!(
                "{} ({})",
                self.chain_file.display(),
                count(self.chain_length, "certificate")
            ),
        );
        page.fact(
            "roots",
            format!("{} ({})", self.roots_file.display(), count(self.roots, "root")),
        );
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub(crate) async fn run(args: RequestArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let ca = Ca::named(&args.ca, &shell.clock)?;
    let token = inputs::token(&args.token_file, "service-account token")?;
    let weak = |e: KeyError| Fault::Unanswered(format!("make a key: {e}"));
    let key = Arc::new(SigningKey::generate().map_err(weak)?);
    let csr = csr::request(&key, None).map_err(|e| Fault::Unanswered(format!("make a csr: {e}")))?;
    let response = ca.create_certificate(csr, args.ttl.0, &token).await?;
    let bundle = ca.bundle().await?;
    if bundle.is_none() {
        shell.say("note: this CA publishes no bundle of its own; root-cert.pem holds what --ca-root holds");
    }
    let account = AccountClaims::read(&token)
        .ok()
        .and_then(|claims| claims.account());
    let now = shell.now();
    let answered = check(
        &response,
        key,
        bundle.as_ref().unwrap_or_else(|| ca.roots()),
        account.as_ref(),
        now,
    )?;
    if let Some(words) = answered.strange_roots {
        shell.say(words);
    }
    let requested = write(&args.out, &answered.svid, &answered.bundle, now)?;
    shell.show(&requested)?;
    Ok(Answer::Yes)
}

/// An answer that was checked.
struct Checked {
    svid: X509Svid,
    bundle: TrustBundle,
    strange_roots: Option<String>,
}

/// Nothing is written before the chain fits the key, the account the token speaks for, and the bundle.
fn check(
    response: &IstioCertificateResponse,
    key: Arc<SigningKey>,
    trusted: &NamedBundle,
    account: Option<&ServiceAccountId>,
    now: UnixTime,
) -> Result<Checked, Fault> {
    let wrong = |e: &dyn std::fmt::Display| {
        Fault::Unanswered(format!(
            "the CA's answer is not used, and nothing was written: {e}"
        ))
    };
    let (chain, roots) = read_response(response).map_err(|e| wrong(&e))?;
    if let Some(account) = account {
        let expected = account.spiffe_id(&chain.id().trust_domain());
        if *chain.id() != expected {
            return Err(wrong(&format!(
                "it names {}, the token speaks for {expected}",
                chain.id()
            )));
        }
    }
    let bundle = match trusted.named_by {
        // A root file that does not say whose it is: the CA it vouches for is of the chain's domain.
        NamedBy::Chain => {
            let roots = trusted
                .bundle
                .roots()
                .iter()
                .map(|root| root.certificate().clone())
                .collect();
            TrustBundle::new(chain.id().trust_domain(), roots, 0).map_err(|e| wrong(&e))?
        }
        NamedBy::Operator | NamedBy::Ca | NamedBy::Roots => trusted.bundle.clone(),
    };
    for role in [Role::Server, Role::Client] {
        verify_chain(&chain, &bundle, role, now).map_err(|e| wrong(&e))?;
    }
    let sent =
        TrustBundle::from_pem(bundle.trust_domain().clone(), roots.as_bytes(), 0).map_err(|e| wrong(&e))?;
    let strange_roots = (!sent.same_roots(&bundle)).then(|| {
        "note: the roots sent with the chain differ from the bundle; the bundle was written, the others \
         were not"
            .to_owned()
    });
    let svid = X509Svid::new(chain, key).map_err(|e| wrong(&e))?;
    Ok(Checked {
        svid,
        bundle,
        strange_roots,
    })
}

/// The key goes first: a reader that sees the new chain finds its key.
fn write(out: &Path, svid: &X509Svid, bundle: &TrustBundle, now: UnixTime) -> Result<Requested, Fault> {
    if !out.is_dir() {
        private_directory(out)?;
    }
    let file = |name: &str| out.join(name);
    let chain = svid.chain();
    write_atomic(&file(KEY_FILE), svid.key().expose_pem().as_bytes(), SECRET_MODE)?;
    write_atomic(&file(CHAIN_FILE), chain.to_pem().as_bytes(), PUBLIC_MODE)?;
    write_atomic(&file(ROOTS_FILE), bundle.to_pem().as_bytes(), PUBLIC_MODE)?;
    Ok(Requested {
        spiffe_id: chain.id().to_string(),
        serial: chain.serial(),
        key: svid.key().public_key().kind().to_string(),
        not_before: Moment(chain.not_before()),
        not_after: Moment(chain.not_after()),
        seconds_left: seconds_until(chain.not_after(), now),
        chain_length: chain.certificates().count(),
        roots: bundle.roots().len(),
        key_file: file(KEY_FILE),
        chain_file: file(CHAIN_FILE),
        roots_file: file(ROOTS_FILE),
    })
}
