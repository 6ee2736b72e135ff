//! The application behind the proxies: answers at once, or with as much as the bulk transfer wants.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Where the bulk is.
pub(crate) const BULK_PATH: &str = "/bulk";
const ANSWER: &[u8] = &[b'a'; 256];
const CHUNK: &[u8] = &[b'b'; 64 * 1024];

/// Starts it on a free port; answers `host:port`.
pub(crate) async fn start(bulk: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            let _ = stream.set_nodelay(true);
            let service =
                service_fn(move |request| async move { Ok::<_, Infallible>(answer(&request, bulk)) });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

fn answer(request: &Request<Incoming>, bulk: u64) -> Response<BoxBody<Bytes, Infallible>> {
    if request.uri().path() == BULK_PATH {
        let chunks = usize::try_from(bulk).expect("a size") / CHUNK.len();
        let all = stream::iter((0..chunks).map(|_| Ok(Frame::data(Bytes::from_static(CHUNK)))));
        return Response::new(BodyExt::boxed(StreamBody::new(all)));
    }
    Response::new(Full::new(Bytes::from_static(ANSWER)).boxed())
}
