//! The client of a proxy's admin page: HTTP/1.1 on loopback, JSON. Every call has a deadline and every answer a bound.

use std::time::Duration;

use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::address::AdminAddress;
use super::wire::{Connections, Listeners, PlaintextClients, Policies, Secrets};
use crate::fault::Fault;

/// Patience for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer read, in bytes; a thousand connections have some 500 KiB.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// How the answer of a `signet-proxy` to a page that it does not have begins.
const ITS_PAGES: &[u8] = b"pages: /config";

/// Why a proxy's admin page gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// Nobody listens there.
    #[error("{address}: {source}{}", connect_hint(source))]
    Connect {
        /// The page's address.
        address: AdminAddress,
        /// The system's word.
        source: std::io::Error,
    },
    /// Somebody listens, and is no `signet-proxy`.
    #[error("{address}: this is no admin page of a signet-proxy ({found}); {}", stranger_hint(*kind))]
    Stranger {
        /// The page's address.
        address: AdminAddress,
        /// What was found.
        found: String,
        /// Who it may be.
        kind: Stranger,
    },
    /// A `signet-proxy` of another version.
    #[error(
        "{address}: this signet-proxy has no page {page}; use the signet of its own version, from its image"
    )]
    NoSuchPage {
        /// The page's address.
        address: AdminAddress,
        /// What was asked for.
        page: &'static str,
    },
    /// No answer in time.
    #[error(
        "{address}: no answer within {} s; is the proxy stuck, or is this the address of one of its \
listeners? admin_listen in its configuration has the right one",
        DEADLINE.as_secs()
    )]
    Slow {
        /// The page's address.
        address: AdminAddress,
    },
    /// It answered with something else than agreed.
    #[error(
        "{address}: the answer to {page} cannot be read: {reason}; if this is a signet-proxy, use the signet of its \
own version, from its image"
    )]
    Garbled {
        /// The page's address.
        address: AdminAddress,
        /// What was asked for.
        page: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Who answers instead of a `signet-proxy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// An Envoy: Istio's sidecars have their admin page on the same port.
    Envoy,
    /// Anything else.
    Other,
}

fn connect_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            "; is signet-proxy running, and is this its admin_listen? Its log line \"proxy started\" names \
admin_address; for a pod, run this inside of it, or after `kubectl port-forward POD 15000`"
        }
        _ => "",
    }
}

fn stranger_hint(kind: Stranger) -> &'static str {
    match kind {
        Stranger::Envoy => "it is an Envoy: ask it with `istioctl proxy-config`",
        Stranger::Other => "give the address that admin_listen names, not a listener or metrics_listen",
    }
}

impl From<PageError> for Fault {
    fn from(error: PageError) -> Self {
        Self::unanswered(error)
    }
}

/// The admin page of a proxy.
#[derive(Clone, Debug)]
pub struct ProxyPages {
    address: AdminAddress,
}

impl ProxyPages {
    /// The page at `address`. Nothing is connected yet.
    #[must_use]
    pub fn at(address: &AdminAddress) -> Self {
        Self {
            address: address.clone(),
        }
    }

    /// What it presents, and whom it believes.
    ///
    /// # Errors
    /// A [`PageError`].
    pub async fn secrets(&self) -> Result<Secrets, PageError> {
        self.get("/secrets").await
    }

    /// What it enforces.
    ///
    /// # Errors
    /// A [`PageError`].
    pub async fn policies(&self) -> Result<Policies, PageError> {
        self.get("/policies").await
    }

    /// What is open.
    ///
    /// # Errors
    /// A [`PageError`].
    pub async fn connections(&self) -> Result<Connections, PageError> {
        self.get("/connections").await
    }

    /// Where it listens.
    ///
    /// # Errors
    /// A [`PageError`].
    pub async fn listeners(&self) -> Result<Listeners, PageError> {
        self.get("/listeners").await
    }

    /// Who came without mutual TLS.
    ///
    /// # Errors
    /// A [`PageError`].
    pub async fn plaintext_clients(&self) -> Result<PlaintextClients, PageError> {
        self.get("/plaintext-clients").await
    }

    async fn get<T: DeserializeOwned>(&self, page: &'static str) -> Result<T, PageError> {
        let exchange = async {
            let answer = self.send(page).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| self.garbled(page, &e))?.to_bytes();
            Ok((head, body))
        };
        let (head, body) = match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(answer) => answer?,
            Err(_) => {
                let address = self.address.clone();
                return Err(PageError::Slow { address });
            }
        };
        self.read(page, &head, &body)
    }

    async fn send(&self, page: &'static str) -> Result<http::Response<Incoming>, PageError> {
        let stream = TcpStream::connect(&*self.address.candidates()).await;
        let stream = stream.map_err(|source| PageError::Connect {
            address: self.address.clone(),
            source,
        })?;
        let no_http = |e: hyper::Error| self.stranger(format!("no HTTP: {e}"), Stranger::Other);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
        // Ends by itself with the response body: nothing else keeps the connection.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::get(page)
            .header(header::HOST, self.address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|e| self.garbled(page, &e))?;
        sender.send_request(request).await.map_err(no_http)
    }

    fn read<T: DeserializeOwned>(
        &self,
        page: &'static str,
        head: &http::response::Parts,
        body: &[u8],
    ) -> Result<T, PageError> {
        let is = |name: header::HeaderName, value: &str| {
            let found = head.headers.get(name);
            found.is_some_and(|found| found.as_bytes() == value.as_bytes())
        };
        if is(header::SERVER, "envoy") {
            return Err(self.stranger(format!("status {}", head.status), Stranger::Envoy));
        }
        if head.status == StatusCode::NOT_FOUND && body.starts_with(ITS_PAGES) {
            let address = self.address.clone();
            return Err(PageError::NoSuchPage { address, page });
        }
        if head.status != StatusCode::OK {
            return Err(self.stranger(format!("status {}", head.status), Stranger::Other));
        }
        if !is(header::CONTENT_TYPE, "application/json") {
            return Err(self.stranger("an answer that is no JSON".into(), Stranger::Other));
        }
        serde_json::from_slice(body).map_err(|e| self.garbled(page, &e))
    }

    fn stranger(&self, found: String, kind: Stranger) -> PageError {
        PageError::Stranger {
            address: self.address.clone(),
            found,
            kind,
        }
    }

    fn garbled(&self, page: &'static str, reason: &dyn std::fmt::Display) -> PageError {
        PageError::Garbled {
            address: self.address.clone(),
            page,
            reason: reason.to_string(),
        }
    }
}
