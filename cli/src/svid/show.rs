//! `signet svid show`: from a file, as Envoy gets it from the workload socket, or from the admin socket.

use std::path::Path;

use signet_certs::certificate::Certificate;
use signet_certs::svid::SvidChain;
use signet_certs::verify::{Role, verify_chain};
use signet_certs::{SigningKey, SpiffeId, TrustBundle, UnixTime};

use crate::Shell;
use crate::admin::Admin;
use crate::args::ShowArgs;
use crate::fault::{Answer, Fault};
use crate::inputs;
use crate::svid::facts::{Facts, Shown};
use crate::svid::sds;
use crate::times::Moment;
use crate::workload_api::WorkloadApi;

pub(crate) async fn run(args: &ShowArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let now = shell.now();
    let wanted = args.id.as_ref();
    let (source, svids) = match (&args.file, &args.socket, &args.admin) {
        (Some(file), _, _) => (file, from_file(file, now)?),
        (_, Some(socket), _) => (socket, from_socket(socket, wanted, now).await?),
        (_, _, Some(admin)) => (admin, from_agent(admin, now).await?),
        (None, None, None) => return Err(Fault::unanswered("name a file, --socket or --admin")),
    };
    let svids = match wanted.map(ToString::to_string) {
        Some(id) => only(svids, &id, source)?,
        None => svids,
    };
    shell.show(&Shown {
        source: source.display().to_string(),
        now: Moment(now),
        svids,
    })?;
    Ok(Answer::Yes)
}

fn from_file(file: &Path, now: UnixTime) -> Result<Vec<Facts>, Fault> {
    Ok(Facts::of(&inputs::certificates(file)?, now).into_iter().collect())
}

async fn from_agent(admin: &Path, now: UnixTime) -> Result<Vec<Facts>, Fault> {
    let mut all = Vec::new();
    for svid in Admin::at(admin).svids().await? {
        let chain = Certificate::all_from_pem(svid.chain_pem.as_bytes())
            .map_err(|e| Fault::Unanswered(format!("{}: the agent's chain: {e}", admin.display())))?;
        all.extend(Facts::of(&chain, now).map(|facts| facts.told_by(&svid)));
    }
    Ok(all)
}

fn only(mut svids: Vec<Facts>, id: &str, source: &Path) -> Result<Vec<Facts>, Fault> {
    svids.retain(|facts| facts.spiffe_id.as_deref() == Some(id));
    if svids.is_empty() {
        let text = format!("{}: there is no SVID of {id}", source.display());
        return Err(Fault::Refused(text));
    }
    Ok(svids)
}

/// What Envoy would get for `wanted`, or for each identity we may have. A socket that serves SDS alone has
/// one that it calls the default.
async fn from_socket(socket: &Path, wanted: Option<&SpiffeId>, now: UnixTime) -> Result<Vec<Facts>, Fault> {
    let names = match wanted {
        Some(id) => vec![id.to_string()],
        None => match WorkloadApi::at(socket).identities().await? {
            Some(ids) => ids.iter().map(ToString::to_string).collect(),
            None => vec!["default".into()],
        },
    };
    let mut all = Vec::new();
    for name in names {
        all.extend(from_sds(socket, &name, now).await?);
    }
    Ok(all)
}

/// A key pair and the roots, and whether they belong together.
async fn from_sds(socket: &Path, name: &str, now: UnixTime) -> Result<Option<Facts>, Fault> {
    let pair = sds::key_pair(socket, name).await?;
    let roots = sds::roots(socket, "ROOTCA").await?;
    let wrong = |e: &dyn std::fmt::Display| Fault::Unanswered(format!("{}: {e}", socket.display()));
    let chain = Certificate::all_from_pem(&pair.chain).map_err(|e| wrong(&e))?;
    let key = SigningKey::from_pem(&pair.key).map_err(|e| wrong(&e))?;
    let key_matches = chain
        .first()
        .is_some_and(|leaf| leaf.public_key() == Ok(key.public_key()));
    let verdict = SvidChain::from_certificates(chain.clone())
        .map_err(Into::into)
        .and_then(|chain| {
            let bundle = TrustBundle::from_pem(chain.id().trust_domain(), &roots, 0);
            // A bundle that cannot be read accepts nobody.
            let bundle = bundle.or_else(|_| TrustBundle::new(chain.id().trust_domain(), Vec::new(), 0));
            bundle.map_or(Ok(()), |bundle| verify_chain(&chain, &bundle, Role::Server, now))
        });
    Ok(Facts::of(&chain, now).map(|facts| facts.estimated().judged(verdict, key_matches, now)))
}
