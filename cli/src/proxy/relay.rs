//! `signet proxy relay`: bytes between standard input and output and the admin socket of the proxy in the same pod.
//! It is what `signet` runs there to ask it.

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::link::LinkError;
use super::place::Place;
use crate::args::RelayArgs;
use crate::fault::{Answer, Fault};

pub(super) async fn run(args: &RelayArgs) -> Result<Answer, Fault> {
    let socket = UnixStream::connect(&args.admin_socket).await;
    let socket = socket.map_err(|source| LinkError::Connect {
        place: Place::Socket(args.admin_socket.clone()),
        source,
    })?;
    let (mut from, mut to) = socket.into_split();
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let asked = async {
        tokio::io::copy(&mut stdin, &mut to).await?;
        to.shutdown().await
    };
    let answered = async {
        tokio::io::copy(&mut from, &mut stdout).await?;
        stdout.flush().await
    };
    // Whoever asks ends it: by then every answer is out.
    tokio::select! {
        done = answered => done?,
        done = asked => done?,
    }
    Ok(Answer::Yes)
}
