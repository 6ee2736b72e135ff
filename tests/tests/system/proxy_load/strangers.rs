//! Strangers who mean to fill memory, or the log.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use signet_tests::process::resident;
use signet_tests::proxy::Proxy;
use signet_tests::wait::{SOON, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::crowd::{count, crowd, dial};
use super::traffic::{Callers, Door, Upstream, said};
use super::{STRICT, World, X, sound};

/// What may wait.
const WAITING: usize = 4 << 20;
/// Of a hello that is never whole.
const HELLO: usize = 16_000;
/// How much more may be resident: what may wait, and three times as much for the connections themselves and what the
/// allocator keeps of those that are gone. Together they say four times as much.
const MORE_MIB: f64 = 16.0;
const CROWD: usize = 4_000;

/// A hello but for its last bytes.
fn nearly_whole() -> Vec<u8> {
    let of = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let record = [&[22, 3, 1][..], &of(HELLO + 100)].concat();
    let message = [&[1, 0][..], &of(HELLO + 96)].concat();
    [record, message, vec![0; HELLO - 9]].concat()
}

async fn crowded(proxy: &Proxy) -> f64 {
    let labels = [("direction", "inbound"), ("reason", "limit_waiting")];
    proxy.scrape().await.value("signet_proxy_refusals_total", &labels)
}

fn logged(proxy: &Proxy, message: &str) -> Vec<Value> {
    let log = proxy.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|line: &Value| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_hellos_that_lack_their_end_have_so_much_memory_together_and_others_are_served() {
    let all = crowd(CROWD);
    let (world, upstream) = (World::start().await, Upstream::start().await);
    let limits = json!({"handshake": "300s", "waiting_bytes": WAITING, "connections_per_source": all});
    let mut proxy = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .set("limits", limits)
        .inbound(&upstream.address(), json!({"protocol": "http"}))
        .start()
        .await;
    let x = world.svid(X.0, X.1).await;
    let door = Door::of(&proxy.inbound(0), Some(&x));
    let warm = Callers::start("warm", 4, &door);
    warm.wait("the first requests", "200", 200).await;
    warm.stop().await;

    let before = resident(proxy.process.pid());
    let (to, words) = (proxy.inbound(0).parse::<SocketAddr>().unwrap(), nearly_whole());
    let mut held = Vec::new();
    for _ in 0..all {
        let mut stream = dial(Ipv4Addr::new(127, 0, 9, 1), to).await;
        // Others may have made it go by the time it has said everything.
        let _ = stream.write_all(&words).await;
        held.push(stream);
    }
    let room = WAITING / HELLO.next_multiple_of(1024);
    let most = count(all - room);
    until("those for whom there is no room to go", SOON, async || {
        crowded(&proxy).await >= most
    })
    .await;
    let callers = Callers::start("x", 2, &door);
    callers.wait("requests beside the crowd", "200", 100).await;
    assert_eq!(said(&callers.stop().await), ["200".to_owned()].into());
    let more = resident(proxy.process.pid()) - before;
    assert!(more < MORE_MIB, "{more} MiB");
    assert!(crowded(&proxy).await <= most, "who fits into it is let wait");
    let message = "connection made room for what others have waiting to be read";
    let said = logged(&proxy, message).len();
    assert!((1..=4).contains(&said), "{said}: the first, and one a minute");
    sound(&mut proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_a_port_for_redirected_traffic_is_counted_each_time_and_logged_once() {
    const VISITS: usize = 300;
    let world = World::start().await;
    let mut proxy = world
        .backend_proxy()
        .set(
            "capture",
            json!({"inbound": "127.0.0.1:0", "outbound": "127.0.0.1:0"}),
        )
        .start()
        .await;
    let page = proxy.page("/listeners").await;
    for listener in page["listeners"].as_array().unwrap() {
        let address = listener["address"].as_str().unwrap();
        for _ in 0..VISITS {
            // It may hear of it as soon as it is connected.
            let heard = match TcpStream::connect(address).await {
                Ok(mut stream) => stream.read_u8().await.map(drop),
                Err(error) => Err(error),
            };
            assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        // Where connections are tracked the kernel says that the port itself was meant; else it says nothing.
        let direction = listener["direction"].as_str().unwrap();
        let refused = async || {
            let scrape = proxy.scrape().await;
            let of = |reason| {
                let labels = [("direction", direction), ("reason", reason)];
                scrape.value("signet_proxy_refusals_total", &labels)
            };
            of("capture_direct") + of("capture_unknown")
        };
        until("each to be counted", SOON, async || {
            refused().await >= count(VISITS)
        })
        .await;
        assert_eq!(refused().await, count(VISITS));
    }
    let message = "connection to a port that takes redirected traffic refused";
    let said = logged(&proxy, message);
    // Of one reason or of two, and once more for each minute that this took.
    assert!((1..=8).contains(&said.len()), "{said:?}");
    assert_eq!(said[0]["left_out"], 0);
    sound(&mut proxy);
}
