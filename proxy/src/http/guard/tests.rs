use super::*;
use crate::http::pace::PIECE;

const STALL: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(600);

fn guard() -> Guard {
    Guard::new(Patience {
        stall: STALL,
        silence: SILENCE,
    })
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn before_the_answer_others_look_at_the_clock() {
    let flow = Flow::new(true);
    let far = Instant::now() + seconds(1_000_000);
    assert_eq!(guard().look(&flow, far), Ok(None));
}

#[test]
fn a_client_that_takes_nothing_is_given_up_after_its_time() {
    let (flow, mut guard, now) = (Flow::new(true), guard(), Instant::now());
    flow.answered(None);
    assert_eq!(guard.look(&flow, now), Ok(Some(now + STALL)));
    assert_eq!(guard.look(&flow, now + seconds(59)), Ok(Some(now + STALL)));
    assert_eq!(guard.look(&flow, now + STALL), Err(Verdict::Stalled));
}

#[test]
fn a_client_that_takes_a_byte_now_and_then_is_given_up_no_later() {
    let (flow, mut guard, mut now) = (Flow::new(true), guard(), Instant::now());
    flow.answered(None);
    let began = now;
    let verdict = loop {
        flow.handed(1);
        if let Err(verdict) = guard.look(&flow, now) {
            break verdict;
        }
        now += seconds(1);
        flow.asked();
        guard.look(&flow, now).unwrap();
    };
    assert_eq!((verdict, now - began), (Verdict::Stalled, STALL));
}

#[test]
fn a_slow_client_that_takes_a_piece_in_time_goes_on() {
    let (flow, mut guard, mut now) = (Flow::new(true), guard(), Instant::now());
    flow.answered(None);
    for _ in 0..1000 {
        flow.handed(u64::try_from(PIECE).unwrap());
        guard.look(&flow, now).unwrap();
        now += seconds(59);
        guard.look(&flow, now).unwrap();
        flow.asked();
        guard.look(&flow, now).unwrap();
    }
}

#[test]
fn a_request_ends_at_its_end_whoever_is_waited_for() {
    for (asked, verdict) in [(false, Verdict::LateClient), (true, Verdict::LateUpstream)] {
        let (flow, mut guard, now) = (Flow::new(true), guard(), Instant::now());
        flow.answered(Some(now + seconds(30)));
        if asked {
            flow.asked();
        }
        assert_eq!(guard.look(&flow, now), Ok(Some(now + seconds(30))));
        assert_eq!(guard.look(&flow, now + seconds(30)), Err(verdict));
    }
}

#[test]
fn a_conversation_in_which_nobody_says_anything_is_over_and_a_word_of_either_side_counts() {
    let (flow, mut guard, now) = (Flow::new(true), guard(), Instant::now());
    flow.answered(None);
    flow.asked();
    assert_eq!(guard.look(&flow, now), Ok(Some(now + SILENCE)));
    flow.received(1);
    let later = now + SILENCE;
    assert_eq!(guard.look(&flow, later), Ok(Some(later + SILENCE)));
    flow.handed(1);
    flow.asked();
    let last = later + SILENCE;
    assert_eq!(guard.look(&flow, last), Ok(Some(last + SILENCE)));
    assert_eq!(guard.look(&flow, last + SILENCE), Err(Verdict::Silent));
}

/// Says when it was dropped.
struct Held(Arc<std::sync::atomic::AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_held_is_given_back_when_it_is_given_up() {
    let flow = Arc::new(Flow::new(true));
    flow.answered(None);
    let dropped = Arc::<std::sync::atomic::AtomicBool>::default();
    let held = Held(Arc::clone(&dropped));
    let never = async move {
        let _held = held;
        std::future::pending::<()>().await;
    };
    let patience = Patience {
        stall: STALL,
        silence: SILENCE,
    };
    let began = Instant::now();
    Guarded::new(never, Arc::clone(&flow), patience).await;
    assert!(began.elapsed() >= STALL && began.elapsed() < STALL + seconds(1));
    assert!(dropped.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(flow.verdict(), Some(Verdict::Stalled));
}
