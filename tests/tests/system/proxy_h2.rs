//! What the proxy does with bytes that break the rules of HTTP/2 (RFC 9113), frame by frame over mutual TLS: a table of
//! claims, each with the bytes that a client sends after its preface, and what has to come of it. Where the library
//! beneath answers otherwise than the RFC says, the row tells so, and why that is safe.

mod frames;
mod messages;
mod streams;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use signet_tests::app::App;
use signet_tests::client::Presented;
use signet_tests::proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::proxy_tls::{STRICT, World, connect};
use wire::{Frame, PREFACE, get, post, settings};

/// The good request after each row's bytes.
const PROBE: u32 = 1001;
/// Nothing takes longer, or it hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Codes of errors (RFC 9113 §7).
pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL: u32 = 1;
pub(super) const FLOW_CONTROL: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE: u32 = 6;
pub(super) const COMPRESSION: u32 = 9;
pub(super) const CALM: u32 = 11;

/// Why an abuse is not told to who abuses.
pub(super) const CUT_OFF: &str =
    "it is cut off before the library sees it, so nobody is left who could say why";

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comes {
    /// The connection ends with this code.
    Connection(u32),
    /// The connection ends without a word.
    Cut,
    /// The stream is reset with this code, and the connection goes on.
    Stream(u32, u32),
    /// This stream is answered with a status that says no, and the connection goes on.
    Refused(u32),
    /// Nothing: these streams are answered with 200, and the connection goes on.
    Served(&'static [u32]),
}

/// A row of a table.
pub(super) struct Row {
    /// What the RFC demands, in its words where they fit.
    pub(super) claim: &'static str,
    /// Where.
    pub(super) section: &'static str,
    /// What the client sends after its preface and an empty SETTINGS.
    pub(super) bytes: Vec<u8>,
    /// What the RFC says comes of it.
    pub(super) rfc: Comes,
    /// What comes of it here, where that is something else, and why it is safe.
    pub(super) here: Option<(Comes, &'static str)>,
}

/// A row without a difference.
pub(super) fn row(section: &'static str, claim: &'static str, bytes: Vec<u8>, rfc: Comes) -> Row {
    Row {
        claim,
        section,
        bytes,
        rfc,
        here: None,
    }
}

impl Row {
    /// Here something else comes of it.
    pub(super) fn but(mut self, here: Comes, why: &'static str) -> Self {
        assert!(why.len() > 20, "{}: say why", self.claim);
        self.here = Some((here, why));
        self
    }
}

/// What was seen of a connection, up to the answer to the probe or the connection's end.
#[derive(Debug, Default)]
struct Seen {
    /// The code of the last GOAWAY.
    goaway: Option<u32>,
    closed: bool,
    resets: Vec<(u32, u32)>,
    served: BTreeSet<u32>,
    refused: BTreeSet<u32>,
}

impl Seen {
    fn shows(&self, comes: &Comes) -> bool {
        let goes_on = self.served.contains(&PROBE) && self.goaway.is_none_or(|code| code == NO_ERROR);
        match comes {
            Comes::Connection(code) => self.goaway == Some(*code) && self.closed,
            Comes::Cut => self.goaway.is_none() && self.closed && !self.served.contains(&PROBE),
            Comes::Stream(stream, code) => {
                goes_on && self.resets == [(*stream, *code)] && !self.served.contains(stream)
            }
            Comes::Refused(stream) => goes_on && self.refused.contains(stream),
            Comes::Served(streams) => {
                goes_on && self.resets.is_empty() && streams.iter().all(|stream| self.served.contains(stream))
            }
        }
    }

    fn note(&mut self, frame: &Frame) {
        let code = |payload: &[u8]| payload.first_chunk().map(|code| u32::from_be_bytes(*code));
        match frame.kind {
            // `:status: 200` stands first, by its index.
            0x1 if frame.payload.first() == Some(&0x88) => drop(self.served.insert(frame.stream)),
            0x1 => drop(self.refused.insert(frame.stream)),
            0x3 => self
                .resets
                .extend(code(&frame.payload).map(|code| (frame.stream, code))),
            0x7 => self.goaway = frame.payload.get(4..).and_then(code),
            _ => {}
        }
    }
}

/// An application behind a proxy, on a STRICT port.
struct Stage {
    proxy: Proxy,
    client: Presented,
    app: App,
    _world: World,
}

impl Stage {
    async fn start() -> Self {
        let (world, app) = (World::start().await, App::start().await);
        let proxy = world
            .backend_proxy()
            .policy("strict.yaml", STRICT)
            .inbound(&app.address, json!({"protocol": "http"}))
            .start()
            .await;
        let client = world.svid("web", "frontend").await;
        Self {
            proxy,
            client,
            app,
            _world: world,
        }
    }

    async fn open(&self) -> TlsStream<TcpStream> {
        connect(&self.proxy.inbound(0), Some(&self.client), &["h2"])
            .await
            .unwrap()
    }

    /// Sends `bytes`, then the probe, and looks until that comes which is expected, or the connection ends.
    async fn try_out(&self, bytes: &[u8], expected: &Comes, seen: &mut Seen) {
        let (mut read, mut write) = tokio::io::split(self.open().await);
        let sent = async {
            // The proxy may have closed by then: what it said before counts.
            let _ = write.write_all(bytes).await;
            let _ = write.write_all(&get(PROBE, "/probe")).await;
            let _ = write.flush().await;
        };
        let heard = async {
            while !seen.shows(expected) {
                let Some(frame) = Frame::read(&mut read).await else {
                    seen.closed = true;
                    break;
                };
                seen.note(&frame);
            }
        };
        tokio::join!(heard, sent);
    }

    /// Every row at once is told, not only the first that fails.
    async fn try_all(&mut self, rows: Vec<Row>) {
        let mut wrong = Vec::new();
        for row in rows {
            let expected = row.here.as_ref().map_or(&row.rfc, |(here, _)| here);
            let bytes = [PREFACE, &settings(&[]), &row.bytes].concat();
            let same = row.here.as_ref().is_some_and(|(here, _)| *here == row.rfc);
            assert!(!same, "{}: no difference", row.claim);
            let mut seen = Seen::default();
            let _ = tokio::time::timeout(PATIENCE, self.try_out(&bytes, expected, &mut seen)).await;
            if !seen.shows(expected) {
                wrong.push(format!(
                    "{} {}: expected {expected:?}, {seen:?}",
                    row.section, row.claim
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(self.proxy.process.ended(), None, "{}", self.proxy.process.tail());
        assert!(!self.proxy.process.stderr().contains("panicked"));
        assert_eq!(self.app.heard("x-never"), 0, "what was malformed went on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_end_the_connection_or_their_stream_and_nothing_else() {
    Stage::start().await.try_all(frames::rows()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_out_of_their_order_end_the_connection_or_their_stream_and_nothing_else() {
    Stage::start().await.try_all(streams::rows()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_malformed_are_not_forwarded() {
    Stage::start().await.try_all(messages::rows()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_preface_ends_the_connection() {
    let stage = Stage::start().await;
    let other = PREFACE.to_ascii_lowercase();
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".as_slice(),
        &other,
        b"GET / HTTP/1.1\r\nhost: b\r\n\r\n",
    ] {
        let mut stream = stage.open().await;
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "{} hangs", String::from_utf8_lossy(bytes));
        let mut frames = said.as_slice();
        while let Some(frame) = Frame::read(&mut frames).await {
            assert_ne!(frame.kind, 0x1, "{} is answered", String::from_utf8_lossy(bytes));
        }
    }
}

/// RFC 9113 §3.4 has SETTINGS follow the preface. The library does not insist on it; until there are some, the values
/// count with which every connection begins, which is what an empty SETTINGS says, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_out_its_settings_has_those_that_every_connection_begins_with() {
    let stage = Stage::start().await;
    let mut seen = Seen::default();
    let (bytes, expected) = ([PREFACE, &get(1, "/")].concat(), Comes::Served(&[1]));
    let _ = tokio::time::timeout(PATIENCE, stage.try_out(&bytes, &expected, &mut seen)).await;
    assert!(seen.shows(&expected), "{seen:?}");
}

/// Each has trailers, so that two header blocks come with each reset, and is on its way when it is reset.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_end_the_connection_though_each_has_trailers() {
    let stage = Stage::start().await;
    let (mut read, mut write) = tokio::io::split(stage.open().await);
    // With no window for answers none of them ends.
    let begin = [PREFACE, &settings(&[(0x4, 0)])].concat();
    write.write_all(&begin).await.unwrap();
    let trailers = wire::block(&[("x-sum", "1")]);
    let mut answered = 0;
    for number in 0..1_000 {
        let stream = 2 * number + 1;
        let request = [
            post(stream, &[]),
            wire::frame(0x1, wire::WHOLE, stream, &trailers),
        ];
        let sent = write.write_all(&request.concat()).await;
        let mut seen = Seen::default();
        while sent.is_ok()
            && !seen.served.contains(&stream)
            && let Some(frame) = Frame::read(&mut read).await
        {
            seen.note(&frame);
        }
        if !seen.served.contains(&stream) {
            break;
        }
        answered += 1;
        let reset = wire::frame(0x3, 0, stream, &[0, 0, 0, 8]);
        let _ = write.write_all(&reset).await;
    }
    assert!((200..=202).contains(&answered), "{answered}");
    let abuse = |record: &serde_json::Value| record["reason"] == "limit_abuse";
    let record = stage.proxy.record("the record of the abuse", abuse).await;
    assert!(
        record["detail"]
            .as_str()
            .unwrap()
            .starts_with("http2_rapid_reset"),
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_goaway_of_the_client_what_is_under_way_is_answered() {
    let stage = Stage::start().await;
    let goaway = wire::frame(0x7, 0, 0, &[0; 8]);
    let bytes = [PREFACE, &settings(&[]), &get(1, "/"), &goaway].concat();
    let mut stream = stage.open().await;
    stream.write_all(&bytes).await.unwrap();
    let mut seen = Seen::default();
    while let Some(frame) = Frame::read(&mut stream).await {
        seen.note(&frame);
        if seen.served.contains(&1) {
            return;
        }
    }
    panic!("{seen:?}");
}
