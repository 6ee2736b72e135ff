//! The rule by example, one reason at a time, and against a naive reading of it.

use proptest::prelude::*;

use super::*;
use crate::issuance::{Asked, Claim, Denied, claim};

const DOMAIN: &str = "cluster.local";
const BANK: &str = "spiffe://cluster.local/ns/shop/sa/bank";

fn agent() -> ServiceAccountId {
    ServiceAccountId::new("signet-system", "signet-agent").unwrap()
}

fn trusted() -> BTreeSet<ServiceAccountId> {
    BTreeSet::from([agent()])
}

fn bound(node: Option<&str>) -> BoundPod {
    BoundPod {
        name: "agent-x".into(),
        uid: "u1".into(),
        node: node.map(Into::into),
    }
}

fn facts() -> PodFacts {
    PodFacts {
        uid: "u1".into(),
        account: "signet-agent".into(),
        node: Some("n1".into()),
        ended: false,
    }
}

fn asking(caller: &Caller, requested: &str) -> Result<Impersonation, Denied> {
    let asked = Asked {
        impersonated: Some(requested),
        certificate: None,
    };
    match claim(caller, asked, &DOMAIN.parse().unwrap(), &trusted())? {
        Claim::Another(impersonation) => Ok(impersonation),
        Claim::Own(_) => panic!("another identity"),
    }
}

fn agent_asking() -> Impersonation {
    let caller = Caller::assert_authenticated(agent(), Some(bound(None)));
    asking(&caller, BANK).unwrap()
}

#[test]
fn a_node_may_have_the_identity_of_what_runs_on_it() {
    let placed = agent_asking().place(Some(facts())).unwrap();
    assert_eq!(
        (placed.node(), placed.account().to_string().as_str()),
        ("n1", "shop/bank")
    );
    let permit = placed.permit(true).unwrap();
    assert_eq!(permit.id().as_str(), BANK);
    assert_eq!(permit.account().to_string(), "shop/bank");
}

#[test]
fn a_node_account_may_have_its_own_identity_by_name_without_a_pod() {
    let caller = Caller::assert_authenticated(agent(), None);
    let own = agent().spiffe_id(&DOMAIN.parse().unwrap());
    let asked = Asked {
        impersonated: Some(own.as_str()),
        certificate: None,
    };
    let claimed = claim(&caller, asked, &DOMAIN.parse().unwrap(), &trusted()).unwrap();
    assert!(matches!(claimed, Claim::Own(permit) if *permit.id() == own));
}

#[test]
fn each_claim_that_cannot_pass_is_denied_with_its_own_reason_before_the_cluster_is_asked() {
    let shop = ServiceAccountId::new("shop", "cart").unwrap();
    let node = Caller::assert_authenticated(agent(), Some(bound(None)));
    let workload = Caller::assert_authenticated(shop, Some(bound(None)));
    let unbound = Caller::assert_authenticated(agent(), None);
    let table = [
        (&workload, BANK, "not_node_account"),
        (&node, "eyJ.secret", "not_spiffe_id"),
        (
            &node,
            "spiffe://other.test/ns/shop/sa/bank",
            "foreign_trust_domain",
        ),
        (&node, "spiffe://cluster.local", "not_service_account"),
        (&node, "spiffe://cluster.local/shop/bank", "not_service_account"),
        (
            &node,
            "spiffe://cluster.local/ns/shop/sa/bank/x",
            "not_service_account",
        ),
        (
            &node,
            "spiffe://cluster.local/ns/Shop/sa/bank",
            "not_service_account",
        ),
        (&unbound, BANK, "token_not_bound"),
    ];
    for (caller, requested, reason) in table {
        let denied = asking(caller, requested).unwrap_err();
        assert_eq!(denied.as_str(), reason, "{requested}");
        assert!(!denied.to_string().contains("secret"), "{denied}");
    }
}

#[test]
fn each_fault_of_the_callers_pod_is_denied_with_its_own_reason() {
    let table = [
        (None, "pod_unknown"),
        (
            Some(PodFacts {
                uid: "u2".into(),
                ..facts()
            }),
            "pod_replaced",
        ),
        (
            Some(PodFacts {
                account: "default".into(),
                ..facts()
            }),
            "pod_other_account",
        ),
        (
            Some(PodFacts {
                ended: true,
                ..facts()
            }),
            "pod_ended",
        ),
        (
            Some(PodFacts {
                node: None,
                ..facts()
            }),
            "pod_unscheduled",
        ),
        (
            Some(PodFacts {
                node: Some(String::new()),
                ..facts()
            }),
            "pod_unscheduled",
        ),
    ];
    for (facts, reason) in table {
        assert_eq!(agent_asking().place(facts).unwrap_err().as_str(), reason);
    }
}

#[test]
fn the_node_in_the_review_must_be_the_pods() {
    let with = |node| {
        let caller = Caller::assert_authenticated(agent(), Some(bound(Some(node))));
        asking(&caller, BANK).unwrap().place(Some(facts()))
    };
    assert_eq!(with("n2").unwrap_err().as_str(), "node_disagrees");
    assert!(with("n1").is_ok());
}

#[test]
fn an_account_without_a_live_pod_on_the_node_is_denied() {
    let denied = agent_asking()
        .place(Some(facts()))
        .unwrap()
        .permit(false)
        .unwrap_err();
    assert_eq!(denied.as_str(), "no_pod_on_node");
    assert_eq!(denied.to_string(), format!("no pod of {BANK} runs on node n1"));
}

/// A pod of a small cluster.
#[derive(Clone, Debug)]
struct Pod {
    name: usize,
    uid: usize,
    account: usize,
    node: Option<usize>,
    ended: bool,
}

/// Everything that bears on one request.
#[derive(Clone, Debug)]
struct World {
    pods: Vec<Pod>,
    trusted: Vec<usize>,
    caller: usize,
    token: Option<(usize, usize, Option<usize>)>,
    requested: (bool, usize),
}

fn world() -> impl Strategy<Value = World> {
    let pod = (
        0..3usize,
        0..4usize,
        0..3usize,
        prop::option::weighted(0.9, 0..2usize),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(name, uid, account, node, ended)| Pod {
            name,
            uid,
            account,
            node,
            ended,
        });
    let token = prop::option::weighted(0.9, (0..3usize, 0..4usize, prop::option::of(0..2usize)));
    let parts = (
        prop::collection::vec(pod, 0..6),
        prop::collection::vec(0..3usize, 0..3),
        0..3usize,
        token,
        (prop::bool::weighted(0.9), 0..3usize),
    );
    parts.prop_map(|(mut pods, trusted, caller, token, requested)| {
        // Names and UIDs are unique, as the API server keeps them.
        let mut names = BTreeSet::new();
        let mut uids = BTreeSet::new();
        pods.retain(|pod| names.insert(pod.name) && uids.insert(pod.uid));
        World {
            pods,
            trusted,
            caller,
            token,
            requested,
        }
    })
}

fn account(n: usize) -> ServiceAccountId {
    ServiceAccountId::new("ns", &format!("a{n}")).unwrap()
}

/// The rule as its sentence says it, over the whole cluster at once.
fn naive(world: &World) -> bool {
    let (ours, wanted) = world.requested;
    if ours && wanted == world.caller {
        return true;
    }
    let Some((name, uid, node)) = world.token else {
        return false;
    };
    let own = world.pods.iter().find(|pod| {
        pod.name == name && pod.uid == uid && pod.account == world.caller && !pod.ended && pod.node.is_some()
    });
    let Some(own) = own else { return false };
    ours && world.trusted.contains(&world.caller)
        && node.is_none_or(|node| own.node == Some(node))
        && world
            .pods
            .iter()
            .any(|pod| pod.account == wanted && pod.node == own.node && !pod.ended)
}

/// The rule as a driver walks it.
fn walked(world: &World) -> Result<IssuancePermit, Denied> {
    let pod = world.token.map(|(name, uid, node)| BoundPod {
        name: name.to_string(),
        uid: uid.to_string(),
        node: node.map(|node| node.to_string()),
    });
    let caller = Caller::assert_authenticated(account(world.caller), pod);
    let domain = if world.requested.0 { DOMAIN } else { "other.test" };
    let requested = account(world.requested.1).spiffe_id(&domain.parse().unwrap());
    let asked = Asked {
        impersonated: Some(requested.as_str()),
        certificate: None,
    };
    let trusted = world.trusted.iter().map(|n| account(*n)).collect();
    let impersonation = match claim(&caller, asked, &DOMAIN.parse().unwrap(), &trusted)? {
        Claim::Own(permit) => return Ok(permit),
        Claim::Another(impersonation) => impersonation,
    };
    let named = world
        .pods
        .iter()
        .find(|pod| pod.name.to_string() == impersonation.pod().name);
    let placed = impersonation.place(named.map(|pod| PodFacts {
        uid: pod.uid.to_string(),
        account: account(pod.account).name().into(),
        node: pod.node.map(|node| node.to_string()),
        ended: pod.ended,
    }))?;
    let runs = world.pods.iter().any(|pod| {
        account(pod.account) == *placed.account()
            && pod.node.map(|node| node.to_string()).as_deref() == Some(placed.node())
            && !pod.ended
    });
    Ok(placed.permit(runs)?)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_permitted_is_what_the_sentence_says_and_under_the_name_asked_for(world in world()) {
        let decided = walked(&world);
        prop_assert_eq!(decided.is_ok(), naive(&world), "{:?}", decided);
        if let Ok(permit) = decided {
            prop_assert_eq!(permit.id(), &account(world.requested.1).spiffe_id(&DOMAIN.parse().unwrap()));
            prop_assert_eq!(permit.account(), &account(world.requested.1));
        }
    }
}
