//! An endless answer of an admin socket.

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use serde::de::DeserializeOwned;
use signet_runtime::UnixTime;

use super::{Admin, AdminError, MAX_ANSWER_BYTES};

/// A stream of JSON values, one per line.
pub struct Lines<T> {
    admin: Admin,
    body: Incoming,
    held: Vec<u8>,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T> Lines<T> {
    pub(super) fn new(admin: Admin, body: Incoming) -> Self {
        Self {
            admin,
            body,
            held: Vec::new(),
            kind: std::marker::PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines({})", self.admin.socket.display())
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next value with the time it was read; nothing when the daemon ended the stream.
    ///
    /// # Errors
    /// An [`AdminError`]; the stream is over then.
    pub async fn next(
        &mut self,
        clock: &dyn signet_runtime::Clock,
    ) -> Result<Option<(T, UnixTime)>, AdminError> {
        let page = "/v1/svids/watch";
        loop {
            if let Some(end) = self.held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let value = serde_json::from_slice(&line).map_err(|e| self.admin.garbled(page, &e))?;
                return Ok(Some((value, clock.now())));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => {
                    let (socket, reason) = (self.admin.socket.clone(), e.to_string());
                    return Err(AdminError::Closed { socket, reason });
                }
                Some(Ok(frame)) => self
                    .held
                    .extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            }
            if self.held.len() > MAX_ANSWER_BYTES {
                return Err(self.admin.garbled(page, &"a line is longer than 4 MiB"));
            }
        }
    }
}
