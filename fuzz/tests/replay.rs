//! Every seed and every crash ever found, through its target, on stable; then a bounded number of
//! mutations of each, the same ones on every run.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use signet_fuzz::{TARGETS, Target};

/// Mutations of each corpus file.
const MUTATIONS: u64 = 600;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Name and contents of each seed, in a fixed order.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let dir = corpus().join(target.name);
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Runs the target and names the input when an invariant breaks.
fn run(target: &Target, what: &str, data: &[u8]) {
    let caught = std::panic::catch_unwind(|| (target.run)(data));
    assert!(caught.is_ok(), "{} broke on {what}: {data:02x?}", target.name);
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let dirs: BTreeSet<String> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(dirs, names);
    for target in TARGETS {
        assert!(!seeds(target).is_empty(), "{}", target.name);
    }
}

#[test]
fn no_corpus_file_breaks_an_invariant() {
    for target in TARGETS {
        run(target, "nothing", &[]);
        for (name, data) in seeds(target) {
            run(target, &name, &data);
        }
    }
}

#[test]
fn no_mutation_of_a_corpus_file_breaks_an_invariant() {
    for target in TARGETS {
        let seeds = seeds(target);
        for (at, (name, data)) in seeds.iter().enumerate() {
            let (_, other) = &seeds[(at + 1) % seeds.len()];
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (at as u64 + 1));
            for round in 0..MUTATIONS {
                let mutated = mutate(data, other, &mut random);
                run(target, &format!("mutation {round} of {name}"), &mutated);
            }
        }
    }
}

/// The seeds say what they claim, so that mutations begin where parsing succeeds.
#[test]
fn sound_seeds_are_accepted() {
    use signet_certs::verify::{Role, verify_peer};
    use signet_certs::{BundleSet, Csr, SpiffeId, TrustBundle, UnixTime};
    let read = |path: &str| std::fs::read(corpus().join(path)).unwrap();
    assert!(
        String::from_utf8(read("spiffe_id/sound"))
            .unwrap()
            .parse::<SpiffeId>()
            .is_ok()
    );
    assert!(Csr::from_der(&read("csr_der/sound")).is_ok());
    assert!(Csr::from_pem(&String::from_utf8(read("csr_pem/sound")).unwrap()).is_ok());
    let domain = || "cluster.local".parse().unwrap();
    assert!(
        !TrustBundle::from_pem(domain(), &read("bundle_pem/sound"), 1)
            .unwrap()
            .roots()
            .is_empty()
    );
    assert!(
        !TrustBundle::from_jwks(domain(), &read("bundle_jwks/sound"))
            .unwrap()
            .roots()
            .is_empty()
    );
    for (seed, objects) in [("allow", 2), ("deny-and-custom", 3), ("peers", 3), ("tokens", 1)] {
        let text = String::from_utf8(read(&format!("policy_documents/{seed}"))).unwrap();
        let readings = signet_policy::read_text(seed, &text, Some("shop"));
        let sound = |reading: &signet_policy::Reading| {
            matches!(reading.content, signet_policy::document::Content::Sound(_))
        };
        assert!(
            readings.len() == objects && readings.iter().all(sound),
            "{seed}: {readings:?}"
        );
    }
    let bundle = TrustBundle::from_pem(domain(), signet_fuzz::ROOT.as_bytes(), 1).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(signet_fuzz::FIXTURE_TIME));
    for seed in ["chain/sound", "chain/sound-with-root", "chain/sound-direct"] {
        let chain = signet_fuzz::parts(&read(seed));
        let found = verify_peer(&chain, &BundleSet::of(bundle.clone().into()), Role::Server, now);
        assert!(found.is_ok(), "{seed}: {found:?}");
        assert_eq!(signet_fuzz::pack(&chain), read(seed));
    }
}

/// The heads of the corpus go on, but for one that two servers may read in two ways.
#[test]
fn each_head_of_the_corpus_goes_on_but_the_ambiguous_one() {
    let target = signet_fuzz::target("request_head").unwrap();
    for (path, head) in seeds(target) {
        let ambiguous = path.ends_with("/two-hosts");
        assert_eq!(signet_fuzz::goes_on(&head), !ambiguous, "{path}");
    }
}

/// Each request of the corpus comes to its own end.
#[test]
fn each_request_of_the_corpus_is_judged_as_its_name_says() {
    let target = signet_fuzz::target("jwt_request").unwrap();
    for (path, request) in seeds(target) {
        let expected = match path.rsplit('/').next().unwrap() {
            "header" | "query" | "cookie" | "beside" => "https://issuer.test/alice",
            "ed25519" => "https://issuer.test/bob",
            "two" => "ambiguous",
            "none" => "nobody",
            "keyless" => "keys_not_fetched",
            "unsigned" => "algorithm",
            word => word,
        };
        let said = signet_fuzz::judge_request(std::str::from_utf8(&request).unwrap());
        assert_eq!(said, expected, "{path}");
    }
}

/// Each token of the corpus has one defect, and is refused for that and nothing else.
#[test]
fn each_token_of_the_corpus_gives_its_own_reason() {
    let reason = |name: &str| match name {
        name if name.starts_with("sound") => "accepted",
        "alg-of-another-key" => "unknown_key",
        name if name.starts_with("alg-") || name.starts_with("hs256-") => "algorithm",
        "typ-other" => "header",
        name if name.starts_with("kid-") => "unknown_key",
        "header-no-object" => "malformed",
        name if name.starts_with("header-") => "header",
        "exp-past" => "expired",
        "nbf-future" | "iat-future" => "not_yet_valid",
        "aud-wrong" => "audience",
        "sub-of-an-unknown-domain" => "unknown_trust_domain",
        "sub-of-another-domain" => "unknown_key",
        name if ["exp-", "aud-", "sub-"]
            .iter()
            .any(|claim| name.starts_with(claim)) =>
        {
            "claims"
        }
        "signed-by-another-domain" | "payload-altered" | "signature-empty" => "signature",
        _ => "malformed",
    };
    let target = signet_fuzz::target("jwt_svid").unwrap();
    for (path, token) in seeds(target) {
        let name = path.rsplit('/').next().unwrap();
        let said = match signet_fuzz::validate_jwt(std::str::from_utf8(&token).unwrap()) {
            Ok(_) => "accepted",
            Err(fault) => fault.as_str(),
        };
        assert_eq!(said, reason(name), "{name}");
    }
    assert!(seeds(target).len() >= 40, "the whole corpus");
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which may be 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.next() % bound).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// One to four small changes.
fn mutate(data: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = data.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        match random.below(8) {
            0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            1 if !out.is_empty() => out[at] = random.byte(),
            2 if !out.is_empty() => out[at] = [0x00, 0xff, 0x7f, 0x80, b'/', b'"', 0x30][random.below(7)],
            3 if !out.is_empty() => drop(out.remove(at)),
            4 => out.insert(at, random.byte()),
            5 => out.truncate(at),
            6 => {
                let end = (at + random.below(40)).min(out.len());
                let again = out.get(at..end).unwrap_or_default().to_vec();
                out.splice(at..at, again);
            }
            _ => {
                let cut = random.below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[cut..]);
            }
        }
    }
    out
}
