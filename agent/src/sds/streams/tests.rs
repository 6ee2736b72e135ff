use std::time::Duration;

use super::*;
use crate::metrics::Reason;

const UIDS: [&str; 2] = [
    "2fc932ce-fdcc-454b-97bd-aadfdeb4c340",
    "3fc932ce-fdcc-454b-97bd-aadfdeb4c340",
];

fn peer(pod: Option<&str>) -> Peer {
    let (accepted, _) = tokio::net::UnixStream::pair().unwrap();
    let peer = Peer::by_credentials(&accepted).unwrap();
    peer.seen_in(pod.map(|uid| PodUid::parse(uid).unwrap()))
}

fn of_pod(uid: &str) -> Arc<Workload> {
    Arc::new(Workload {
        identities: Vec::new(),
        subject: Subject::Pod {
            namespace: "shop".into(),
            name: "cart".into(),
            uid: uid.into(),
            account: "cart".into(),
        },
    })
}

fn fill(streams: &Arc<Streams>, peer: &Peer) -> Vec<Entry> {
    let open = || streams.open(StreamKind::Sotw, peer).ok();
    std::iter::from_fn(open).collect()
}

/// As long as it takes until as many streams as there may be can be opened again.
async fn rest() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_one_share_before_it_is_attested_and_after_whatever_its_processes() {
    let streams = Streams::new(Metrics::default());
    let mut waiting = fill(&streams, &peer(Some(UIDS[0])));
    assert_eq!(waiting.len(), MAX_STREAMS_PER_WORKLOAD);
    let workload = of_pod(UIDS[0]);
    for entry in &mut waiting {
        entry.attested(&workload).unwrap();
    }
    assert!(streams.open(StreamKind::Sotw, &peer(Some(UIDS[0]))).is_err());
    let other = fill(&streams, &peer(Some(UIDS[1])));
    assert_eq!(other.len(), MAX_STREAMS_PER_WORKLOAD, "others keep theirs");
    drop(waiting);
    rest().await;
    assert_eq!(
        fill(&streams, &peer(Some(UIDS[0]))).len(),
        MAX_STREAMS_PER_WORKLOAD
    );
}

#[tokio::test(start_paused = true)]
async fn one_attested_as_of_another_pod_takes_of_that_ones_share_as_well() {
    let streams = Streams::new(Metrics::default());
    let mut strayed = streams.open(StreamKind::Sotw, &peer(None)).unwrap();
    let full = fill(&streams, &peer(Some(UIDS[0])));
    let refused = strayed.attested(&of_pod(UIDS[0])).unwrap_err();
    assert_eq!(refused.reason, "too_many_streams");
    drop(full);
    rest().await;
    strayed.attested(&of_pod(UIDS[0])).unwrap();
    let most = MAX_STREAMS_PER_WORKLOAD - 1;
    assert_eq!(fill(&streams, &peer(Some(UIDS[0]))).len(), most);
    drop(strayed);
    rest().await;
    assert_eq!(fill(&streams, &peer(Some(UIDS[0]))).len(), most + 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_opens_and_drops_streams_is_slowed_down_and_its_neighbours_are_not() {
    let metrics = Metrics::default();
    let streams = Streams::new(metrics.clone());
    let often = |pod| {
        let open = || streams.open(StreamKind::X509Svid, &peer(Some(pod)));
        std::iter::from_fn(|| open().ok().map(drop)).take(10_000).count()
    };
    // All secrets of an Envoy three times over, then the rate.
    assert_eq!(often(UIDS[0]), MAX_STREAMS_PER_WORKLOAD);
    assert_eq!(often(UIDS[0]), 0);
    assert_eq!(often(UIDS[1]), MAX_STREAMS_PER_WORKLOAD);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(often(UIDS[0]), 100);
    let reason = Reason { reason: "too_often" };
    assert_eq!(metrics.workload_refusals.get_or_create(&reason).get(), 4);
}
