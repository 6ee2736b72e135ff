//! Kubelet's probes of the application, answered by the proxy: kubelet has no identity, so a STRICT port resets it.
//!
//! A port of its own, in plaintext and not redirected, offers a fixed list of checks and nothing else. Each asks the
//! application in this pod, as kubelet would, and tells yes or no: none of the application's words go out here, and
//! there is nothing a stranger can choose. However many ask at once, the application is asked once.

mod check;
mod config;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, WeakShared};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use signet_runtime::shutdown::Tasks;
use tokio::net::{TcpListener, TcpStream};

use crate::metrics::Outcome;
use check::Answer;
pub use config::{Asked, HttpProbe, ProbeCheck, Probes, RawProbes};

/// Connections at once, in all and of one address: strangers reach this port too, and must not keep kubelet out.
const MAX_CONNECTIONS: usize = 256;
const MAX_OF_ONE: usize = 32;
/// A connection that brings no whole request for this long is closed.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The least that the parser takes.
const MAX_HEAD: usize = 8 * 1024;

/// What is counted of probes.
#[derive(Clone, Debug, Default)]
pub struct ProbeMetrics {
    /// Checks, by what came of them; and requests for none.
    pub probes: Family<Outcome, Counter>,
    /// Connections closed since too many were open.
    pub turned_away: Counter,
}

impl ProbeMetrics {
    /// Registers all.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register(
            "signet_proxy_probes",
            "Probes of the application, by what came of them",
            all.probes.clone(),
        );
        registry.register(
            "signet_proxy_probe_connections_turned_away",
            "Connections to the port of probes closed because too many were open",
            all.turned_away.clone(),
        );
        all
    }

    fn count(&self, outcome: &'static str) {
        self.probes.get_or_create(&Outcome { outcome }).inc();
    }
}

/// A check and what is known of it.
struct Check {
    asks: ProbeCheck,
    /// The question that is open now.
    open: Mutex<Option<WeakShared<BoxFuture<'static, Answer>>>>,
    /// What the last answer was called.
    last: Mutex<Option<&'static str>>,
}

/// Binds the port and serves it until shutdown. Answers the address bound.
///
/// # Errors
/// When it cannot be bound, naming it.
pub async fn serve(probes: &Probes, metrics: ProbeMetrics, tasks: &Tasks) -> Result<SocketAddr, String> {
    let named = |e: std::io::Error| format!("bind probes.listen {}: {e}", probes.listen);
    let listener = TcpListener::bind(probes.listen).await.map_err(named)?;
    let bound = listener.local_addr().map_err(named)?;
    let checks = probes.checks.iter().cloned().map(|asks| Check {
        asks,
        open: Mutex::default(),
        last: Mutex::default(),
    });
    let desk = Arc::new(Desk {
        checks: checks.collect(),
        metrics,
        open: Mutex::default(),
    });
    let connections = tasks.clone();
    tasks.spawn_essential("probes", async move {
        loop {
            match listener.accept().await {
                Ok((stream, source)) => desk.arrived(stream, source.ip().to_canonical(), &connections),
                Err(error) => {
                    desk.metrics.count("accept_failed");
                    tracing::warn!(%error, "connection of a probe not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(bound)
}

/// Where probes are answered.
struct Desk {
    checks: Vec<Check>,
    metrics: ProbeMetrics,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place, given back when dropped.
struct Place(Arc<Desk>, IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

impl Desk {
    fn arrived(self: &Arc<Self>, stream: TcpStream, source: IpAddr, tasks: &Tasks) {
        let Some(place) = self.admit(source) else {
            self.metrics.turned_away.inc();
            return;
        };
        let Ok(own) = stream.local_addr() else { return };
        let desk = Arc::clone(self);
        tasks.spawn_until_shutdown(async move {
            let _place = place;
            let answer = service_fn(move |request: Request<Incoming>| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(&request, own.ip().to_canonical()).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(MAX_HEAD)
                // Kubelet dials anew for each probe.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "http connection ended");
            }
        });
    }

    fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&source).copied().unwrap_or_default();
        if all >= MAX_CONNECTIONS || own >= MAX_OF_ONE {
            return None;
        }
        open.insert(source, own + 1);
        Some(Place(Arc::clone(self), source))
    }

    /// `own` is the address at which we were asked: of this pod, as nothing else comes here.
    async fn answer<B>(&self, request: &Request<B>, own: IpAddr) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            self.metrics.count("method");
            return text(StatusCode::METHOD_NOT_ALLOWED, "probes are asked by GET\n");
        }
        let path = request.uri().path();
        let Some(check) = self.checks.iter().find(|check| check.asks.path == path) else {
            self.metrics.count("no_such_probe");
            return text(StatusCode::NOT_FOUND, "there is no such probe\n");
        };
        let answer = check.ask(own).await;
        self.metrics.count(answer.as_str());
        check.tell(&answer);
        match answer {
            Answer::Good => text(StatusCode::OK, "ok\n"),
            bad => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{}: {bad}\n", bad.as_str()),
            ),
        }
    }
}

impl Check {
    /// Joins the question that is open, or asks it.
    async fn ask(&self, own: IpAddr) -> Answer {
        let question = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            match open.as_ref().and_then(WeakShared::upgrade) {
                Some(question) => question,
                None => {
                    let question = check::ask(self.asks.clone(), own).boxed().shared();
                    *open = question.downgrade();
                    question
                }
            }
        };
        question.await
    }

    /// Logs the first answer and every other one than before; kubelet asks all day.
    fn tell(&self, answer: &Answer) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.replace(answer.as_str()) == Some(answer.as_str()) {
            return;
        }
        let (path, outcome) = (&*self.asks.path, answer.as_str());
        match answer {
            Answer::Good => tracing::info!(path, outcome, "the application passes its probe"),
            bad => tracing::warn!(path, outcome, detail = %bad, "the application fails its probe"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
