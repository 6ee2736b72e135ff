//! An application that says everything back, over TCP.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::wait::{SOON, within};

/// A running echo server; ends when dropped.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens, `host:port`.
    pub address: String,
    task: JoinHandle<()>,
}

impl Echo {
    /// One that says `banner` first.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn greeting(banner: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, banner));
            }
        });
        Self { address, task }
    }

    /// One that waits for its client.
    pub async fn start() -> Self {
        Self::greeting("").await
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, banner: &'static str) {
    let (mut from, mut to) = stream.split();
    if to.write_all(banner.as_bytes()).await.is_ok() {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

/// Says `text` and hears it back.
///
/// # Errors
/// What the stream said instead.
pub async fn says<S>(stream: &mut S, text: &str) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let exchange = async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        assert_eq!(heard, text.as_bytes());
        Ok(())
    };
    within("an echo", SOON, exchange).await
}

/// Waits for the end of a stream that says nothing more; answers how it ended.
///
/// # Errors
/// The system's word, where it did not end in the ordinary way.
pub async fn ended<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<()> {
    let mut rest = Vec::new();
    within("the end of a connection", SOON, stream.read_to_end(&mut rest)).await?;
    assert_eq!(String::from_utf8_lossy(&rest), "", "bytes before the end");
    Ok(())
}
