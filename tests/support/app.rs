//! An application that speaks HTTP and says what it was asked.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// An application that answers with what it was asked, over HTTP/1 and HTTP/2.
#[derive(Debug)]
pub struct App {
    /// Where it listens, `host:port`.
    pub address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl App {
    /// Starts it.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| tell(request, Arc::clone(&log)));
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen }
    }

    /// How many requests had this header.
    #[must_use]
    pub fn heard(&self, name: &str) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("{name}: ");
        let has = |text: &&String| text.lines().any(|line| line.starts_with(&prefix));
        seen.iter().filter(has).count()
    }

    /// The value of this header in the last request.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("{name}: ");
        let line = seen.last()?.lines().find(|line| line.starts_with(&prefix))?;
        line.get(prefix.len()..).map(str::to_owned)
    }
}

async fn tell(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        text.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text.clone());
    let body = request.into_body().collect().await?.to_bytes();
    text.push_str(&format!("body {}", body.len()));
    Ok(Response::new(Full::new(text.into())))
}
