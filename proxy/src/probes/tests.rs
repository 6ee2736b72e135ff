//! Against applications of this test's own, on sockets.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::probes::config::HttpProbe;

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// An application that answers each connection with these bytes and counts them; with `None` it says nothing.
async fn application(says: Option<&'static [u8]>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 1024];
            if let Some(says) = says {
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(says).await;
            } else {
                held.push(stream);
            }
        }
    });
    (port, asked)
}

fn http(port: u16) -> ProbeCheck {
    let asked = Asked::Http(HttpProbe {
        path: "/healthz".parse().unwrap(),
        host: None,
    });
    check(asked, port)
}

fn check(asked: Asked, port: u16) -> ProbeCheck {
    ProbeCheck {
        path: "/live".into(),
        asked,
        port,
        timeout: Duration::from_millis(500),
    }
}

async fn served(asks: ProbeCheck) -> (SocketAddr, ProbeMetrics, Tasks) {
    let (metrics, tasks) = (ProbeMetrics::default(), Tasks::new());
    let probes = Probes {
        listen: (LOCAL, 0).into(),
        checks: vec![asks],
    };
    let address = serve(&probes, metrics.clone(), &tasks).await.unwrap();
    (address, metrics, tasks)
}

async fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let whole = format!("{request} HTTP/1.1\r\nhost: pod\r\n\r\n");
    stream.write_all(whole.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_answer_follows_the_application_and_has_none_of_its_words() {
    let secret = b"HTTP/1.1 200 OK\r\nx-secret: s\r\ncontent-length: 6\r\n\r\nsecret";
    for (says, status, body) in [
        (&secret[..], "200", "ok\n"),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n", "200", "ok\n"),
        (
            b"HTTP/1.1 503 No\r\ncontent-length: 6\r\n\r\nsecret",
            "503",
            "status: the application answered 503\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nsecret",
            "200",
            "ok\n",
        ),
        (
            b"220 mail.secret ESMTP\r\n",
            "503",
            "broken: the application broke off, or speaks another protocol\n",
        ),
    ] {
        let (port, _) = application(Some(says)).await;
        let (address, ..) = served(http(port)).await;
        let answer = get(address, "GET /live").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
}

#[tokio::test]
async fn an_application_that_is_not_there_or_says_nothing_fails() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let gone = listener.local_addr().unwrap().port();
    drop(listener);
    assert_eq!(
        check::ask(http(gone), LOCAL).await,
        Answer::Unreachable(std::io::ErrorKind::ConnectionRefused)
    );
    let (silent, _) = application(None).await;
    assert_eq!(check::ask(http(silent), LOCAL).await, Answer::Slow);
    assert_eq!(check::ask(check(Asked::Tcp, silent), LOCAL).await, Answer::Good);
}

#[tokio::test]
async fn a_crowd_of_askers_is_one_question_to_the_application() {
    let (silent, asked) = application(None).await;
    // All of them have come before the application's time is over, on a busy machine as well.
    let patient = ProbeCheck {
        timeout: Duration::from_secs(3),
        ..http(silent)
    };
    let (address, metrics, _tasks) = served(patient).await;
    let askers = (0..MAX_OF_ONE).map(|_| get(address, "GET /live"));
    for answer in futures::future::join_all(askers).await {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let slow = Outcome { outcome: "timeout" };
    let counted = metrics.probes.get_or_create(&slow).get();
    assert_eq!(counted, u64::try_from(MAX_OF_ONE).unwrap());
    // The next one is a question of its own.
    get(address, "GET /live").await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nothing_but_the_configured_checks_can_be_asked() {
    let (port, asked) = application(Some(b"HTTP/1.1 200 OK\r\n\r\n")).await;
    let (address, ..) = served(http(port)).await;
    for (request, status) in [
        ("GET /", "404"),
        ("GET /live/", "404"),
        ("GET /healthz", "404"),
        ("GET http://169.254.169.254/", "404"),
        ("POST /live", "405"),
        ("CONNECT 10.0.0.1:80", "405"),
    ] {
        let answer = get(address, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_address_cannot_hold_all_connections() {
    let (port, _) = application(None).await;
    let (address, metrics, _tasks) = served(http(port)).await;
    let mut held = Vec::new();
    for _ in 0..MAX_OF_ONE {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut one_more = TcpStream::connect(address).await.unwrap();
    assert_eq!(one_more.read(&mut [0; 1]).await.unwrap(), 0, "closed at once");
    assert_eq!(metrics.turned_away.get(), 1);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();
    other
        .write_all(b"GET / HTTP/1.1\r\nhost: pod\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}

/// A gRPC server that gives this message and this status to every call, and notes what it was asked.
async fn health(message: &'static [u8], status: &'static str) -> (u16, Arc<Mutex<Vec<u8>>>) {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;

    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            let answer = service_fn(move |request: Request<Incoming>| {
                let noted = Arc::clone(&noted);
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let question = request.into_body().collect().await?.to_bytes();
                    *noted.lock().unwrap() = question.to_vec();
                    let trailers = [("grpc-status", status)].into_iter();
                    let trailers = trailers
                        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                        .collect();
                    let frames = [
                        Frame::data(Bytes::from_static(message)),
                        Frame::trailers(trailers),
                    ];
                    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
                    Ok::<_, hyper::Error>(Response::new(body))
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer));
        }
    });
    (port, asked)
}

#[tokio::test]
async fn grpc_health_counts_only_as_serving_when_it_says_so_without_doubt() {
    for (message, status, expected) in [
        (&b"\0\0\0\0\x02\x08\x01"[..], "0", Answer::Good),
        (b"\0\0\0\0\x02\x08\x02", "0", Answer::NotServing(2)),
        (b"\0\0\0\0\0", "0", Answer::NotServing(0)),
        (b"", "5", Answer::Rpc("5".into())),
        (b"\x01\0\0\0\x02\x08\x01", "0", Answer::Broken),
        (b"\0\0\0\0\x07\x08\x01", "0", Answer::Broken),
        (b"", "0", Answer::Broken),
    ] {
        let (port, asked) = health(message, status).await;
        let asks = check(Asked::Grpc("a.B".into()), port);
        assert_eq!(check::ask(asks, LOCAL).await, expected, "{message:?} {status}");
        assert_eq!(*asked.lock().unwrap(), b"\0\0\0\0\x05\x0a\x03a.B");
    }
    let (port, _) = application(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    assert_eq!(
        check::ask(check(Asked::Grpc(String::new()), port), LOCAL).await,
        Answer::Broken
    );
}
