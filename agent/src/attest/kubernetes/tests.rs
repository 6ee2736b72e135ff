use std::collections::BTreeSet;

use signet_certs::TrustDomain;
use tokio::sync::{Notify, watch};

use super::*;
use crate::attest::Share;
use crate::attest::cgroup::ContainerId;
use crate::attest::peer::tests::Table;
use crate::attest::pods::View;
use crate::attest::pods::facts::PodFacts;
use crate::attest::pods::index::Event;
use crate::attest::pods::verdict::PATIENCE;

const POD: &str = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340";
const OTHER: &str = "019c1fe8-0d92-4aa0-b61c-4df58bdde71c";
const ID: &str = "aaefb9d8feed2d453b543f6d928cede7a4dbefa6a0ae7c9b990dd234c56e93b9";

fn path(pod: &str) -> String {
    format!("0::/../../pod{pod}/{ID}\n")
}

fn pod(uid: &str, account: &str) -> PodFacts {
    PodFacts {
        uid: PodUid::parse(uid).unwrap(),
        namespace: "shop".into(),
        name: "cart-0".into(),
        account: account.into(),
        labels: std::collections::BTreeMap::new(),
        containers: BTreeSet::from([ContainerId::parse(ID).unwrap()]),
        ports: Vec::new(),
        over: false,
    }
}

#[tokio::test]
async fn bounds_are_kept_for_the_pod_of_a_peer_and_for_the_process_of_any_other() {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    for (cgroup, share) in [
        (path(POD), Share::Pod(PodUid::parse(POD).unwrap())),
        ("0::/system.slice/x.service\n".into(), Share::Process(pid)),
        ("?".into(), Share::Process(pid)),
    ] {
        let table = tempfile::tempdir().unwrap();
        let place = table.path().join(pid.to_string());
        std::fs::create_dir(&place).unwrap();
        for file in ["stat", "status"] {
            std::os::unix::fs::symlink(format!("/proc/self/{file}"), place.join(file)).unwrap();
        }
        std::fs::write(place.join("cgroup"), cgroup).unwrap();
        let (_, pods) = watch::channel(View::empty());
        let relist = Arc::default();
        let attestor = Kubernetes::new(table.path().into(), None, Reader { view: pods, relist });
        let (accepted, _client) = UnixStream::pair().unwrap();
        assert_eq!(attestor.peer(&accepted).unwrap().share(), share);
    }
}

/// The attestor, and the writer of what it knows of pods.
struct Node {
    attestor: Kubernetes,
    view: watch::Sender<View>,
    relist: Arc<Notify>,
}

impl Node {
    fn new() -> Self {
        let (view, reader) = watch::channel(View::empty());
        let relist = Arc::new(Notify::new());
        let pods = Reader {
            view: reader,
            relist: Arc::clone(&relist),
        };
        let own = PodUid::parse("00000000-0000-4000-8000-000000000001");
        Self {
            attestor: Kubernetes::new("/proc".into(), own, pods),
            view,
            relist,
        }
    }

    fn tell(&self, event: Event) {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        self.view.send_modify(|view| {
            Arc::make_mut(&mut view.index).apply(event, &domain);
            view.known_as_of = Some(Instant::now());
        });
    }

    async fn refused(&self, peer: &Peer) -> String {
        match self.attestor.attest(peer).await.unwrap_err() {
            AttestError::Denied { reason, .. } => format!("denied {reason}"),
            AttestError::Unavailable { reason, .. } => format!("unavailable {reason}"),
        }
    }
}

#[tokio::test]
async fn a_process_gets_the_identity_of_its_pods_account() {
    let (node, table) = (Node::new(), Table::of(&path(POD)));
    node.tell(Event::Listed(vec![pod(POD, "cart")]));
    let peer = table.peer();
    let workload = node.attestor.attest(&peer).await.unwrap();
    assert_eq!(
        workload.identities[0].id.as_str(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert!(matches!(&workload.subject, Subject::Pod { uid, .. } if uid == POD));
    node.attestor.recheck(&peer, &workload).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_connects_before_the_watch_knows_it_waits() {
    let (node, table) = (Node::new(), Table::of(&path(POD)));
    let peer = table.peer();
    let asked = node.attestor.attest(&peer);
    let told = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.tell(Event::Listed(vec![]));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let unlisted = PodFacts {
            containers: BTreeSet::new(),
            ..pod(POD, "cart")
        };
        node.tell(Event::Applied(unlisted));
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.tell(Event::Applied(pod(POD, "cart")));
    };
    let (workload, ()) = tokio::join!(asked, told);
    assert!(workload.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_denied_while_it_cannot_be_known() {
    let (node, table) = (Node::new(), Table::of(&path(POD)));
    let peer = table.peer();
    let start = Instant::now();
    assert_eq!(node.refused(&peer).await, "unavailable pods_unsynced");
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "the cause is told within seconds"
    );
    node.tell(Event::Listed(vec![]));
    assert_eq!(node.refused(&peer).await, "unavailable pod_unseen");
    // Long unseen, but the watch may have been broken all the time: it is asked for a fresh list.
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(node.refused(&peer).await, "unavailable pod_unseen");
    node.relist.notified().await;
    let (answer, ()) = tokio::join!(node.refused(&peer), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.tell(Event::Listed(vec![]));
    });
    assert_eq!(answer, "denied pod_unseen");
}

#[tokio::test]
async fn processes_that_can_have_none_are_told_at_once() {
    let node = Node::new();
    node.tell(Event::Listed(vec![
        pod(POD, "cart"),
        pod("00000000-0000-4000-8000-000000000001", "signet-agent"),
    ]));
    for (cgroup, answer) in [
        ("0::/system.slice/sshd.service\n".to_owned(), "denied no_pod"),
        ("0::/../crio-aa.scope\n".to_owned(), "denied no_pod"),
        (path("00000000-0000-4000-8000-000000000001"), "denied own_pod"),
        (
            format!("0::/kubepods/pod{POD}/{ID}/pod{OTHER}/{ID}\n"),
            "denied cgroup_ambiguous",
        ),
        (format!("0::/kubepods/pod{POD}\n"), "denied no_container"),
        ("nonsense\n".to_owned(), "denied cgroup_malformed"),
    ] {
        assert_eq!(node.refused(&Table::of(&cgroup).peer()).await, answer, "{cgroup}");
    }
}

#[tokio::test]
async fn the_end_of_a_pod_ends_what_was_attested() {
    for end in [
        Event::Deleted(PodUid::parse(POD).unwrap()),
        Event::Applied(PodFacts {
            over: true,
            ..pod(POD, "cart")
        }),
        // Replaced under the same name, told without a deletion.
        Event::Applied(pod(OTHER, "cart")),
        // Found to be gone after a gap.
        Event::Listed(vec![]),
    ] {
        let (node, table) = (Node::new(), Table::of(&path(POD)));
        node.tell(Event::Listed(vec![pod(POD, "cart")]));
        let peer = table.peer();
        let workload = node.attestor.attest(&peer).await.unwrap();
        let (ended, ()) = tokio::join!(node.attestor.ended(&peer, &workload), async { node.tell(end) });
        assert_eq!(ended.reason(), "pod_ended");
        assert_eq!(
            node.attestor.recheck(&peer, &workload).unwrap_err().reason(),
            "pod_ended"
        );
        // Asked for later, it has ended already.
        assert_eq!(node.attestor.ended(&peer, &workload).await.reason(), "pod_ended");
    }
}

#[tokio::test]
async fn the_end_of_the_process_ends_what_was_attested() {
    let (node, mut table) = (Node::new(), Table::of(&path(POD)));
    node.tell(Event::Listed(vec![pod(POD, "cart")]));
    let peer = table.peer();
    let workload = node.attestor.attest(&peer).await.unwrap();
    table.child.kill();
    assert_eq!(node.attestor.ended(&peer, &workload).await.reason(), "peer_ended");
    assert_eq!(
        node.attestor.recheck(&peer, &workload).unwrap_err().reason(),
        "peer_ended"
    );
    assert_eq!(
        node.attestor.attest(&peer).await.unwrap_err().reason(),
        "peer_ended"
    );
}

#[tokio::test]
async fn a_process_that_moved_to_another_pod_is_not_what_it_was() {
    let (node, table) = (Node::new(), Table::of(&path(POD)));
    let other = PodFacts {
        name: "bank-0".into(),
        ..pod(OTHER, "bank")
    };
    node.tell(Event::Listed(vec![pod(POD, "cart"), other]));
    let peer = table.peer();
    let workload = node.attestor.attest(&peer).await.unwrap();
    table.move_to(&path(OTHER));
    assert!(node.attestor.recheck(&peer, &workload).is_err());
}
