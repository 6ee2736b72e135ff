//! The driver against a real server; its times are in `schedule`.

use super::*;
use crate::clock::SystemClock;
use crate::fetch::Redirects;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server whose answer can be changed, and that counts.
struct Server {
    address: String,
    body: watch::Sender<Option<String>>,
    served: watch::Receiver<usize>,
}

impl Server {
    async fn start(body: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        let (sender, bodies) = watch::channel(body.map(str::to_owned));
        let (count, served) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let body = bodies.borrow().clone();
                let (status, body) = body.map_or((500, String::new()), |body| (200, body));
                let head = format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\n\r\n", body.len());
                stream
                    .write_all(format!("{head}{body}").as_bytes())
                    .await
                    .unwrap();
                count.send_modify(|count| *count += 1);
            }
        });
        Self {
            address,
            body: sender,
            served,
        }
    }
}

/// Every `ask_gap` is over at once, so that tests need not wait for it.
const PLAN: Plan = Plan {
    refresh: Duration::from_secs(3600),
    first_retry: Duration::ZERO,
    longest_retry: Duration::from_secs(3600),
    ask_gap: Duration::ZERO,
};

fn keeper(plan: Plan) -> (Keeper<String>, Arc<Mutex<Vec<&'static str>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let fetcher = Fetcher {
        tls: Arc::new(tls),
        permit: Arc::new(|_| true),
        max_body: 1024,
        redirects: Redirects::SameHost,
        user_agent: "test",
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&seen);
    let observer: Observer = Arc::new(move |outcome| observed.lock().unwrap().push(outcome.as_str()));
    let keeper = Keeper::new(fetcher, plan, Arc::new(SystemClock), Tasks::new(), observer);
    (keeper, seen)
}

fn document(address: &str) -> Document<String> {
    Document {
        name: address.to_owned(),
        address: address.to_owned(),
        patience: Duration::from_secs(5),
        read: Box::new(|_, body| match std::str::from_utf8(body) {
            Ok(text) if text.starts_with("http") => Read::Elsewhere(text.to_owned()),
            Ok(text) if text != "bad" => Read::Value(text.to_owned()),
            _ => Read::Fault("it is bad".into()),
        }),
    }
}

#[tokio::test]
async fn what_is_missed_is_fetched_and_a_failure_keeps_the_last_good_one() {
    let server = Server::start(Some("one")).await;
    let (keeper, seen) = keeper(PLAN);
    let kept = keeper.keep(document(&server.address));
    kept.settled().await;
    let first = kept.current().unwrap();
    assert_eq!(*first, "one");

    let patience = Duration::from_secs(5);
    assert!(
        !kept.newer(&first, patience).await,
        "the same document is not newer"
    );
    server.body.send_replace(Some("two".into()));
    assert!(kept.newer(&first, patience).await);
    let second = kept.current().unwrap();
    server.body.send_replace(Some("bad".into()));
    assert!(!kept.newer(&second, patience).await);
    assert!(Arc::ptr_eq(&kept.current().unwrap(), &second));
    assert_eq!(kept.fault().as_deref(), Some("it is bad"));
    assert_eq!(
        seen.lock().unwrap()[..4],
        ["changed", "unchanged", "changed", "unusable"]
    );
}

#[tokio::test]
async fn before_the_first_good_fetch_there_is_nothing() {
    let server = Server::start(None).await;
    let (keeper, seen) = keeper(Plan {
        first_retry: Duration::from_secs(60),
        ..PLAN
    });
    let kept = keeper.keep(document(&server.address));
    kept.settled().await;
    assert!(kept.current().is_none());
    assert_eq!(
        kept.fault().as_deref(),
        Some("the server answers with status 500 Internal Server Error")
    );
    assert_eq!(*seen.lock().unwrap(), ["status"]);
}

#[tokio::test]
async fn a_document_that_names_another_leads_there_once() {
    let target = Server::start(Some("keys")).await;
    let first = Server::start(Some(&target.address)).await;
    let (keeper, _) = keeper(PLAN);
    let kept = keeper.keep(document(&first.address));
    kept.settled().await;
    assert_eq!(*kept.current().unwrap(), "keys");
    target.body.send_replace(Some(target.address.clone()));
    let further = keeper.keep(document(&target.address));
    further.settled().await;
    assert_eq!(further.fault().as_deref(), Some("it leads on and on"));
}

#[tokio::test]
async fn two_who_want_the_same_share_it_and_it_ends_with_the_last_of_them() {
    let server = Server::start(Some("one")).await;
    let (keeper, _) = keeper(PLAN);
    let kept = keeper.keep(document(&server.address));
    kept.settled().await;
    let again = keeper.keep(document(&server.address));
    assert!(Arc::ptr_eq(&kept, &again) && *server.served.borrow() == 1);
    let mut value = kept.value.clone();
    drop((kept, again));
    // The driver lets go of the shelf.
    while value.changed().await.is_ok() {}
    let fresh = keeper.keep(document(&server.address));
    fresh.settled().await;
    assert_eq!(*server.served.borrow(), 2);
}

#[tokio::test]
async fn asking_too_often_is_refused_at_once() {
    let server = Server::start(Some("one")).await;
    let (keeper, seen) = keeper(Plan {
        ask_gap: Duration::from_secs(3600),
        ..PLAN
    });
    let kept = keeper.keep(document(&server.address));
    kept.settled().await;
    let first = kept.current().unwrap();
    let hour = Duration::from_secs(3600);
    server.body.send_replace(Some("two".into()));
    assert!(kept.newer(&first, hour).await, "the first who misses something");
    let second = kept.current().unwrap();
    server.body.send_replace(Some("three".into()));
    assert!(!kept.newer(&second, hour).await);
    assert_eq!(*seen.lock().unwrap(), ["changed", "changed", "too_soon"]);
}
