//! Writes the seeds and the root they end in anew: `cargo run -p signet-fuzz --example seeds`.
//! Needed only when the format of a corpus changes; crashes that were added by hand stay.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::csr::request;
use signet_certs::{
    Authority, CertificateDer, LeafProfile, SigningKey, SpiffeId, TrustBundle, TrustDomain, UnixTime, issue,
};
use signet_fuzz::{FIXTURE_TIME, pack};

const DAY: Duration = Duration::from_secs(86_400);

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |path: &str, data: &[u8]| -> Result<(), Box<dyn Error>> {
        let path = home.join(path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        Ok(std::fs::write(path, data)?)
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(FIXTURE_TIME));
    let domain: TrustDomain = "cluster.local".parse()?;
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse()?;
    let root = Authority::self_signed_root(&domain, key()?, 3650 * DAY, now)?;
    let issuing = root.issue_intermediate(&domain, key()?, 14 * DAY, now)?;
    let bundle = TrustBundle::new(domain.clone(), vec![root.certificate().clone()], (1 << 53) + 1)?;
    write("fixtures/root.pem", bundle.to_pem().as_bytes())?;

    for (name, text) in [
        ("sound", id.as_str()),
        ("trust-domain", "spiffe://cluster.local"),
        ("odd-but-legal", "spiffe://10.0.0.1/.../a..b/_-.Z"),
        ("relative", "spiffe://td/a/../b"),
        ("port-and-query", "spiffe://u@td:80/a?x=%61#f"),
        ("service-account", "shop/cart"),
        ("not-ascii", "spiffe://tδ/é"),
    ] {
        write(&format!("corpus/spiffe_id/{name}"), text.as_bytes())?;
    }

    let requests = [("sound", Some(&id)), ("nameless", None)];
    for (name, id) in requests {
        let pem = request(&key()?, id)?;
        write(&format!("corpus/csr_pem/{name}"), pem.as_bytes())?;
        write(&format!("corpus/csr_der/{name}"), &der(&pem)?)?;
    }
    let pem = request(&key()?, Some(&id))?;
    write("corpus/csr_pem/two-blocks", format!("{pem}{pem}").as_bytes())?;
    write("corpus/csr_pem/no-end", pem.get(..200).unwrap_or(&pem).as_bytes())?;
    let mut trailing = der(&pem)?;
    trailing.push(0);
    write("corpus/csr_der/trailing", &trailing)?;

    let dns = vec!["cart.shop.svc".to_owned()];
    let profile = LeafProfile {
        id,
        ttl: DAY,
        min_left: Duration::ZERO,
        dns,
    };
    let chain = issue(&profile, key()?.public_key(), &issuing, now)?.to_der();
    let direct = issue(&profile, key()?.public_key(), &root, now)?.to_der();
    let with_root: Vec<CertificateDer<'_>> = chain
        .iter()
        .cloned()
        .chain([root.certificate().der().clone()])
        .collect();
    let swapped: Vec<_> = chain.iter().rev().cloned().collect();
    for (name, chain) in [
        ("sound", &chain),
        ("sound-direct", &direct),
        ("sound-with-root", &with_root),
        ("swapped", &swapped),
    ] {
        write(&format!("corpus/chain/{name}"), &pack(chain))?;
    }

    let two = root_beside(&root, &domain, now)?;
    write("corpus/bundle_pem/sound", bundle.to_pem().as_bytes())?;
    write("corpus/bundle_pem/two", two.to_pem().as_bytes())?;
    write(
        "corpus/bundle_pem/intermediate",
        issuing.certificate().to_pem().as_bytes(),
    )?;
    write("corpus/bundle_jwks/sound", bundle.to_jwks().as_bytes())?;
    write(
        "corpus/bundle_jwks/two",
        two.with_refresh_hint(DAY).to_jwks().as_bytes(),
    )?;
    write(
        "corpus/bundle_jwks/empty",
        br#"{"keys":[],"spiffe_sequence":9223372036854775807}"#,
    )?;
    let other = r#"{"keys":[{"kty":"AKP","use":"x509-svid","x5c":["AA"]},{"kty":"EC","use":"jwt-svid","kid":"a","crv":"P-521"}]}"#;
    write("corpus/bundle_jwks/other-kinds", other.as_bytes())
}

fn key() -> Result<Arc<SigningKey>, Box<dyn Error>> {
    Ok(Arc::new(SigningKey::generate()?))
}

fn root_beside(root: &Authority, domain: &TrustDomain, now: UnixTime) -> Result<TrustBundle, Box<dyn Error>> {
    let other = Authority::self_signed_root(domain, key()?, DAY, now)?;
    let roots = vec![root.certificate().clone(), other.certificate().clone()];
    Ok(TrustBundle::new(domain.clone(), roots, 2)?)
}

fn der(pem: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    use base64::Engine as _;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    Ok(base64::engine::general_purpose::STANDARD.decode(body)?)
}
