use std::sync::atomic::{AtomicUsize, Ordering};

use signet_runtime::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::metrics::Outcome as Label;

const FIRST: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// An issuer that says what `page` holds, and counts.
async fn issuer(page: watch::Receiver<String>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/keys", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let body = page.borrow().clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body.as_bytes()).await;
            });
        }
    });
    (address, asked)
}

fn issuers(most: usize) -> (Issuers, Metrics, Tasks) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (metrics, tasks) = (Metrics::default(), Tasks::new());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fetcher = Fetcher {
        tls: tls(None, &clock).unwrap(),
        permit: Arc::new(|_| true),
        max_body: MAX_KEY_SET_BYTES,
        redirects: Redirects::SameHost,
        user_agent: "test",
    };
    let plan = Plan {
        ask_gap: Duration::ZERO,
        ..Plan::default()
    };
    let issuers = Issuers::with(fetcher, (plan, most, "root"), &clock, &metrics, &tasks);
    (issuers, metrics, tasks)
}

fn wanted(addresses: &[&str]) -> Wanted {
    wanted_by("shop", addresses)
}

fn wanted_by(namespace: &str, addresses: &[&str]) -> Wanted {
    let issuer = |address: &&str| Issuer {
        address: KeyAddress::Uri((*address).to_owned()),
        patience: Duration::from_secs(5),
    };
    let issuers = addresses.iter().map(issuer);
    issuers.map(|issuer| (issuer, namespace.to_owned())).collect()
}

#[tokio::test]
async fn a_set_is_fetched_once_however_many_want_it_and_anew_for_who_misses_a_key() {
    let (page, shown) = watch::channel(FIRST.to_owned());
    let (address, asked) = issuer(shown).await;
    let (issuers, metrics, _tasks) = issuers(10);
    let mut news = issuers.news();
    let wanted = wanted(&[&address]);
    let (one, other) = (issuers.keep(&wanted), issuers.keep(&wanted));
    news.changed().await.unwrap();
    let known = issuers.known(&one);
    assert_eq!(known[0].1.jwks, FIRST.as_bytes());
    assert!(Arc::ptr_eq(&known[0].1, &issuers.known(&other)[0].1));
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let held = known[0].1.digest;
    assert!(
        !issuers.refresh(&wanted, &held).await,
        "nothing newer was published"
    );
    // The same keys, written otherwise, are no news.
    page.send_replace(FIRST.replace(',', ", "));
    assert!(!issuers.refresh(&wanted, &held).await);
    assert!(!news.has_changed().unwrap());
    page.send_replace(FIRST.replace("\"a\"", "\"b\""));
    assert!(issuers.refresh(&wanted, &held).await);
    assert!(news.has_changed().unwrap());
    let fetches = asked.load(Ordering::Relaxed);
    assert!(
        issuers.refresh(&wanted, &held).await,
        "who is behind asks for nothing"
    );
    assert_eq!(asked.load(Ordering::Relaxed), fetches);
    let outcome = |outcome| metrics.key_fetches.get_or_create(&Label { outcome }).get();
    assert_eq!((outcome("changed"), outcome("unchanged")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_set_outlives_its_last_user_by_a_while_and_no_longer() {
    let (issuers, _, _tasks) = issuers(10);
    let wanted = wanted(&["http://127.0.0.1:1/keys"]);
    let kept = issuers.keep(&wanted);
    let start = Instant::now();
    issuers.sweep(start + 2 * LINGER);
    assert_eq!(issuers.entries().len(), 1, "it is in use");
    drop(kept);
    issuers.sweep(start + 2 * LINGER + SWEEP);
    assert_eq!(issuers.entries().len(), 1, "it was in use a moment ago");
    issuers.sweep(start + 3 * LINGER);
    assert_eq!(issuers.entries().len(), 0);
    assert!(
        !issuers.refresh(&wanted, &[0; 32]).await,
        "nothing is fetched for who only asks"
    );
    assert_eq!(issuers.entries().len(), 0);
}

#[tokio::test]
async fn sets_beyond_the_bound_are_left_out_and_counted() {
    let (issuers, metrics, _tasks) = issuers(4);
    let kept = issuers.keep(&wanted(&["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"]));
    assert_eq!(kept.0.len(), 1);
    let many: Vec<String> = (0..=MAX_SETS)
        .map(|n| format!("http://127.0.0.1:1/{n}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let _kept = issuers.keep(&wanted(&many));
    let outcome = "no_room";
    let counted = metrics.key_fetches.get_or_create(&Label { outcome }).get();
    assert_eq!(counted, 1 + 1 + u64::try_from(MAX_SETS).unwrap());
}

#[tokio::test]
async fn one_namespace_takes_its_share_of_sets_and_leaves_others_and_the_root_namespace_theirs() {
    let (issuers, _, _tasks) = issuers(8);
    let addresses = |of: &str| [1, 2, 3].map(|n| format!("http://127.0.0.1:1/{of}/{n}"));
    let mut held = Vec::new();
    for (namespace, most) in [("hostile", 2), ("shop", 2), ("bank", 2), ("late", 0), ("root", 2)] {
        let addresses = addresses(namespace);
        let sets = issuers.keep(&wanted_by(namespace, &addresses.each_ref().map(String::as_str)));
        assert_eq!(sets.0.len(), most, "{namespace}");
        held.push(sets);
    }
    // One that is kept already is everybody's.
    let shared = addresses("shop");
    assert_eq!(issuers.keep(&wanted_by("late", &[&shared[0]])).0.len(), 1);
}
