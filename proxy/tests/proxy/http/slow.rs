//! Who is waited for, and for how long: clients that take or bring next to nothing, and upstreams that say nothing.
//! What they held is given back. Time is the test's.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_proxy::config::Speaks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::abuse::{PREFACE, frame, head, settings};
use super::site::{ALLOW_ALL, Client, Echo, Site, accepted, scripted, upstream};

/// One place at the upstream: whoever holds it keeps all others out.
const ONE_PLACE: &str = "limits: {http: {upstream_requests: 1, request_body: 6s, response_head: 7s, write_stall: 8s, \
                         stream_idle: 5m}}\n";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Keeps the clock from going on by itself while sockets are busy: time passes where a test says so.
fn hold_the_clock() {
    tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
}

/// Lets so many seconds pass, and everybody who has something to do then do it. The kernel carries what they say in its
/// own time, later on a busy machine: bytes of our own that arrive tell that theirs have, and so do answers to them.
async fn pass(count: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    for _ in 0..count {
        tokio::time::advance(seconds(1)).await;
        for _ in 0..3 {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            near.write_all(b"x").await.unwrap();
            far.read_exact(&mut [0]).await.unwrap();
        }
    }
}

fn large() -> &'static [u8] {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n".to_vec();
    [head, vec![b'x'; 4_000_000]].concat().leak()
}

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
fn window(bytes: u32) -> Vec<u8> {
    let value = bytes.to_be_bytes();
    frame(0x4, 0, 0, &[&[0, 4], &value[..]].concat())
}

/// The next frame: its kind, its stream and its payload.
async fn next(client: &mut Client) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    client.stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    client.stream.read_exact(&mut payload).await.unwrap();
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    (head[3], stream, payload)
}

/// Reads until a stream is reset, and says how long that took and how many bytes of data came before.
async fn until_reset(client: &mut Client, stream: u32) -> (Duration, usize) {
    let (began, mut data) = (Instant::now(), 0);
    loop {
        match next(client).await {
            (0x3, reset, _) if reset == stream => return (began.elapsed(), data),
            (0x0, _, payload) => data += payload.len(),
            (0x6, _, ping) if ping.len() == 8 => client.send(frame(0x6, 1, 0, &ping)).await,
            _ => {}
        }
    }
}

/// The upstream's place is free: somebody else is served at once.
async fn somebody_else_is_served(site: &Site, echo: SocketAddr) {
    let mut other = site.connect(&upstream(echo, Speaks::Http1));
    let began = Instant::now();
    other.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert!(other.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < seconds(1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_opens_no_window_is_reset_and_gives_back_its_place() {
    let (address, _) = scripted(large(), false).await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    let begin = [PREFACE.to_vec(), window(0), frame(0x1, 0x5, 1, &head())];
    client.send(begin.concat()).await;
    let (took, data) = until_reset(&mut client, 1).await;
    assert!(took >= seconds(8) && took < seconds(10), "{took:?}");
    assert_eq!((data, site.refused("client_idle")), (0, 1), "{}", site.metrics());
    somebody_else_is_served(&site, address).await;
    client.send(frame(0x8, 0, 0, &[0, 0, 0, 9])).await;
    client
        .send([window(65_535), frame(0x1, 0x5, 3, &head())].concat())
        .await;
    while next(&mut client).await.0 != 0x0 {}
}

#[tokio::test(start_paused = true)]
async fn a_short_answer_that_its_client_never_takes_did_not_end_well() {
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", false).await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    let begin = [PREFACE.to_vec(), window(0), frame(0x1, 0x5, 1, &head())];
    client.send(begin.concat()).await;
    let (took, _) = until_reset(&mut client, 1).await;
    assert!(took >= seconds(8) && took < seconds(10), "{took:?}");
    assert_eq!(site.refused("client_idle"), 1, "{}", site.metrics());
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_opened_by_a_byte_now_and_then_is_none() {
    let (address, _) = scripted(large(), false).await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let client = site.connect(&upstream(address, Speaks::Http1));
    let (read, mut write) = tokio::io::split(client.stream);
    let begin = [PREFACE.to_vec(), window(1), frame(0x1, 0x5, 1, &head())].concat();
    let drip = tokio::spawn(async move {
        write.write_all(&begin).await.unwrap();
        for _ in 0..100 {
            sleep(seconds(1)).await;
            write.write_all(&frame(0x8, 0, 1, &[0, 0, 0, 1])).await.unwrap();
        }
    });
    let (began, mut read) = (Instant::now(), tokio::io::BufReader::new(read));
    let took = loop {
        let mut head = [0; 9];
        read.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[2])];
        read.read_exact(&mut payload).await.unwrap();
        if head[3] == 0x3 {
            break began.elapsed();
        }
    };
    drip.abort();
    assert!(took >= seconds(8) && took < seconds(18), "{took:?}");
    assert_eq!(site.refused("client_idle"), 1, "{}", site.metrics());
    somebody_else_is_served(&site, address).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_pieces_slowly_is_served_to_the_end() {
    let (address, _) = scripted(large(), false).await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    let begin = [PREFACE.to_vec(), window(65_535), frame(0x1, 0x5, 1, &head())];
    client.send(begin.concat()).await;
    let (mut data, mut untold) = (0, 0_u32);
    while data < 4_000_000 {
        match next(&mut client).await {
            (0x0, 1, payload) => {
                data += payload.len();
                untold += u32::try_from(payload.len()).unwrap();
            }
            (0x6, 0, ping) if ping.len() == 8 => client.send(frame(0x6, 1, 0, &ping)).await,
            (0x3 | 0x7, ..) => panic!("given up after {data} bytes"),
            _ => {}
        }
        if untold > 60_000 {
            sleep(seconds(6)).await;
            let more = untold.to_be_bytes();
            client
                .send([frame(0x8, 0, 0, &more), frame(0x8, 0, 1, &more)].concat())
                .await;
            untold = 0;
        }
    }
    assert_eq!(site.refused("client_idle"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_at_its_end_though_its_client_opens_no_window() {
    let (address, _) = scripted(large(), false).await;
    let site = Site::new("limits: {http: {upstream_requests: 1, total: 9s}}\n", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    let begin = [PREFACE.to_vec(), window(0), frame(0x1, 0x5, 1, &head())];
    client.send(begin.concat()).await;
    let (took, _) = until_reset(&mut client, 1).await;
    assert!(took >= seconds(9) && took < seconds(11), "{took:?}");
    assert_eq!(site.refused("client_idle"), 1, "{}", site.metrics());
    somebody_else_is_served(&site, address).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_over_http1_ends_at_its_end_though_its_client_takes_nothing() {
    let (address, _) = scripted(large(), false).await;
    let site = Site::new("limits: {http: {upstream_requests: 1, total: 9s}}\n", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    client.task.await.unwrap();
    assert!(began.elapsed() >= seconds(9) && began.elapsed() < seconds(11));
    let metrics = site.metrics();
    assert_eq!(
        (site.refused("client_idle"), site.refused("client_gone")),
        (1, 0),
        "{metrics}"
    );
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", false).await;
    somebody_else_is_served(&site, address).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_by_the_byte_is_given_up() {
    for http2 in [false, true] {
        let (address, _) = scripted(b"", false).await;
        let site = Site::new(ONE_PLACE, ALLOW_ALL);
        let mut client = site.connect(&upstream(address, Speaks::Http1));
        let begun = if http2 {
            // POST.
            let head = [0x83, 0x86, 0x84, 0x41, 0x01, b'b'];
            [PREFACE.to_vec(), settings(), frame(0x1, 0x4, 1, &head)].concat()
        } else {
            b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 100000\r\n\r\n".to_vec()
        };
        client.send(begun).await;
        let began = Instant::now();
        while site.refused("request_slow") == 0 {
            assert!(began.elapsed() < seconds(9), "{http2}: {}", site.metrics());
            sleep(seconds(1)).await;
            let byte = if http2 {
                frame(0x0, 0, 1, b"x")
            } else {
                b"x".to_vec()
            };
            // Once it is given up, nobody listens.
            let _ = client.stream.write_all(&byte).await;
        }
        assert!(began.elapsed() >= seconds(6), "{:?}", began.elapsed());
        assert_eq!(site.refused("upstream_slow"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_longer_than_an_answer_may_is_no_fault_of_the_upstream() {
    let echo = Echo::start().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let site = Site::new(ONE_PLACE, ALLOW_ALL);
        let mut client = site.connect(&upstream(echo.address, speaks));
        let length = 20 * 20_000;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: {length}\r\n\r\n"
            ))
            .await;
        for _ in 0..20 {
            sleep(seconds(5)).await;
            client.send(vec![b'x'; 20_000]).await;
        }
        let head = client.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{speaks:?}: {head}");
    }
}

/// A gRPC server that says a word, and one more for each that it hears; `lazy` says the first one after it heard one.
async fn conversation(lazy: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // The kernel would wait for an acknowledgement by its own clock, which nobody holds.
            stream.set_nodelay(true).unwrap();
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                    let mut words = request.into_body().into_data_stream();
                    if lazy {
                        words.next().await.unwrap().unwrap();
                    }
                    let (mut say, said) = futures::channel::mpsc::channel(1);
                    tokio::spawn(async move {
                        let word =
                            || Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"word")));
                        say.send(word()).await.unwrap();
                        while let Some(Ok(_)) = words.next().await {
                            say.send(word()).await.unwrap();
                        }
                    });
                    Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(said)))
                });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    address
}

type Words = futures::channel::mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>;

/// A call of gRPC through the proxy, and what its client says.
async fn call(
    site: &Site,
    address: SocketAddr,
) -> (
    Words,
    impl Future<Output = Response<hyper::body::Incoming>> + use<>,
) {
    let client = site.connect(&upstream(address, Speaks::Auto));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client.stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (say, said) = futures::channel::mpsc::channel(1);
    let request = Request::post("http://b/shop.Cart/Watch")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(said))
        .unwrap();
    (say, async move { sender.send_request(request).await.unwrap() })
}

fn word() -> Result<Frame<Bytes>, std::convert::Infallible> {
    Ok(Frame::data(Bytes::from_static(b"hello")))
}

#[tokio::test(start_paused = true)]
async fn a_call_in_which_both_sides_are_silent_for_minutes_goes_on() {
    hold_the_clock();
    for lazy in [false, true] {
        let address = conversation(lazy).await;
        let site = Site::new(ONE_PLACE, ALLOW_ALL);
        let (mut say, answer) = call(&site, address).await;
        let answer = tokio::spawn(answer);
        pass(200).await;
        say.send(word()).await.unwrap();
        let mut heard = answer.await.unwrap().into_body().into_data_stream();
        assert_eq!(heard.next().await.unwrap().unwrap(), "word", "{lazy}");
        for _ in 0..3 {
            pass(250).await;
            say.send(word()).await.unwrap();
            assert_eq!(heard.next().await.unwrap().unwrap(), "word", "{lazy}");
        }
        let reasons = ["request_slow", "upstream_slow", "client_idle"];
        assert_eq!(reasons.map(|one| site.refused(one)), [0; 3], "{}", site.metrics());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_in_which_nobody_says_anything_any_more_is_over() {
    hold_the_clock();
    let address = conversation(false).await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let (_say, answer) = call(&site, address).await;
    let mut heard = answer.await.into_body().into_data_stream();
    assert_eq!(heard.next().await.unwrap().unwrap(), "word");
    pass(295).await;
    assert_eq!(site.refused("upstream_slow"), 0, "{}", site.metrics());
    pass(10).await;
    assert_eq!(site.refused("upstream_slow"), 1, "{}", site.metrics());
    assert!(heard.next().await.unwrap().is_err());
    let echo = Echo::start().await;
    somebody_else_is_served(&site, echo.address).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_http1_in_which_nobody_says_anything_any_more_is_over() {
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false).await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let began = Instant::now();
    assert!(client.rest().await.ends_with("abc"));
    assert!(began.elapsed() >= seconds(300) && began.elapsed() < seconds(610));
    client.task.await.unwrap();
    assert_eq!(site.refused("upstream_slow"), 1, "{}", site.metrics());
}

/// A server that answers in full as soon as it hears of a request, and tells whether the rest of the body was
/// waited for or given up.
async fn hasty() -> (SocketAddr, tokio::sync::mpsc::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
            let (mut body, tell) = (request.into_body(), tell.clone());
            tokio::spawn(async move {
                let given_up = loop {
                    match body.data().await {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break error.is_reset(),
                        None => break false,
                    }
                };
                tell.send(given_up).await.unwrap();
            });
        }
    });
    (address, told)
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_whose_request_was_answered_is_not_waited_for() {
    let (address, mut told) = hasty().await;
    let site = Site::new(ONE_PLACE, ALLOW_ALL);
    let (mut say, answer) = call(&site, address).await;
    say.send(word()).await.unwrap();
    let answer = answer.await;
    assert_eq!(answer.status(), 200);
    let given_up = timeout(seconds(30), told.recv()).await.unwrap();
    assert_eq!(given_up, Some(true));
}

#[tokio::test(start_paused = true)]
async fn one_address_does_not_take_all_places() {
    let (address, connections) = scripted(b"", false).await;
    let limits = "limits: {http: {upstream_requests: 4, upstream_requests_per_source: 2}}\n";
    let site = Site::new(limits, ALLOW_ALL);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = site.connect(&upstream(address, Speaks::Http1));
        client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
        held.push(client);
    }
    sleep(seconds(1)).await;
    let mut third = site.connect(&upstream(address, Speaks::Http1));
    third.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let (head, body) = third.answer().await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!((body.as_str(), site.refused("limit_source")), ("limit_source", 1));
    let mut other = accepted();
    other.remote = "10.0.0.9".parse().unwrap();
    let mut other = site.connect_as(other, &upstream(address, Speaks::Http1));
    other.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    sleep(seconds(1)).await;
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 3);
}
