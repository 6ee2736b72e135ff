//! The client of a proxy's admin socket: HTTP/1.1 and JSON, over the socket itself or through `kubectl exec`, all
//! questions on one connection. Every call has a deadline and every answer a bound.

mod exec;

use std::time::Duration;

use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::asked::{Decided, Question, TlsChecked};
use super::place::Place;
use crate::fault::Fault;
pub use exec::Kubectl;
use exec::Words;

/// Patience for an answer. A name, a connection and a handshake may take 8 s each at the proxy, and kubectl needs its time
/// as well.
const DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Why a proxy's admin socket gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody listens there, or not to us.
    #[error("{place}: {source}{}", connect_hint(source))]
    Connect {
        /// Where.
        place: Place,
        /// The system's word.
        source: std::io::Error,
    },
    /// `kubectl` cannot be run.
    #[error(
        "{place}: run {program}: {source}; pods are asked by kubectl exec: install kubectl, or name it with --kubectl"
    )]
    NoKubectl {
        /// Where.
        place: Place,
        /// The program.
        program: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The connection ended without an answer.
    #[error("{place}: no answer: {reason}")]
    Closed {
        /// Where.
        place: Place,
        /// Why, as far as it was told.
        reason: String,
    },
    /// No answer in time.
    #[error("{place}: no answer within {} s", DEADLINE.as_secs())]
    Slow {
        /// Where.
        place: Place,
    },
    /// It answered with an error.
    #[error("{place}: {error}")]
    Refused {
        /// Where.
        place: Place,
        /// Its sentence.
        error: String,
    },
    /// It is a proxy of another version, or no proxy.
    #[error(
        "{place}: it does not know {page}; is it the admin_socket of a signet-proxy, and of this version?"
    )]
    NoSuchPage {
        /// Where.
        place: Place,
        /// What was asked for.
        page: &'static str,
    },
    /// It answered with something else than agreed.
    #[error(
        "{place}: the answer to {page} cannot be read: {reason}; use the signet of the proxy's own version"
    )]
    Garbled {
        /// Where.
        place: Place,
        /// What was asked for.
        page: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

fn connect_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "; is the proxy running, and is this its admin_socket?",
        std::io::ErrorKind::ConnectionRefused => "; the proxy that made this socket is gone",
        std::io::ErrorKind::PermissionDenied => "; run as the user the proxy runs as",
        _ => "",
    }
}

impl From<LinkError> for Fault {
    fn from(error: LinkError) -> Self {
        Self::unanswered(error)
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// A connection to a proxy's admin socket.
#[derive(Debug)]
pub struct Link {
    place: Place,
    sender: SendRequest<Full<Bytes>>,
    /// What the program in between had to say.
    words: Words,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// A [`LinkError`].
    pub async fn open(place: &Place, kubectl: &Kubectl) -> Result<Self, LinkError> {
        match place {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|source| LinkError::Connect {
                    place: place.clone(),
                    source,
                })?;
                Self::over(place, stream, Words::default()).await
            }
            Place::Pod { namespace, pod } => {
                let started = kubectl.start(namespace, pod);
                let (stream, words) = started.map_err(|source| LinkError::NoKubectl {
                    place: place.clone(),
                    program: kubectl.program.display().to_string(),
                    source,
                })?;
                Self::over(place, stream, words).await
            }
        }
    }

    async fn over<S>(place: &Place, stream: S, words: Words) -> Result<Self, LinkError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = place.clone();
        match http1::handshake(TokioIo::new(stream)).await {
            Ok((sender, connection)) => {
                // Ends by itself when the sender is dropped.
                tokio::spawn(async move {
                    let _ = connection.await;
                });
                Ok(Self { place, sender, words })
            }
            Err(error) => Err(LinkError::Closed {
                place,
                reason: error.to_string(),
            }),
        }
    }

    /// A page.
    ///
    /// # Errors
    /// A [`LinkError`].
    pub async fn get<T: DeserializeOwned>(&mut self, page: &'static str) -> Result<T, LinkError> {
        self.call("GET", page, Vec::new()).await
    }

    /// Has the proxy make a handshake with `destination`, `host:port`.
    ///
    /// # Errors
    /// A [`LinkError`].
    pub async fn tls_check(&mut self, destination: &str) -> Result<TlsChecked, LinkError> {
        self.ask("/tls-check", &serde_json::json!({ "destination": destination }))
            .await
    }

    /// What would become of a connection and a request that arrive at this proxy.
    ///
    /// # Errors
    /// A [`LinkError`].
    pub async fn decision(&mut self, question: &Question) -> Result<Decided, LinkError> {
        self.ask("/decision", question).await
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        page: &'static str,
        question: &impl Serialize,
    ) -> Result<T, LinkError> {
        let body = serde_json::to_vec(question).map_err(|e| self.garbled(page, &e))?;
        self.call("POST", page, body).await
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        page: &'static str,
        body: Vec<u8>,
    ) -> Result<T, LinkError> {
        let place = self.place.clone();
        match tokio::time::timeout(DEADLINE, self.exchange(method, page, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(LinkError::Slow { place }),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &mut self,
        method: &str,
        page: &'static str,
        body: Vec<u8>,
    ) -> Result<T, LinkError> {
        let request = http::Request::builder()
            .method(method)
            .uri(page)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.garbled(page, &e))?;
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = match sent.await {
            Ok(response) => response,
            Err(error) => return Err(self.closed(&error).await),
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;
        let body = body.map_err(|e| self.garbled(page, &e))?.to_bytes();
        let place = || self.place.clone();
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|e| self.garbled(page, &e)),
            _ => Err(match serde_json::from_slice::<Refusal>(&body) {
                Ok(Refusal { error }) => LinkError::Refused {
                    place: place(),
                    error,
                },
                Err(_) => LinkError::NoSuchPage { place: place(), page },
            }),
        }
    }

    /// Why there was no answer: the program in between knows best.
    async fn closed(&mut self, error: &hyper::Error) -> LinkError {
        let said = self.words.last().await;
        let reason = match (&self.place, said) {
            (_, Some(said)) => said,
            (Place::Socket(_), None) => {
                format!("{error}; an admin socket serves only the user its proxy runs as")
            }
            (Place::Pod { .. }, None) => error.to_string(),
        };
        LinkError::Closed {
            place: self.place.clone(),
            reason,
        }
    }

    fn garbled(&self, page: &'static str, reason: &dyn std::fmt::Display) -> LinkError {
        LinkError::Garbled {
            place: self.place.clone(),
            page,
            reason: reason.to_string(),
        }
    }
}
