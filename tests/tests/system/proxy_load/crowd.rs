//! Thousands that connect and say nothing, or next to nothing.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use signet_tests::peers::skip;
use signet_tests::process::resident;
use signet_tests::proxy::Proxy;
use signet_tests::wait::{SOON, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::malformed::hello;
use super::traffic::{Callers, Door, Upstream, said};
use super::{STRICT, World, X, open, sound};

/// Idle and slow ones, where descriptors suffice.
const CROWD: usize = 12_000;
/// One of so many is slow, the others say nothing.
const SLOW: usize = 6;
/// The addresses they come from.
const SOURCES: u8 = 8;
/// How long a handshake may take, at least. All have to arrive before the first is ended, and others to be served beside
/// them: on a machine where that takes long it may take longer, by how long it takes a crowd of the same size to arrive.
const HANDSHAKE: Duration = Duration::from_secs(12);
/// So many times as long.
const ARRIVALS: u32 = 4;
/// How much more may stay resident after two crowds than there was before them: an eighth of what one needs, and less
/// than a leak of 0.3 KiB for each of them. (What is resident among them says less: it varies by as much with the order
/// in which the threads allocate.)
const KEPT_MIB: f64 = 6.0;
/// What they needed goes back within this: it is looked for every few seconds, and given back in a few rounds.
const RETURNED: Duration = Duration::from_secs(60);

/// Raises the limit of descriptors and says how many connections there may be: each takes one here and one in the
/// proxy, and other tests run beside.
pub(super) fn crowd(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let most = limit.maximum.map_or(u64::MAX, |most| most / 5 * 3);
    let most = usize::try_from(most).unwrap();
    if most < wanted {
        skip(&format!(
            "no crowd of {wanted}, but one of {most}: the hard limit of descriptors (ulimit -Hn) allows no more"
        ));
    }
    wanted.min(most)
}

pub(super) async fn dial(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Says a byte of a ClientHello each second, or nothing; answers how long it was let.
async fn hold(mut stream: TcpStream, began: Instant, words: Vec<u8>) -> (Duration, ErrorKind) {
    let mut words = words.into_iter();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut nothing = [0];
    loop {
        tokio::select! {
            read = stream.read(&mut nothing) => {
                let kind = read.map_or_else(|error| error.kind(), |_| ErrorKind::UnexpectedEof);
                return (began.elapsed(), kind);
            }
            _ = tick.tick(), if words.len() > 0 => {
                if let Some(word) = words.next()
                    && let Err(error) = stream.write_all(&[word]).await
                {
                    return (began.elapsed(), error.kind());
                }
            }
        }
    }
}

/// Descriptors of a process, if we may know.
fn descriptors(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// A proxy that was used before, so that what the first requests take for good is no leak.
struct Stage {
    proxy: Proxy,
    door: Door,
    crowd: usize,
    handshake: Duration,
    _upstream: Upstream,
    _world: World,
}

impl Stage {
    async fn start(handshake: Duration) -> Self {
        let crowd = crowd(CROWD);
        let (world, upstream) = (World::start().await, Upstream::start().await);
        let proxy = world
            .backend_proxy()
            .policy("strict.yaml", STRICT)
            .set(
                "limits",
                json!({
                    "handshake": format!("{}s", handshake.as_secs()),
                    "connections_per_source": crowd.div_ceil(usize::from(SOURCES)),
                }),
            )
            .inbound(&upstream.address(), json!({"protocol": "http"}))
            .start()
            .await;
        let x = world.svid(X.0, X.1).await;
        let door = Door::of(&proxy.inbound(0), Some(&x));
        let callers = Callers::start("warm", 4, &door);
        callers.wait("the first requests", "200", 200).await;
        callers.stop().await;
        let stage = Self {
            proxy,
            door,
            crowd,
            handshake,
            _upstream: upstream,
            _world: world,
        };
        stage.quiet().await;
        stage
    }

    /// Waits until no connection is open.
    async fn quiet(&self) {
        until("quiet", SOON, async || open(&self.proxy).await == 0.0).await;
    }

    /// All of them arrive.
    async fn gather(&self) -> JoinSet<(Duration, ErrorKind)> {
        let to: SocketAddr = self.proxy.inbound(0).parse().unwrap();
        let (hello, mut held) = (hello(), JoinSet::new());
        for number in 0..self.crowd {
            let last = u8::try_from(number % usize::from(SOURCES)).unwrap() + 1;
            let stream = dial(Ipv4Addr::new(127, 0, 8, last), to).await;
            let slow = (number / usize::from(SOURCES)) % SLOW == 0;
            let words = if slow { hello.clone() } else { Vec::new() };
            held.spawn(hold(stream, Instant::now(), words));
        }
        let all = count(self.crowd);
        until("all to be there", SOON, async || open(&self.proxy).await >= all).await;
        held
    }

    /// All of them come, others are served beside them, and all are ended in time.
    async fn round(&self) {
        let began = Instant::now();
        let mut held = self.gather().await;
        let callers = Callers::start("x", 2, &self.door);
        callers.wait("requests beside the crowd", "200", 100).await;
        let served = began.elapsed();
        assert!(held.try_join_next().is_none(), "one had left after {served:?}");
        let mut ended = 0;
        while let Some(one) = held.join_next().await {
            let (held, kind) = one.unwrap();
            assert_eq!(kind, ErrorKind::ConnectionReset);
            // Its time begins with the accept, which may be before the client hears of it.
            let early = held + Duration::from_secs(1) < self.handshake;
            // On a busy machine later, too.
            let late = held > self.handshake * 2;
            assert!(!early && !late, "{held:?}");
            ended += 1;
        }
        assert_eq!(ended, self.crowd);
        assert_eq!(said(&callers.stop().await), ["200".to_owned()].into());
        self.quiet().await;
    }

    async fn stalled(&self) -> f64 {
        let labels = [("direction", "inbound"), ("reason", "tls_stalled")];
        let scrape = self.proxy.scrape().await;
        scrape.value("signet_proxy_refusals_total", &labels)
    }
}

pub(super) fn count(all: usize) -> f64 {
    f64::from(u32::try_from(all).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_idle_or_slow_before_their_handshake_end_at_its_deadline_and_leak_neither_memory_nor_descriptors()
 {
    // As long as it takes them to come, on this machine and with what else it has to do.
    let trial = Stage::start(HANDSHAKE * 10).await;
    let began = Instant::now();
    drop(trial.gather().await);
    let handshake = HANDSHAKE.max(began.elapsed() * ARRIVALS);
    drop(trial);
    let mut stage = Stage::start(handshake).await;
    let pid = stage.proxy.process.pid();
    let (memory, files) = (resident(pid), descriptors(pid));
    stage.round().await;
    stage.round().await;
    assert_eq!(stage.stalled().await, 2.0 * count(stage.crowd));
    until("memory to return", RETURNED, async || {
        resident(pid) < memory + KEPT_MIB
    })
    .await;
    if let Some(files) = files {
        // The page of metrics and the upstream have connections of their own.
        until("descriptors to return", SOON, async || {
            descriptors(pid).is_some_and(|now| now <= files + 8)
        })
        .await;
    }
    sound(&mut stage.proxy);
}
