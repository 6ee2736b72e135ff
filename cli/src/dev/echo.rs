//! The application that is brought along: it says who asked it for what, as its proxy told it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use signet_certs::ServiceAccountId;
use signet_runtime::shutdown::Tasks;
use tokio::net::TcpListener;

/// Where a proxy says who is at the other end of the connection.
const PEER_HEADER: &str = "x-forwarded-client-cert";
/// Wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `tasks` end, as the application of `account`; says where.
///
/// # Errors
/// When there is no port for it.
pub async fn serve(account: &ServiceAccountId, tasks: &Tasks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (own, connections) = (account.to_string(), tasks.clone());
    tasks.spawn_until_shutdown(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let own = own.clone();
            connections.spawn_until_shutdown(async move {
                let answer = service_fn(move |request: Request<Incoming>| {
                    let answer = Response::new(Full::new(Bytes::from(text(&own, &request))));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                // Whoever asked has gone, or asked for what is no HTTP; there is nobody to tell.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(address)
}

fn text<B>(own: &str, request: &Request<B>) -> String {
    let (method, target) = (request.method(), request.uri());
    let by = match peer(request.headers()) {
        Some(id) => format!("asked by {id}"),
        None => "asked by somebody without mutual TLS".to_owned(),
    };
    format!("{own} answers {method} {target}\n{by}\n")
}

/// The SPIFFE ID in the header that the proxy makes anew for each request.
fn peer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(PEER_HEADER)?.to_str().ok()?;
    header
        .split([';', ','])
        .find_map(|part| part.strip_prefix("URI="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_asked_for_what() {
        let request = Request::get("/a?b").header(
            PEER_HEADER,
            "By=spiffe://d/ns/a/sa/b;Hash=00;Subject=\"\";URI=spiffe://d/ns/shop/sa/web",
        );
        assert_eq!(
            text("shop/backend", &request.body(()).unwrap()),
            "shop/backend answers GET /a?b\nasked by spiffe://d/ns/shop/sa/web\n"
        );
        let plain = Request::post("/").body(()).unwrap();
        assert!(text("shop/backend", &plain).ends_with("asked by somebody without mutual TLS\n"));
    }
}
