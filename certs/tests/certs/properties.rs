//! What holds for every input: printing and parsing undo each other, what is issued verifies.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use signet_certs::csr::request;
use signet_certs::verify::{Role, verify_chain};
use signet_certs::{
    Authority, Csr, LeafProfile, ServiceAccountId, SigningKey, SpiffeId, SvidChain, TrustBundle, TrustDomain,
    issue,
};

use crate::issuing::{authorities, bundle, key};
use crate::support::peer::OpenSsl;
use crate::support::{NOW, Spec, at, domain, now};

const DOMAIN: &str = "[a-z0-9._-]{1,255}";
const NAMESPACE: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
const ACCOUNT: &str = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,4}";

fn segment() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,40}".prop_filter("not relative", |s| s != "." && s != "..")
}

fn any_id() -> impl Strategy<Value = String> {
    (DOMAIN, prop::collection::vec(segment(), 0..12)).prop_map(|(domain, segments)| {
        segments
            .into_iter()
            .fold(format!("spiffe://{domain}"), |id, segment| id + "/" + &segment)
    })
}

/// One key of every kind; RSA where OpenSSL can make it.
static KEYS: LazyLock<Vec<Arc<SigningKey>>> = LazyLock::new(|| {
    let mut keys: Vec<_> = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ]
    .into_iter()
    .map(|algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem())
    .collect();
    if let Some(openssl) = OpenSsl::find("properties_of_rsa_keys") {
        keys.push(openssl.must(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]));
        keys.push(openssl.must(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]));
    }
    keys.iter()
        .map(|pem| Arc::new(SigningKey::from_pem(pem.as_bytes()).unwrap()))
        .collect()
});

static AUTHORITIES: LazyLock<(Authority, Authority)> = LazyLock::new(|| authorities(now()));

proptest! {
    #[test]
    fn trust_domains_parse_as_they_print(text in DOMAIN) {
        let domain: TrustDomain = text.parse().unwrap();
        prop_assert_eq!(domain.to_string(), text);
        prop_assert_eq!(domain.id().to_string().parse::<SpiffeId>().unwrap().trust_domain(), domain);
    }

    #[test]
    fn ids_parse_as_they_print(text in any_id()) {
        let id: SpiffeId = text.parse().unwrap();
        prop_assert_eq!(id.to_string(), text.clone());
        prop_assert_eq!(format!("{}{}", id.trust_domain().id(), id.path()), text);
    }

    #[test]
    fn any_text_is_refused_or_kept_as_it_is(text in "(spiffe://)?[ -~é]{0,60}") {
        if let Ok(id) = text.parse::<SpiffeId>() {
            prop_assert_eq!(id.as_str(), text);
        }
    }

    #[test]
    fn service_accounts_parse_as_they_print(namespace in NAMESPACE, name in ACCOUNT, domain in DOMAIN) {
        let account = ServiceAccountId::new(&namespace, &name).unwrap();
        prop_assert_eq!(account.to_string().parse::<ServiceAccountId>().unwrap(), account.clone());
        let id = account.spiffe_id(&domain.parse().unwrap());
        prop_assert_eq!(id.as_str().parse::<SpiffeId>().unwrap(), id.clone());
        prop_assert_eq!(ServiceAccountId::try_from(&id).unwrap(), account);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bundles_read_back_as_they_were_written(
        count in 0usize..4,
        sequence in prop_oneof![any::<u64>(), Just((1 << 63) - 1), Just((1 << 53) + 1)],
        hint in prop::option::of(any::<u32>()),
    ) {
        let roots: Vec<_> =
            (0..count).map(|n| Spec::ca(&format!("root {n}"), None).root().certificate()).collect();
        let mut bundle = TrustBundle::new(domain(), roots, sequence).unwrap();
        if let Some(hint) = hint {
            bundle = bundle.with_refresh_hint(Duration::from_secs(hint.into()));
        }
        let jwks = TrustBundle::from_jwks(domain(), bundle.to_jwks().as_bytes()).unwrap();
        prop_assert_eq!(jwks.to_jwks(), bundle.to_jwks());
        prop_assert_eq!(jwks.to_pem(), bundle.to_pem());
        prop_assert_eq!((jwks.sequence(), jwks.refresh_hint()), (sequence, bundle.refresh_hint()));
        if count > 0 {
            let pem = TrustBundle::from_pem(domain(), bundle.to_pem().as_bytes(), sequence).unwrap();
            prop_assert_eq!(pem.to_pem(), bundle.to_pem());
        }
    }

    #[test]
    fn requests_read_back_as_they_were_made(text in any_id(), named: bool, which in 0usize..5) {
        let id: SpiffeId = text.parse().unwrap();
        let key = &KEYS[which % KEYS.len()];
        let csr = Csr::from_pem(&request(key, named.then_some(&id)).unwrap()).unwrap();
        prop_assert_eq!(csr.public_key(), key.public_key());
        prop_assert_eq!(csr.requested_uri(), named.then_some(id.as_str()));
        prop_assert_eq!(csr.check_names(&id), Ok(()));
    }

    #[test]
    fn what_is_issued_verifies_until_its_last_second_and_never_outlives_its_issuer(
        path in prop::collection::vec(segment(), 1..6),
        ttl in prop_oneof![1u64..600, 600u64..100_000, 1_000_000u64..400_000_000],
        later in 0u64..1_300_000,
        which in 0usize..5,
        below_root: bool,
    ) {
        let (root, issuing) = &*AUTHORITIES;
        let authority = if below_root { root } else { issuing };
        let profile = LeafProfile {
            id: format!("spiffe://cluster.local/{}", path.join("/")).parse().unwrap(),
            ttl: Duration::from_secs(ttl),
            min_left: Duration::from_secs(1),
            dns: Vec::new(),
        };
        let key = &KEYS[which % KEYS.len()];
        let time = at(i64::try_from(later).unwrap());
        // The intermediate has not ended: it lives for 14 days.
        let left = authority.not_after().as_secs().saturating_sub(time.as_secs());
        let chain = match issue(&profile, key.public_key(), authority, time) {
            Ok(chain) => chain,
            Err(error) => {
                prop_assert!(error.is_transient() && left < 1, "{}", error);
                return Ok(());
            }
        };
        let trust = bundle(root);
        prop_assert_eq!(chain.id(), &profile.id);
        prop_assert_eq!(chain.leaf().serial().len(), 16);
        prop_assert!(chain.leaf().not_after() <= authority.not_after());
        prop_assert!(chain.leaf().not_after().as_secs() - time.as_secs() == ttl.min(left));
        for (moment, role) in [(time, Role::Server), (chain.not_after(), Role::Client)] {
            prop_assert_eq!(verify_chain(&chain, &trust, role, moment), Ok(()));
        }
        let after = at(i64::try_from(chain.not_after().as_secs() + 1 - NOW).unwrap());
        prop_assert!(verify_chain(&chain, &trust, Role::Server, after).is_err());
        let again = SvidChain::from_pem(chain.to_pem().as_bytes()).unwrap();
        prop_assert_eq!(again.to_der(), chain.to_der());
    }
}

#[test]
fn every_kind_of_key_signs_what_verifies_as_an_authority() {
    for signer in KEYS.iter() {
        let root =
            Authority::self_signed_root(&domain(), signer.clone(), Duration::from_secs(86_400 * 30), now())
                .unwrap();
        let issuing = root
            .issue_intermediate(&domain(), key(), Duration::from_secs(86_400), now())
            .unwrap();
        let profile = crate::issuing::profile(Duration::from_secs(3600));
        let chain = issue(&profile, key().public_key(), &issuing, now()).unwrap();
        assert_eq!(
            verify_chain(&chain, &bundle(&root), Role::Server, now()),
            Ok(()),
            "{signer:?}"
        );
    }
}
