//! Callers that note what each request came to, and an upstream that notes each request and can go away.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use signet_tests::client::Presented;
use signet_tests::wait::{SOON, until};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::system::proxy_tls::connect;

/// Requests on one connection.
const KEPT: u32 = 20;
/// Between two requests of one caller.
const PAUSE: Duration = Duration::from_millis(4);
/// The same of one whose connections are idle between, for about as long as it takes the proxy to notice.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// How long the upstream thinks, so that there are requests under way whenever it dies.
const THOUGHT: Duration = Duration::from_millis(3);
/// An address that nobody else takes ports of: one that comes back has to find its own again.
const OWN: &str = "127.0.7.7:0";

/// What a request came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// The status, with the body if it is not 200; or what went wrong.
    pub(super) said: String,
}

/// All that was said.
pub(super) fn said(outcomes: &[Outcome]) -> BTreeSet<String> {
    outcomes.iter().map(|outcome| outcome.said.clone()).collect()
}

/// Where callers enter, and as whom; without an identity in plaintext.
#[derive(Clone)]
pub(super) struct Door {
    address: String,
    identity: Option<Presented>,
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

type Sender = SendRequest<Full<Bytes>>;

impl Door {
    pub(super) fn of(address: &str, identity: Option<&Presented>) -> Self {
        Self {
            address: address.to_owned(),
            identity: identity.cloned(),
        }
    }

    async fn enter(&self) -> Result<Sender, String> {
        let stream: Box<dyn Both> = match &self.identity {
            None => Box::new(
                TcpStream::connect(&self.address)
                    .await
                    .map_err(|e| e.to_string())?,
            ),
            some => Box::new(
                connect(&self.address, some.as_ref(), &["istio"])
                    .await
                    .map_err(|e| e.to_string())?,
            ),
        };
        let begun = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = begun.map_err(|e| e.to_string())?;
        tokio::spawn(driver);
        Ok(sender)
    }

    /// Asks once; what surely was not sent is sent again on another connection, as clients do.
    async fn ask(&self, open: &mut Option<Sender>, path: &str) -> Result<String, String> {
        loop {
            if let Some(sender) = open
                && sender.ready().await.is_err()
            {
                *open = None;
            }
            let sender = match open {
                Some(sender) => sender,
                None => open.insert(self.enter().await?),
            };
            let request = Request::post(path)
                .header("host", "upstream")
                .body(Full::new(Bytes::from_static(b"x")))
                .map_err(|e| e.to_string())?;
            match sender.try_send_request(request).await {
                Ok(answer) => return read(answer, path).await,
                Err(mut error) => match error.take_message() {
                    Some(_) => *open = None,
                    None => return Err(error.into_error().to_string()),
                },
            }
        }
    }
}

async fn read(answer: Response<Incoming>, path: &str) -> Result<String, String> {
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match status {
        StatusCode::OK if body == path => Ok("200".to_owned()),
        StatusCode::OK => Err(format!("{path} was answered with {body}")),
        other => Ok(format!("{} {body}", other.as_u16())),
    }
}

/// Callers that ask until they are stopped.
pub(super) struct Callers {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Callers {
    /// So many, whose requests have paths of their own that begin with `/name-`.
    pub(super) fn start(name: &str, count: usize, door: &Door) -> Self {
        Self::every(PAUSE, name, count, door)
    }

    /// The same at their leisure.
    pub(super) fn seldom(name: &str, count: usize, door: &Door) -> Self {
        Self::every(LONG_PAUSE, name, count, door)
    }

    fn every(pause: Duration, name: &str, count: usize, door: &Door) -> Self {
        let outcomes = Arc::<Mutex<Vec<Outcome>>>::default();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (door, name) = (door.clone(), format!("{name}-{number}"));
            let mut tick = tokio::time::interval(pause);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (outcomes, stop) = (Arc::clone(&outcomes), stop.clone());
            tasks.spawn(call(door, name, outcomes, (tick, stop)));
        }
        Self {
            outcomes,
            stop,
            tasks,
        }
    }

    fn count(&self, said: &str) -> usize {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.iter().filter(|outcome| outcome.said == said).count()
    }

    /// Waits until so many more requests came to this.
    pub(super) async fn wait(&self, what: &str, said: &str, more: usize) {
        let goal = self.count(said) + more;
        until(what, SOON, async || self.count(said) >= goal).await;
    }

    /// Lets the requests under way end; says what all came to.
    pub(super) async fn stop(mut self) -> Vec<Outcome> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn call(
    door: Door,
    name: String,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    (mut tick, stop): (Interval, CancellationToken),
) {
    let mut open = None;
    for number in 0_u32.. {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if number % KEPT == 0 {
            open = None;
        }
        let began = Instant::now();
        let path = format!("/{name}/{number}");
        let asked = tokio::time::timeout(SOON, door.ask(&mut open, &path)).await;
        let said = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let outcome = Outcome {
            began,
            ended: Instant::now(),
            said: said.unwrap_or_else(|error| {
                open = None;
                format!("error: {error}")
            }),
        };
        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.push(outcome);
    }
}

/// Answers each request with its path, over HTTP/1 and HTTP/2.
pub(super) struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(OWN).await.unwrap();
        let (seen, stop) = (Arc::default(), CancellationToken::new());
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(serve(listener, Arc::clone(&seen), stop.clone())),
            seen,
            stop,
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The paths of all requests that came.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Dies with all its connections.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }

    /// Comes back where it was.
    pub(super) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.stop = CancellationToken::new();
        self.task = tokio::spawn(serve(listener, Arc::clone(&self.seen), self.stop.clone()));
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<String>>>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(path.clone());
                async move {
                    tokio::time::sleep(THOUGHT).await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(path))))
                }
            });
            let builder = Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    connections.shutdown().await;
}
