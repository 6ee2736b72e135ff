//! What an operator can see, on loopback: GET only, and only by a loopback name, since the application and whatever it
//! renders share this address. What an operator can ask this proxy to try is on the admin socket alone.
//!
//! | module | owns |
//! |---|---|
//! | [`questions`] | the admin socket |
//! | `probe`, `fault` | a handshake with a destination, and why it failed |
//! | `destinations` | which destinations are configured |
//! | `decision` | what would become of a connection and a request that arrive here |
//! | `view` | the JSON of the pages |

mod decision;
mod destinations;
mod fault;
mod probe;
pub mod questions;
mod view;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use signet_runtime::UnixTime;
use signet_runtime::shutdown::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::accept::Bound;
use crate::config::Config;
use crate::policy_source::status::PolicyStatus;
use crate::shared::Shared;

/// Connections at once: people and scripts, not load.
const MAX_CONNECTIONS: usize = 32;
/// A connection that brings no whole request for this long is closed.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Most patience for one step of an answer, of which there are up to three: who asks gives up after 30 s.
const MOST_PATIENCE: Duration = Duration::from_secs(8);
/// Wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the pages show.
pub struct Pages {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// The listeners.
    pub listeners: Vec<Bound>,
    /// Since when connections are looked at.
    pub since: UnixTime,
    /// How the source of policies is.
    pub policies: watch::Receiver<Arc<PolicyStatus>>,
}

/// Patience for a name, a connection or a handshake that somebody asked for.
fn patience(config: &Config) -> Duration {
    config.limits.connect.min(MOST_PATIENCE)
}

/// Binds the page's address.
///
/// # Errors
/// When it cannot be bound, naming it.
pub async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let named = |e: std::io::Error| format!("bind admin address {address}: {e}");
    let listener = TcpListener::bind(address).await.map_err(named)?;
    let bound = listener.local_addr().map_err(named)?;
    Ok((listener, bound))
}

/// Serves until shutdown.
pub fn serve(listener: TcpListener, pages: Arc<Pages>, tasks: &Tasks) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = tasks.clone();
    tasks.spawn_essential("admin page", async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pages.shared.metrics.accept_failures.inc();
                    tracing::warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!("too many admin connections; closed");
                continue;
            };
            let pages = Arc::clone(&pages);
            connections.spawn_until_shutdown(async move {
                let _place = place;
                let answer = service_fn(move |request: Request<Incoming>| {
                    let answer = pages.answer(&request, false);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_DEADLINE)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "http connection ended");
                }
            });
        }
    });
}

/// Whether a `Host` names loopback: a page of another site, resolved to this address, does not.
fn is_loopback(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(bare, _)| bare),
    };
    let address = bare.parse::<IpAddr>();
    bare.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

impl Pages {
    /// Answers for a page. On the admin socket, which no browser reaches, the name does not matter.
    fn answer<B>(&self, request: &Request<B>, on_socket: bool) -> Response<Full<Bytes>> {
        let host = request.headers().get(header::HOST);
        if !on_socket && !is_loopback(host.and_then(|host| host.to_str().ok())) {
            return text(
                StatusCode::FORBIDDEN,
                "ask for this page as localhost or 127.0.0.1\n",
            );
        }
        if request.method() != Method::GET {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "nothing can be changed here; use GET\n",
            );
        }
        let shared = &self.shared;
        let page = match request.uri().path() {
            "/config" => match shared.config.print() {
                Ok(yaml) => return typed(StatusCode::OK, "application/yaml", yaml),
                Err(fault) => return text(StatusCode::INTERNAL_SERVER_ERROR, fault),
            },
            "/listeners" => view::listeners(&self.listeners),
            "/secrets" => view::secrets(shared),
            "/connections" => view::connections(shared),
            "/plaintext-clients" => view::plaintext_clients(shared, self.since),
            "/policies" => view::policies(shared, &self.policies.borrow()),
            _ => return text(StatusCode::NOT_FOUND, PAGES),
        };
        let page = serde_json::to_string_pretty(&page).unwrap_or_default();
        typed(StatusCode::OK, "application/json", page + "\n")
    }
}

const PAGES: &str = "pages: /config /listeners /policies /secrets /connections /plaintext-clients\n";

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_ends_before_who_asked_gives_up() {
        let config = |limits: &str| {
            let text = format!("policies: {{directory: /p, namespace: shop}}\n{limits}");
            Config::from_text(&text).unwrap()
        };
        assert_eq!(
            patience(&config("limits: {connect: 1m}")),
            MOST_PATIENCE,
            "a name, a connection, a handshake"
        );
        assert_eq!(patience(&config("limits: {connect: 2s}")), Duration::from_secs(2));
        assert!(MOST_PATIENCE * 3 + probe::LAST_WORD < Duration::from_secs(28));
    }

    #[test]
    fn only_loopback_names_are_answered() {
        for (host, expected) in [
            (Some("localhost"), true),
            (Some("LocalHost:15000"), true),
            (Some("127.0.0.1:15000"), true),
            (Some("127.9.9.9"), true),
            (Some("[::1]:15000"), true),
            (Some("[::1]"), true),
            (Some("evil.example"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("localhost.evil.example:80"), false),
            (Some("10.0.0.1"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host:?}");
        }
    }
}
