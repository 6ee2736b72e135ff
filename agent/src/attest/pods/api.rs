//! How watches reach the API server: with bounds, where a library waits for ever or does not wait at all.

use std::path::Path;
use std::time::Duration;

use kube::client::ClientBuilder;
use tower::limit::RateLimitLayer;

/// How long the API server is asked to keep one watch open, in seconds. A connection that died without a
/// word is noticed soon after.
pub const WATCH_SECONDS: u32 = 100;
/// A word, or an end of a watch, that is late by so much does not come any more.
const READ_DEADLINE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 20);
/// Longest wait for a connection: an API server that comes back is not missed for a packet that was lost.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Most requests in each so many seconds. A watch that the API server ends at once is opened again at once
/// by the library.
const PACE: (u64, Duration) = (20, Duration::from_secs(5));

/// A client for watches: of the pod we run in, or as a kubeconfig says. Watches made with it are to last no
/// longer than [`WATCH_SECONDS`].
///
/// # Errors
/// A sentence.
pub async fn watch_client(kubeconfig: Option<&Path>) -> Result<kube::Client, String> {
    let mut loaded = match kubeconfig {
        None => kube::Config::incluster().map_err(|e| {
            format!("not in a cluster ({e}); set kubeconfig to a file that reaches the API server")
        })?,
        Some(path) => {
            let named = |e: kube::config::KubeconfigError| format!("kubeconfig {}: {e}", path.display());
            let file = kube::config::Kubeconfig::read_from(path).map_err(named)?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
                .await
                .map_err(named)?
        }
    };
    // Our own backoff decides; hidden retries would only delay what the log says.
    loaded.default_retry = false;
    loaded.connect_timeout = Some(CONNECT_DEADLINE);
    // The answer to the beginning of a watch has no other bound.
    loaded.read_timeout = Some(READ_DEADLINE);
    let builder = ClientBuilder::try_from(loaded).map_err(|e| format!("kubernetes client: {e}"))?;
    Ok(builder.with_layer(&paced()).build())
}

fn paced() -> RateLimitLayer {
    RateLimitLayer::new(PACE.0, PACE.1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt as _;
    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::Api;
    use kube::client::Body;
    use kube::runtime::watcher;
    use tower::service_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_every_watch_at_once_is_not_asked_without_a_pause() {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let server = service_fn(move |request: Request<Body>| {
            let so_far = count.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(so_far < 1_000, "asked without a pause");
                let watch = request
                    .uri()
                    .query()
                    .is_some_and(|query| query.contains("watch=true"));
                let list =
                    r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
                let body = if watch { "" } else { list };
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(body.as_bytes().to_vec())))
            }
        });
        let client = ClientBuilder::new(server, "default").with_layer(&paced()).build();
        let watching = watcher(Api::<Pod>::all(client), watcher::Config::default());
        let minute = Duration::from_secs(60);
        let _ = tokio::time::timeout(minute, watching.for_each(async |_| {})).await;
        let asked = asked.load(Ordering::Relaxed);
        let most = PACE.0 * (minute.as_secs() / PACE.1.as_secs() + 1);
        assert!(asked > PACE.0 && asked <= most, "{asked} requests in a minute");
    }
}
