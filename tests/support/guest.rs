//! A process of a pod whose connections a test uses: the process makes them, so they are its own to the
//! kernel and to the agent, and hands them over. It lives until the test ends it, and so do they.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::Secret;
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::wire::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::wire::{JwtsvidRequest, JwtsvidResponse, X509svidRequest, X509svidResponse};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::local::Local;
use crate::process::Process;
use crate::workload::{next, secure};
use crate::{sds, wait};

/// What is said beside a connection; anything else is the number of an error.
const CONNECTED: u8 = 0;

/// A process that connects as told.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    caller: Caller,
}

/// What asks the process for connections; outlives it.
#[derive(Clone, Debug)]
struct Caller {
    line: Arc<Mutex<Blocking>>,
    socket: PathBuf,
}

impl Guest {
    /// Starts a process that will connect to `socket`; its words go to `logs`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(logs: &Path, socket: &Path) -> Self {
        let (ours, theirs) = Blocking::pair().expect("a pair of sockets");
        let mut command = Command::new(Local::program());
        let input = Stdio::from(OwnedFd::from(theirs));
        let process = Process::spawn_reading("guest", logs, command.arg("lend"), input);
        let caller = Caller {
            line: Arc::new(Mutex::new(ours)),
            socket: socket.to_owned(),
        };
        Self { process, caller }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends the process.
    pub fn end(&mut self) {
        self.process.kill();
    }

    /// Its connections, made when they are needed and again when they are lost.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let caller = self.caller.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let caller = caller.clone();
            async move { caller.connect().await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
    }

    /// The Workload API, over a connection of its own.
    #[must_use]
    pub fn api(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(self.channel())
    }

    /// A stream of its SVIDs, over a connection of its own.
    ///
    /// # Errors
    /// The agent's status.
    pub async fn x509_stream(&self) -> Result<Streaming<X509svidResponse>, Status> {
        let opened = self.api().fetch_x509svid(secure(X509svidRequest {})).await?;
        Ok(opened.into_inner())
    }

    /// The first message of such a stream.
    ///
    /// # Errors
    /// The agent's status.
    pub async fn x509(&self) -> Result<X509svidResponse, Status> {
        next(&mut self.x509_stream().await?).await
    }

    /// A token.
    ///
    /// # Errors
    /// The agent's status.
    pub async fn jwt(&self, audience: &str, spiffe_id: &str) -> Result<JwtsvidResponse, Status> {
        let request = JwtsvidRequest {
            audience: vec![audience.into()],
            spiffe_id: spiffe_id.into(),
        };
        let answer = self.api().fetch_jwtsvid(secure(request)).await?;
        Ok(answer.into_inner())
    }

    /// A stream of secrets, over a connection of its own.
    ///
    /// # Errors
    /// The agent's status.
    pub async fn sds(&self, names: &[&str]) -> Result<sds::Stream, Status> {
        let client = SecretDiscoveryServiceClient::new(self.channel());
        sds::Stream::open_with(client, names).await
    }

    /// A secret, once.
    ///
    /// # Errors
    /// The agent's status.
    pub async fn secret(&self, name: &str) -> Result<Secret, Status> {
        let answer = self.sds(&[name]).await?.next().await?;
        Ok(sds::first(&answer))
    }
}

impl Caller {
    async fn connect(self) -> io::Result<UnixStream> {
        let made = tokio::task::spawn_blocking(move || {
            let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            borrow(&line, &self.socket)
        });
        let connection = wait::within("a connection of a guest", wait::SOON, made).await;
        let connection = connection.map_err(io::Error::other)??;
        connection.set_nonblocking(true)?;
        UnixStream::from_std(connection)
    }
}

/// Has the process at the other end of `line` connect to `socket`.
fn borrow(mut line: &Blocking, socket: &Path) -> io::Result<Blocking> {
    use io::Write as _;
    writeln!(line, "{}", socket.display())?;
    let mut said = [0];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut said)];
    let heard = recvmsg(line, slices, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let lent = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (heard.bytes, said, lent) {
        (0, ..) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, [CONNECTED], Some(descriptor)) => Ok(Blocking::from(descriptor)),
        (_, [error], _) => Err(io::Error::from_raw_os_error(error.into())),
    }
}

/// The other half, in the guest's process: connects to each path that stdin names, hands the connection
/// over, and ends with stdin.
///
/// # Panics
/// When stdin is no socket.
pub fn lend() {
    let stdin = io::stdin().as_fd().try_clone_to_owned().expect("stdin");
    let mut line = BufReader::new(Blocking::from(stdin));
    let mut path = String::new();
    while line.read_line(&mut path).is_ok_and(|bytes| bytes > 0) {
        let connected = Blocking::connect(path.trim_end());
        // Whoever asked may be gone; then stdin ends next.
        let _ = hand_over(line.get_ref(), &connected);
        path.clear();
    }
}

fn hand_over(line: &Blocking, connected: &io::Result<Blocking>) -> io::Result<()> {
    let error = connected.as_ref().err().and_then(io::Error::raw_os_error);
    let said = error.map_or(CONNECTED, |number| u8::try_from(number).unwrap_or(u8::MAX));
    let lent: Vec<_> = connected.iter().map(|connection| connection.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !lent.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(&lent));
    }
    sendmsg(line, &[IoSlice::new(&[said])], &mut rights, SendFlags::empty())?;
    Ok(())
}
