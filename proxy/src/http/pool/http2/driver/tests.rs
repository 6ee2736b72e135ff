use std::time::Duration;

use h2::client::{Builder, SendRequest};
use http::Request;
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::*;

type Begun = (
    Driver<DuplexStream>,
    SendRequest<Bytes>,
    oneshot::Sender<Infallible>,
);

/// A connection with a request under way, and its other end.
async fn begun() -> (Begun, DuplexStream) {
    let (near, far) = duplex(64 * 1024);
    let heard = Heard::default();
    let ours = Builder::new().handshake(heard.on(Joined::new(near))).await;
    let (sender, connection) = ours.unwrap();
    let (wanted, unwanted) = oneshot::channel();
    let driver = Driver::new(connection, heard, Arc::new(AtomicUsize::new(1)), unwanted);
    ((driver, sender, wanted), far)
}

/// An upstream that takes requests and answers none.
async fn slow(far: DuplexStream) {
    let mut connection = h2::server::handshake(far).await.unwrap();
    let mut held = Vec::new();
    while let Some(Ok(one)) = connection.accept().await {
        held.push(one);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_went_silent_is_given_up() {
    let ((driver, mut sender, _wanted), far) = begun().await;
    let _silent = tokio::spawn(async move {
        let _held = h2::server::handshake(far).await.unwrap();
        std::future::pending::<()>().await;
    });
    let (answer, _) = sender.send_request(Request::new(()), true).unwrap();
    let since = Instant::now();
    timeout(Duration::from_secs(90), driver).await.unwrap().unwrap();
    assert!(
        since.elapsed() >= Duration::from_secs(30),
        "{:?}",
        since.elapsed()
    );
    answer.await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_its_time_and_answers_pings_is_kept() {
    let ((driver, mut sender, _wanted), far) = begun().await;
    tokio::spawn(slow(far));
    let _answer = sender.send_request(Request::new(()), true).unwrap();
    timeout(Duration::from_secs(600), driver).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_wants_any_more_ends() {
    let ((mut driver, sender, wanted), far) = begun().await;
    let other = tokio::spawn(slow(far));
    timeout(Duration::from_secs(1), &mut driver).await.unwrap_err();
    drop((sender, wanted));
    timeout(Duration::from_secs(1), &mut driver)
        .await
        .unwrap()
        .unwrap();
    drop(driver);
    other.await.unwrap();
}
