//! The admin sockets of CA and agent.

use std::path::{Path, PathBuf};

use ::http::Method;
use serde_json::Value;

use crate::http;

/// One admin socket.
#[derive(Clone, Debug)]
pub struct Admin(PathBuf);

impl Admin {
    /// The socket at `path`; nothing is dialled yet.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.0
    }

    /// `GET path` as JSON.
    ///
    /// # Errors
    /// A sentence, the server's own where it gave one.
    pub async fn try_get(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::GET, path, String::new()).await
    }

    /// As [`Admin::try_get`].
    ///
    /// # Panics
    /// When it fails.
    pub async fn get(&self, path: &str) -> Value {
        self.try_get(path)
            .await
            .unwrap_or_else(|e| panic!("GET {path} at {}: {e}", self.0.display()))
    }

    /// `POST path` with JSON.
    ///
    /// # Errors
    /// As [`Admin::try_get`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.ask(Method::POST, path, body.to_string()).await
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Value, String> {
        let answer = http::unix(&self.0, method, path, body).await?;
        let value: Value = serde_json::from_str(&answer.body)
            .map_err(|e| format!("{} {:?}: {e}", answer.status, answer.body))?;
        match value.get("error").and_then(Value::as_str) {
            Some(error) if !answer.status.is_success() => Err(error.to_owned()),
            _ if !answer.status.is_success() => Err(format!("{} {value}", answer.status)),
            _ => Ok(value),
        }
    }
}
