//! A steady stream of HTTP requests that counts what fails.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::http;

/// Failures kept in words; all are counted.
const WORDS: usize = 10;

/// What came of the requests so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests answered or failed.
    pub requests: u64,
    /// Those not answered with 200.
    pub failures: u64,
    /// The first failures in words.
    pub words: Vec<String>,
    /// Serials that the server saw of us, in the order of their first request.
    pub serials: Vec<String>,
    /// SPIFFE IDs that the server saw of us.
    pub peers: BTreeSet<String>,
}

/// What is asked for, again and again.
#[derive(Clone, Debug)]
pub struct What {
    /// The path.
    pub path: String,
    /// The token that comes with it.
    pub token: Option<String>,
}

/// A running stream of requests. It ends when dropped.
#[derive(Debug)]
pub struct Load {
    report: Arc<Mutex<Report>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Load {
    /// Sends `per_second` requests to `address` (`host:port`), each on a connection of its own.
    #[must_use]
    pub fn start(address: &str, per_second: u32) -> Self {
        let what = What {
            path: "/".to_owned(),
            token: None,
        };
        Self::asking(address, per_second, what)
    }

    /// Sends `per_second` requests for `what` to `address`, each on a connection of its own.
    #[must_use]
    pub fn asking(address: &str, per_second: u32, what: What) -> Self {
        let report = Arc::new(Mutex::new(Report::default()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(send(
            (address.to_owned(), what),
            Duration::from_secs(1) / per_second,
            Arc::clone(&report),
            stop.clone(),
        ));
        Self { report, stop, task }
    }

    /// What came of it so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it, with the request under way, and tells what came of it.
    pub async fn stop(mut self) -> Report {
        self.stop.cancel();
        let _ = (&mut self.task).await;
        self.report()
    }

    /// Waits until so many more requests were sent.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn more(&self, requests: u64) {
        let goal = self.report().requests + requests;
        let deadline = Duration::from_secs(60);
        crate::wait::until("requests", deadline, async || self.report().requests >= goal).await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(
    (address, what): (String, What),
    pause: Duration,
    report: Arc<Mutex<Report>>,
    stop: CancellationToken,
) {
    let began = Instant::now();
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let answer = match &what.token {
            None => http::get(&address, &what.path).await,
            Some(token) => http::get_with_token(&address, &what.path, token).await,
        };
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.requests += 1;
        match answer {
            Ok(answer) if answer.status == http::OK => {
                if let Some(serial) = answer.header("x-peer-serial")
                    && report.serials.last().is_none_or(|last| last != serial)
                {
                    let serial = serial.to_owned();
                    report.serials.push(serial);
                }
                if let Some(peer) = answer.header("x-peer") {
                    let peer = peer.to_owned();
                    report.peers.insert(peer);
                }
            }
            other => {
                report.failures += 1;
                if report.words.len() < WORDS {
                    let what = other.map_or_else(|e| e, |a| format!("{}: {}", a.status, a.body.trim()));
                    let at = began.elapsed().as_secs_f32();
                    report.words.push(format!("after {at:.1} s: {what}"));
                }
            }
        }
    }
}
