use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use signet_certs::jwt::JwtKey;
use signet_certs::{Authority, LeafProfile, SigningKey, SpiffeId, TrustBundle, UnixTime, X509Svid};

use super::*;
use crate::status::Status;
use crate::svids::{Held, Trust, Verified};

const IDS: [&str; 2] = [
    "spiffe://cluster.local/ns/shop/sa/cart",
    "spiffe://cluster.local/ns/shop/sa/web",
];
const DAY: Duration = Duration::from_secs(86_400);

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate().unwrap())
}

fn root(domain: &str) -> Authority {
    Authority::self_signed_root(&domain.parse().unwrap(), key(), 365 * DAY, now()).unwrap()
}

fn bundle(domain: &str, roots: &[&Authority], keys: Vec<JwtKey>, sequence: u64) -> Arc<TrustBundle> {
    let roots = roots.iter().map(|root| root.certificate().clone()).collect();
    let bundle = TrustBundle::new(domain.parse().unwrap(), roots, sequence).unwrap();
    Arc::new(bundle.with_jwt_keys(keys).unwrap())
}

/// Everything that a history is made of; keys take time to make.
struct World {
    /// Of our own domain, in the order of their sequences; the second has the roots of the first.
    own: [Arc<TrustBundle>; 3],
    /// Of two foreign domains, one of which has no JWT keys.
    foreign: [Arc<TrustBundle>; 2],
    /// Three for each identity.
    svids: [[X509Svid; 3]; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (ours, next, theirs) = (root("cluster.local"), root("cluster.local"), root("b.example"));
    let jwt = || JwtKey::by_thumbprint(key().public_key().clone()).unwrap();
    let (first, second) = (jwt(), jwt());
    let issuing = ours
        .issue_intermediate(&"cluster.local".parse().unwrap(), key(), 14 * DAY, now())
        .unwrap();
    let svid = |id: &str| {
        let profile = LeafProfile {
            id: id.parse().unwrap(),
            ttl: DAY,
            min_left: Duration::from_secs(1),
            dns: Vec::new(),
        };
        let key = key();
        let chain = signet_certs::issue(&profile, key.public_key(), &issuing, now()).unwrap();
        X509Svid::new(chain, key).unwrap()
    };
    World {
        own: [
            bundle("cluster.local", &[&ours], vec![first.clone()], 1),
            bundle("cluster.local", &[&ours], vec![first.clone(), second.clone()], 2),
            bundle("cluster.local", &[&ours, &next], vec![first, second], 3),
        ],
        foreign: [
            bundle("b.example", &[&theirs], Vec::new(), 7),
            bundle("c.example", &[], vec![jwt()], 1),
        ],
        svids: IDS.map(|id| std::array::from_fn(|_| svid(id))),
    }
});

/// What the shelves show at one moment.
#[derive(Clone, Debug)]
struct Moment {
    own: Option<usize>,
    foreign: [bool; 2],
    svids: [Option<usize>; 2],
}

impl Moment {
    fn full() -> Self {
        Self {
            own: Some(0),
            foreign: [false; 2],
            svids: [Some(0); 2],
        }
    }

    fn seen(&self, hints: [Option<&str>; 2]) -> Seen {
        let world = &*WORLD;
        let own = self.own.map(|n| Arc::clone(&world.own[n]));
        let foreign = (0..2).filter(|n| self.foreign[*n]);
        let trust = match &own {
            Some(own) => Trust::new(
                Arc::clone(own),
                foreign.map(|n| Arc::clone(&world.foreign[n])).collect(),
            ),
            None => Trust::default(),
        };
        let held = (0..2).map(|n| {
            let verified = self.svids[n].zip(own.as_ref()).map(|(version, own)| {
                let svid = world.svids[n][version].clone();
                Verified::check(svid, Arc::clone(own), now(), now()).unwrap()
            });
            Held {
                id: IDS[n].parse::<SpiffeId>().unwrap(),
                hint: hints[n].map(str::to_owned),
                verified,
                status: Arc::<Status>::default(),
            }
        });
        Seen::new("cluster.local".parse().unwrap(), held.collect(), Arc::new(trust))
    }

    fn complete(&self) -> bool {
        self.own.is_some() && self.svids.iter().all(Option::is_some)
    }
}

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let moment = (
        prop::option::weighted(0.8, 0..3_usize),
        any::<[bool; 2]>(),
        [
            prop::option::weighted(0.8, 0..3_usize),
            prop::option::weighted(0.8, 0..3_usize),
        ],
    )
        .prop_map(|(own, foreign, svids)| Moment { own, foreign, svids });
    prop::collection::vec(moment, 1..24)
}

/// Runs a history through a stream and checks the four rules that every stream keeps.
fn keeps_the_rules<C: Content>(
    history: &[Moment],
    complete: impl Fn(&Moment) -> bool,
) -> Result<(), TestCaseError>
where
    C::Message: Clone + PartialEq + std::fmt::Debug,
{
    let mut stream = Updates::<C>::default();
    let mut last: Option<(C::Message, u64)> = None;
    for moment in history {
        let seen = moment.seen([None, None]);
        let sent = stream.look(&seen);
        prop_assert_eq!(stream.lacking(), !complete(moment));
        if !complete(moment) {
            prop_assert!(sent.is_none(), "partial: {:?}", sent);
            continue;
        }
        let sequence = seen.trust.own().unwrap().sequence();
        let (whole, _) = C::compose(&seen).unwrap();
        match (&last, sent) {
            (None, None) => prop_assert!(false, "nothing sent first"),
            (Some((before, newest)), None) => {
                prop_assert!(*before == whole || sequence < *newest, "a change was kept back");
            }
            (before, Some(message)) => {
                prop_assert_eq!(&message, &whole);
                if let Some((before, newest)) = before {
                    prop_assert!(*before != message, "sent twice");
                    prop_assert!(*newest <= sequence, "went back");
                }
                last = Some((message, sequence));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn svids_are_sent_at_once_whole_never_twice_and_never_back(history in moments()) {
        keeps_the_rules::<X509Svids>(&history, Moment::complete)?;
    }

    #[test]
    fn x509_bundles_are_sent_at_once_whole_never_twice_and_never_back(history in moments()) {
        keeps_the_rules::<X509Bundles>(&history, |moment| moment.own.is_some())?;
    }

    #[test]
    fn jwt_bundles_are_sent_at_once_whole_never_twice_and_never_back(history in moments()) {
        keeps_the_rules::<JwtBundles>(&history, |moment| moment.own.is_some())?;
    }
}

#[test]
fn an_svid_comes_as_the_standard_lays_it_out() {
    let moment = Moment {
        foreign: [true; 2],
        ..Moment::full()
    };
    let (message, _) = X509Svids::compose(&moment.seen([Some("internal"), None])).unwrap();
    let ids: Vec<&str> = message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(ids, IDS);
    let (first, svid) = (&message.svids[0], &WORLD.svids[0][0]);
    let mut chain = Vec::new();
    for certificate in svid.chain().certificates() {
        chain.extend_from_slice(certificate.der());
    }
    assert_eq!(svid.chain().intermediates().len(), 1);
    assert_eq!(first.x509_svid, chain);
    assert_eq!(
        first.x509_svid_key,
        svid.key().expose_pkcs8_der().unwrap().as_slice()
    );
    assert_eq!(first.bundle, WORLD.own[0].roots()[0].certificate().der().as_ref());
    assert_eq!(first.hint, "internal");
    assert!(message.crl.is_empty());
    // The domain without roots is not there at all, and our own is elsewhere.
    let foreign: Vec<&str> = message.federated_bundles.keys().map(String::as_str).collect();
    assert_eq!(foreign, ["spiffe://b.example"]);
}

#[test]
fn bundles_hold_our_own_domain_and_those_that_have_such_keys() {
    let moment = Moment {
        foreign: [true; 2],
        ..Moment::full()
    };
    let seen = moment.seen([None, None]);
    let (x509, _) = X509Bundles::compose(&seen).unwrap();
    let domains: Vec<&str> = x509.bundles.keys().map(String::as_str).collect();
    assert_eq!(domains, ["spiffe://b.example", "spiffe://cluster.local"]);
    let (jwt, _) = JwtBundles::compose(&seen).unwrap();
    let domains: Vec<&str> = jwt.bundles.keys().map(String::as_str).collect();
    assert_eq!(domains, ["spiffe://c.example", "spiffe://cluster.local"]);
    let set: serde_json::Value = serde_json::from_slice(&jwt.bundles["spiffe://cluster.local"]).unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 1);
    assert!(
        set["keys"][0]["use"].is_null() && set["keys"][0]["kid"].is_string(),
        "{set}"
    );
}

#[test]
fn our_own_domain_is_there_even_without_keys() {
    let trust = Trust::new(bundle("cluster.local", &[], Vec::new(), 1), Vec::new());
    let seen = Seen::new("cluster.local".parse().unwrap(), Vec::new(), Arc::new(trust));
    let (jwt, _) = JwtBundles::compose(&seen).unwrap();
    assert_eq!(&jwt.bundles["spiffe://cluster.local"][..], br#"{"keys":[]}"#);
    let (x509, _) = X509Bundles::compose(&seen).unwrap();
    assert!(x509.bundles.contains_key("spiffe://cluster.local"));
    assert!(
        X509Svids::compose(&seen).is_none(),
        "nobody's SVIDs are no message"
    );
}

#[test]
fn no_hint_comes_twice_in_a_response() {
    let (message, _) = X509Svids::compose(&Moment::full().seen([Some("same"), Some("same")])).unwrap();
    let hints: Vec<&str> = message.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["same", ""]);
}

#[test]
fn a_change_of_jwt_keys_alone_is_no_news_to_streams_of_svids() {
    let mut svids = Updates::<X509Svids>::default();
    let mut tokens = Updates::<JwtBundles>::default();
    let first = Moment::full();
    let second = Moment {
        own: Some(1),
        ..Moment::full()
    };
    let hints = [None, None];
    assert!(svids.look(&first.seen(hints)).is_some() && tokens.look(&first.seen(hints)).is_some());
    assert!(svids.look(&second.seen(hints)).is_none() && tokens.look(&second.seen(hints)).is_some());
}

#[test]
fn neither_keys_nor_svids_show_in_debug_output() {
    let (message, _) = X509Svids::compose(&Moment::full().seen([None, None])).unwrap();
    let shown = format!("{message:?}");
    assert!(shown.contains("redacted") && shown.len() < 300, "{shown}");
}
