//! Against a real server of the published service, over TCP and a unix socket.

use std::net::SocketAddr;
use std::sync::Mutex;

use http::{HeaderMap, Request as HttpRequest, StatusCode};
use signet_proto::wire::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use signet_proto::wire::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use signet_proto::wire::envoy::service::auth::v3::check_response::HttpResponse;
use signet_proto::wire::envoy::service::auth::v3::{
    AttributeContext, DeniedHttpResponse, OkHttpResponse, QueryParameter,
};
use signet_proto::wire::envoy::r#type::v3::HttpStatus;
use signet_proto::wire::google::rpc;
use signet_runtime::SystemClock;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response};

use super::*;
use crate::connection::{Direction, Peer, Security};

/// Answers as it is told, and keeps what it was asked.
#[derive(Clone, Default)]
struct Desk {
    answer: Arc<Mutex<Option<CheckResponse>>>,
    asked: Arc<Mutex<Vec<AttributeContext>>>,
    arrived: Arc<Notify>,
}

#[tonic::async_trait]
impl Authorization for Desk {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap();
        self.asked.lock().unwrap().push(attributes);
        self.arrived.notify_one();
        let answer = self.answer.lock().unwrap().clone();
        match answer {
            Some(answer) => Ok(Response::new(answer)),
            None => std::future::pending().await,
        }
    }
}

async fn serve(desk: Desk) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(desk));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address.to_string()
}

fn provider(target: Target) -> Provider {
    Provider {
        name: "p".into(),
        target,
        timeout: Duration::from_secs(5),
        concurrent: 2,
        include_headers: None,
    }
}

fn asker(provider: Provider) -> Asker {
    Asker::new(&[provider], Arc::new(SystemClock), AskMetrics::default()).unwrap()
}

pub(crate) fn accepted() -> Accepted {
    Accepted {
        id: 1,
        direction: Direction::Inbound,
        security: Security::Mutual(Peer {
            id: "spiffe://cluster.local/ns/a/sa/b".parse().unwrap(),
            leaf_sha256: [0; 32],
            not_after: signet_certs::UnixTime::since_unix_epoch(Duration::ZERO),
            proof: None,
        }),
        source: SocketAddr::from(([10, 0, 0, 1], 4000)),
        remote: [10, 0, 0, 1].into(),
        destination: SocketAddr::from(([10, 0, 0, 2], 8080)),
        port: 8080,
        sni: Some("b.test".into()),
        alpn: None,
        own_not_after: None,
        own_id: Some("spiffe://cluster.local/ns/c/sa/d".parse().unwrap()),
    }
}

fn request() -> Parts {
    let request = HttpRequest::post("/p?q=1")
        .header("host", "b.test:80")
        .header("x-a", "1")
        .header("x-a", "2")
        .header("content-length", "3");
    request.body(()).unwrap().into_parts().0
}

fn ok(ok: OkHttpResponse) -> CheckResponse {
    CheckResponse {
        status: None,
        http_response: Some(HttpResponse::OkResponse(ok)),
    }
}

fn no(code: i32, denied: Option<DeniedHttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(rpc::Status {
            code,
            message: String::new(),
        }),
        http_response: denied.map(HttpResponse::DeniedResponse),
    }
}

fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.into(),
            value: value.into(),
            ..HeaderValue::default()
        }),
        append,
        append_action,
        keep_empty_value: false,
    }
}

async fn answered(response: CheckResponse) -> Answer {
    let desk = Desk::default();
    *desk.answer.lock().unwrap() = Some(response);
    let asker = asker(provider(Target::Plaintext(serve(desk).await)));
    asker.ask("p", &accepted(), Some(&request())).await
}

#[tokio::test]
async fn a_provider_is_told_who_asks_for_what() {
    let desk = Desk::default();
    *desk.answer.lock().unwrap() = Some(ok(OkHttpResponse::default()));
    let asker = asker(provider(Target::Plaintext(serve(desk.clone()).await)));
    assert_eq!(
        asker.ask("p", &accepted(), Some(&request())).await.as_str(),
        "allowed"
    );
    assert_eq!(asker.ask("p", &accepted(), None).await.as_str(), "allowed");
    let asked = desk.asked.lock().unwrap().clone();
    let http = asked[0].request.clone().unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str()),
        ("POST", "/p?q=1", "b.test:80")
    );
    assert_eq!(
        (http.scheme.as_str(), http.protocol.as_str(), http.size),
        ("https", "HTTP/1.1", 3)
    );
    let headers: Vec<(&str, &str)> = http
        .headers
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let expected = [
        (":authority", "b.test:80"),
        (":method", "POST"),
        (":path", "/p?q=1"),
        (":scheme", "https"),
        ("content-length", "3"),
        ("x-a", "1,2"),
    ];
    assert_eq!(headers, expected);
    for one in &asked {
        let (source, own) = (one.source.as_ref().unwrap(), one.destination.as_ref().unwrap());
        assert_eq!(source.principal, "spiffe://cluster.local/ns/a/sa/b");
        assert_eq!(own.principal, "spiffe://cluster.local/ns/c/sa/d");
        assert_eq!(one.tls_session.as_ref().unwrap().sni, "b.test");
    }
    assert!(asked[1].request.is_none(), "a connection has no request");
}

#[tokio::test]
async fn a_yes_changes_the_headers_it_names() {
    let add = answered(ok(OkHttpResponse {
        headers: vec![
            option("x-set", "new", Some(false), 0),
            option("x-join", "2", Some(true), 0),
            option("x-join-none", "2", Some(true), 0),
            option("x-absent", "no", None, 1),
            option("x-new", "yes", None, 1),
            option("x-over", "new", None, 2),
            option("x-over-none", "new", None, 3),
        ],
        headers_to_remove: vec!["X-Gone".into(), "Host".into(), ":path".into()],
        response_headers_to_add: vec![
            option("x-back", "b", None, 0),
            option("x-here", "no", None, 1),
            option("content-length", "9", None, 0),
        ],
        ..OkHttpResponse::default()
    }))
    .await;
    let Answer::Allowed(allowed) = add else {
        panic!("{add:?}")
    };
    let mut headers = HeaderMap::new();
    for name in ["host", "x-set", "x-join", "x-absent", "x-over", "x-gone"] {
        headers.insert(name, "old".parse().unwrap());
    }
    allowed.request.apply(&mut headers);
    let shown = |name: &str| {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(",")
    };
    for (name, value) in [
        ("host", "old"),
        ("x-set", "new"),
        ("x-join", "old,2"),
        ("x-join-none", ""),
        ("x-absent", "no"),
        ("x-new", "yes"),
        ("x-over", "new"),
        ("x-over-none", "new"),
        ("x-gone", ""),
    ] {
        assert_eq!(shown(name), value, "{name}");
    }
    let mut response = HeaderMap::new();
    response.insert("x-here", "old".parse().unwrap());
    allowed.response.apply(&mut response);
    assert!(response.len() == 2 && response["x-back"] == "b" && response["x-here"] == "old");
}

#[tokio::test]
async fn a_yes_with_something_that_is_not_done_is_none() {
    let parameter = QueryParameter {
        key: "a".into(),
        value: "b".into(),
    };
    for unfit in [
        OkHttpResponse {
            query_parameters_to_set: vec![parameter],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            query_parameters_to_remove: vec!["a".into()],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers: vec![option(":path", "/", None, 2)],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers: vec![option("Content-Length", "7", None, 2)],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers: vec![option("x-forwarded-client-cert", "x", None, 2)],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers: vec![option("x", "a\r\nb: c", None, 2)],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            response_headers_to_add: vec![option("x", "a", None, 9)],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers: vec![option("x", "a", None, 2); 129],
            ..OkHttpResponse::default()
        },
    ] {
        assert_eq!(answered(ok(unfit.clone())).await.as_str(), "answer", "{unfit:?}");
    }
}

#[tokio::test]
async fn a_no_is_told_as_the_provider_wants_and_as_403_otherwise() {
    let denied = |status: i32, headers, body: &str| {
        Some(DeniedHttpResponse {
            status: Some(HttpStatus { code: status }),
            headers,
            body: body.into(),
        })
    };
    let login = vec![
        option("location", "/login", None, 0),
        option("content-length", "7", None, 0),
        option("b\0", "", None, 0),
    ];
    for (response, status, body) in [
        (no(7, None), StatusCode::FORBIDDEN, ""),
        (no(16, denied(302, login, "go")), StatusCode::FOUND, "go"),
        (no(7, denied(0, vec![], "")), StatusCode::FORBIDDEN, ""),
        (no(7, denied(100, vec![], "")), StatusCode::FORBIDDEN, ""),
        (no(7, denied(70000, vec![], "")), StatusCode::FORBIDDEN, ""),
    ] {
        let answer = answered(response).await;
        let Answer::Denied(denied) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((denied.status, &denied.body[..]), (status, body.as_bytes()));
        let mut headers = HeaderMap::new();
        denied.headers.apply(&mut headers);
        assert_eq!(
            headers.len(),
            usize::from(status == StatusCode::FOUND),
            "{headers:?}"
        );
    }
    let contradiction = CheckResponse {
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
        ..no(7, None)
    };
    assert_eq!(answered(contradiction).await.as_str(), "denied");
    let both = no(0, Some(DeniedHttpResponse::default()));
    assert_eq!(answered(both).await.as_str(), "denied");
    assert_eq!(
        answered(CheckResponse::default()).await.as_str(),
        "answer",
        "it says nothing"
    );
    assert_eq!(answered(no(0, None)).await.as_str(), "allowed");
}

#[tokio::test]
async fn whoever_does_not_answer_in_time_has_not_said_yes() {
    let desk = Desk::default();
    let mut slow = provider(Target::Plaintext(serve(desk).await));
    slow.timeout = Duration::from_millis(50);
    assert_eq!(asker(slow).ask("p", &accepted(), None).await.as_str(), "deadline");
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let dead = asker(provider(Target::Plaintext(free.to_string())));
    assert_eq!(dead.ask("p", &accepted(), None).await.as_str(), "unreachable");
    assert_eq!(dead.ask("other", &accepted(), None).await.as_str(), "unknown");
    let socket = asker(provider(Target::Unix("/nonexistent/sock".into())));
    assert_eq!(socket.ask("p", &accepted(), None).await.as_str(), "unreachable");
}

#[tokio::test]
async fn more_questions_than_agreed_are_refused_at_once() {
    let desk = Desk::default();
    let asker = asker(provider(Target::Plaintext(serve(desk.clone()).await)));
    let mut open = Vec::new();
    for _ in 0..2 {
        let asker = asker.clone();
        open.push(tokio::spawn(
            async move { asker.ask("p", &accepted(), None).await },
        ));
        desk.arrived.notified().await;
    }
    assert_eq!(asker.ask("p", &accepted(), None).await.as_str(), "too_busy");
    open.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn only_the_headers_that_were_agreed_on_are_told() {
    let desk = Desk::default();
    *desk.answer.lock().unwrap() = Some(ok(OkHttpResponse::default()));
    let mut shy = provider(Target::Plaintext(serve(desk.clone()).await));
    shy.include_headers = Some(vec!["x-a".into()]);
    asker(shy).ask("p", &accepted(), Some(&request())).await;
    let asked = desk.asked.lock().unwrap().clone();
    let http = asked[0].request.clone().unwrap().http.unwrap();
    assert_eq!(
        http.headers.into_iter().collect::<Vec<_>>(),
        [("x-a".to_owned(), "1,2".to_owned())]
    );
}
