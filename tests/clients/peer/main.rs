//! A local process for the agent to attest, with the manners of an attacker where a test asks for them.
//! Says one JSON object per line.
//!
//! | command | what it does |
//! |---|---|
//! | `idle` | nothing, for ever |
//! | `connect SOCKET…` | connects to each, says so, and does nothing more |
//! | `fetch SOCKET NAME GO` | waits for the file GO, asks for a secret over SDS, says whose it is or the status |
//! | `hold SOCKET NAME GO` | as `fetch`, keeps the stream, passes the connection on to an `idle` process, and says so; says how the stream ends |
//! | `judge SOCKET` | binds it, takes a handle on whoever connects as the agent would, and says what came of it |
//! | `lend` | connects to the sockets that stdin, a socket itself, names, and hands the connections over |
//! | `probe DIR` | speaks HTTP to every socket in DIR, and in directories a guest might look for; says what answered |
//! | `recycle DIR` | inside a process namespace of its own: gives a peer's number to another process, after a handle was taken and before |
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program of a test: it fails aloud, and stdout is how it is heard"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use signet_agent::attest::peer::{PeerError, kernel_names_processes};
use signet_agent::attest::unix::Unix;
use signet_agent::attest::{AttestError, Peer, UnixRule};
use signet_certs::SvidChain;
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_tests::sds;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Endpoint;

/// Tries to get a number again: others may take it in between.
const TRIES: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["lend"] {
        return signet_tests::guest::lend();
    }
    signet_tests::init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match words[..] {
            ["idle"] => std::future::pending().await,
            ["connect", ref sockets @ ..] => connect(sockets).await,
            ["fetch", socket, name, go] => {
                wait_for(Path::new(go)).await;
                say(&fetch(Path::new(socket), name).await);
            }
            ["hold", socket, name, go] => {
                wait_for(Path::new(go)).await;
                hold(Path::new(socket), name).await;
            }
            ["judge", socket] => say(&judge(Path::new(socket)).await),
            ["probe", dir] => say(&probe(Path::new(dir))),
            ["recycle", dir] => say(&recycle(Path::new(dir)).await),
            _ => say(&json!({"error": "no such command"})),
        }
    });
}

fn say(line: &Value) {
    println!("{line}");
}

async fn wait_for(file: &Path) {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn connect(sockets: &[&str]) {
    let mut connections = Vec::new();
    for socket in sockets {
        connections.push(UnixStream::connect(socket).await.unwrap());
    }
    say(&json!({"connected": true}));
    std::future::pending::<()>().await;
}

fn refused(status: &tonic::Status) -> Value {
    json!({"code": format!("{:?}", status.code()), "message": status.message()})
}

/// Whose SVID a secret holds.
fn shown(secret: &signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::Secret) -> Value {
    let chain = SvidChain::from_pem(sds::pair(secret).chain.as_bytes()).unwrap();
    json!({"spiffe_id": chain.id().as_str()})
}

async fn fetch(socket: &Path, name: &str) -> Value {
    match sds::fetch(socket, name).await {
        Ok(secret) => shown(&secret),
        Err(status) => refused(&status),
    }
}

fn idle(stdin: Stdio) -> Child {
    let own = std::env::current_exe().unwrap();
    Command::new(own)
        .arg("idle")
        .stdin(stdin)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[expect(
    clippy::zombie_processes,
    reason = "the process it passes the connection on to is to outlive it"
)]
async fn hold(socket: &Path, name: &str) {
    use prost::Message;
    let connection = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let passed_on = connection.try_clone().unwrap();
    connection.set_nonblocking(true).unwrap();
    let mut connection = Some(UnixStream::from_std(connection).unwrap());
    let connector = tower::service_fn(move |_| {
        let connection = connection.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { connection.map(TokioIo::new).map_err(std::io::Error::from) }
    });
    let channel = Endpoint::from_static("http://agent")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.send(sds::ask(&[name], "", "")).await.unwrap();
    let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
    let opened = SecretDiscoveryServiceClient::new(channel)
        .stream_secrets(queue)
        .await;
    let mut responses = match opened {
        Ok(responses) => responses.into_inner(),
        Err(status) => return say(&refused(&status)),
    };
    match responses.message().await {
        Ok(Some(answer)) => {
            let first = answer.resources.first().unwrap();
            say(&shown(&Message::decode(first.value.as_slice()).unwrap()));
        }
        Ok(None) => say(&json!({"code": "Ok", "message": "no answer"})),
        Err(status) => return say(&refused(&status)),
    }
    let holder = idle(Stdio::from(std::os::fd::OwnedFd::from(passed_on)));
    say(&json!({"passed_to": holder.id()}));
    loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return say(&json!({"code": "Ok", "message": "end of stream"})),
            Err(status) => return say(&refused(&status)),
        }
    }
}

/// What is in a directory, and what its sockets, and the admin socket around it, answer to an operator.
fn probe(dir: &Path) -> Value {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut there: Vec<PathBuf> = entries.collect();
    there.sort();
    let names: Vec<_> = there
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    there.push(dir.join("../admin/admin.sock"));
    there.push(dir.join("admin.sock"));
    let answered: Vec<_> = there.iter().filter(|path| answers(path)).collect();
    let uid = signet_runtime::socket::own_uid();
    json!({"uid": uid, "names": names, "answered": answered})
}

/// Whether an admin page is served there.
fn answers(path: &Path) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(path) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: signet\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

/// What the kernel says of the first to connect, as seen from here.
async fn judge(socket: &Path) -> Value {
    let listener = UnixListener::bind(socket).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    json!({
        "number": stream.peer_cred().unwrap().pid(),
        "refused": Peer::of(&stream, Path::new("/proc")).err().as_ref().map(PeerError::outcome),
    })
}

/// Takes a handle on a peer, ends it, and makes another process under its number.
async fn recycle(dir: &Path) -> Value {
    let socket = dir.join("recycle.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let own = std::env::current_exe().unwrap();
    let mut client = Command::new(own)
        .arg("connect")
        .args([&socket, &socket])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (waiting, _) = listener.accept().await.unwrap();
    let peer = Peer::of(&stream, Path::new("/proc")).unwrap();
    let attestor = Unix::new(PathBuf::from("/proc"), vec![rule()]).unwrap();
    let workload = attestor.attest(&peer).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    let mut other = match again(client.id()) {
        Ok(other) => other,
        Err(reason) => return json!({"skip": reason}),
    };
    tokio::time::timeout(Duration::from_secs(10), peer.ended())
        .await
        .unwrap();
    let answer = json!({
        "number": client.id(),
        "recycled": other.id(),
        "other_lives": other.try_wait().unwrap().is_none(),
        "alive": peer.is_alive(),
        "attest": attestor.attest(&peer).err().as_ref().map(AttestError::reason),
        "recheck": attestor.recheck(&peer, &workload).err().as_ref().map(AttestError::reason),
        "kernel_names_processes": kernel_names_processes(),
        "taken_late": Peer::of(&waiting, Path::new("/proc")).err().as_ref().map(PeerError::outcome),
    });
    other.kill().unwrap();
    other.wait().unwrap();
    answer
}

/// Every process of this user.
fn rule() -> UnixRule {
    UnixRule {
        id: "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
        uid: Some(signet_runtime::socket::own_uid()),
        gid: None,
        executable: None,
        hint: None,
        labels: std::collections::BTreeMap::default(),
    }
}

/// A process of this number, which was just given back.
fn again(number: u32) -> Result<Child, String> {
    for _ in 0..TRIES {
        let last = Path::new("/proc/sys/kernel/ns_last_pid");
        std::fs::write(last, (number - 1).to_string()).map_err(|e| format!("{}: {e}", last.display()))?;
        let mut child = idle(Stdio::null());
        if child.id() == number {
            return Ok(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    Err(format!(
        "no process got the number {number} again in {TRIES} tries"
    ))
}
