use std::future::pending;

use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use tonic::Code;

use super::super::{BOUNDS, Bounds, Calls, Counts};
use super::*;
use crate::metrics::Metrics;

const ONE: (Share, Option<i32>) = (Share::Process(1), Some(1));
const OTHER: (Share, Option<i32>) = (Share::Process(2), Some(2));

fn framed(length: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(u32::try_from(length).unwrap().to_be_bytes());
    message.resize(PREFIX + length, 7);
    message
}

fn calls(held: [usize; 2]) -> (Calls, Metrics) {
    let metrics = Metrics::default();
    (
        Calls::bounded(Bounds { held, ..BOUNDS }, metrics.clone()),
        metrics,
    )
}

/// A body that sends this and then nothing more, and never ends.
fn sending(calls: &Calls, of: (Share, Option<i32>), sent: Vec<u8>) -> Body {
    let first = BodyStream::new(Full::new(Bytes::from(sent)).map_err(|never| match never {}));
    let frames = first.chain(futures::stream::once(pending()));
    metered(Body::new(StreamBody::new(frames)), Arc::clone(&calls.0), of)
}

/// Half of a message of this length.
fn half(calls: &Calls, of: (Share, Option<i32>), length: usize) -> Body {
    let mut sent = framed(length);
    sent.truncate(length / 2);
    sending(calls, of, sent)
}

#[tokio::test]
async fn half_a_message_costs_the_whole_of_it_until_the_call_is_gone_and_others_keep_their_part() {
    let (calls, metrics) = calls([150_000, 100_000]);
    let mut open = vec![half(&calls, ONE, 60_000)];
    open[0].frame().await.unwrap().unwrap();
    assert_eq!(metrics.message_bytes.get(), 60_000);
    let refused = half(&calls, ONE, 60_000).frame().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(metrics.messages_turned_away.get(), 1);
    open.push(half(&calls, OTHER, 60_000));
    open[1].frame().await.unwrap().unwrap();
    half(&calls, OTHER, 30_001).frame().await.unwrap().unwrap_err();
    half(&calls, OTHER, 30_000).frame().await.unwrap().unwrap();
    open.clear();
    assert_eq!(metrics.message_bytes.get(), 0);
    half(&calls, ONE, 60_000).frame().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_pays_for_its_largest_message_while_it_lasts_and_nothing_for_small_ones() {
    let (calls, metrics) = calls([0, 0]);
    let small = [framed(FREE_BYTES), framed(0), framed(FREE_BYTES)].concat();
    sending(&calls, ONE, small).frame().await.unwrap().unwrap();
    assert_eq!(metrics.messages_turned_away.get(), 0);
    let (calls, metrics) = self::calls([1 << 20, 1 << 20]);
    let sent = [framed(10_000), framed(20_000), framed(5)].concat();
    let mut open = sending(&calls, ONE, sent);
    open.frame().await.unwrap().unwrap();
    assert_eq!(metrics.message_bytes.get(), 20_000);
    drop(open);
    assert_eq!(metrics.message_bytes.get(), 0);
}

/// What an Envoy sends on one stream that repeats its node: the first request, and the ACK of what it gets.
async fn an_envoy(calls: &Calls, of: (Share, Option<i32>)) -> Result<Body, Status> {
    let frame =
        |length| BodyStream::new(Full::new(Bytes::from(framed(length))).map_err(|never| match never {}));
    let frames = frame(61_088).chain(frame(61_188));
    let frames = frames.chain(futures::stream::once(pending()));
    let mut body = metered(Body::new(StreamBody::new(frames)), Arc::clone(&calls.0), of);
    for _ in 0..2 {
        body.frame().await.unwrap()?;
    }
    Ok(body)
}

#[tokio::test]
async fn envoys_that_repeat_their_node_have_130_streams_of_a_pod_and_six_pods_more_have_them_too() {
    let metrics = Metrics::default();
    let (calls, mut open) = (Calls::new(metrics.clone()), Vec::new());
    let shares = (1..=7).map(|pid| (Share::Process(pid), Some(pid)));
    for share in shares.clone() {
        for _ in 0..130 {
            open.push(an_envoy(&calls, share).await.unwrap());
        }
    }
    assert_eq!(metrics.message_bytes.get(), 7 * 130 * 2 * 61_188);
    // Who wants all of it leaves room for the others.
    while let Ok(body) = an_envoy(&calls, ONE).await {
        open.push(body);
        assert!(open.len() < 1_000, "one pod has no bound");
    }
    for share in shares.skip(1) {
        open.push(an_envoy(&calls, share).await.unwrap());
    }
}

#[test]
fn a_pod_that_has_its_part_is_told_of_its_own_bound_and_another_of_that_of_all() {
    let mut held = Counts::default();
    assert!(held.add(ONE.0, 100, [150, 100]));
    assert_eq!(held.met(&ONE.0, 1, [150, 100]), Some(100));
    assert_eq!(held.met(&OTHER.0, 51, [150, 100]), Some(150));
    assert_eq!(held.met(&OTHER.0, 101, [150, 100]), Some(100));
    assert_eq!(held.met(&OTHER.0, 50, [150, 100]), None);
}

#[tokio::test]
async fn a_message_larger_than_any_service_reads_is_refused_by_its_announcement() {
    let (calls, metrics) = calls([usize::MAX, usize::MAX]);
    for length in [MAX_MESSAGE_BYTES + 1, u32::MAX as usize] {
        let mut prefix = vec![0];
        prefix.extend(u32::try_from(length).unwrap().to_be_bytes());
        let refused = sending(&calls, ONE, prefix).frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert_eq!(refused.message(), "a request may have at most 262144 bytes");
    }
    assert_eq!(metrics.message_bytes.get(), 0);
}

proptest! {
    #[test]
    fn messages_are_found_however_they_are_cut(
        lengths in prop::collection::vec(0_usize..40, 1..8),
        cuts in prop::collection::vec(1_usize..17, 1..30),
    ) {
        let all: Vec<u8> = lengths.iter().flat_map(|length| framed(*length)).collect();
        let (mut framing, mut largest, mut at) = (Framing::default(), 0, 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(all.len());
            largest = largest.max(framing.follow(&Bytes::copy_from_slice(&all[at..end])));
            at = end;
            if at == all.len() {
                break;
            }
        }
        prop_assert_eq!(Some(largest), lengths.iter().copied().max());
        prop_assert_eq!((framing.read, framing.left), (0, 0));
    }
}
