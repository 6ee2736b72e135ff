//! Signals, tasks that have an owner, and an end: drain, then deadline.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Every long-lived task of a process, and the word that ends them. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    lost: Arc<OnceLock<&'static str>>,
}

/// Held by a task without which the process is of no use. When it goes before the word is given, by a
/// return or a panic, the word is given: a process that ended is restarted, one that limps is not.
#[derive(Debug)]
pub struct Essential {
    name: &'static str,
    tasks: Tasks,
}

impl Drop for Essential {
    fn drop(&mut self) {
        if !self.tasks.token.is_cancelled() {
            tracing::error!(
                task = self.name,
                "a task that must not end has ended; shutting down"
            );
            let _ = self.tasks.lost.set(self.name);
            self.tasks.token.cancel();
        }
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The word to listen for inside a task.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// For a task called `name` to hold as long as it runs.
    #[must_use]
    pub fn essential(&self, name: &'static str) -> Essential {
        Essential {
            name,
            tasks: self.clone(),
        }
    }

    /// Waits until an essential task has ended before its time, and names it.
    pub async fn lost(&self) -> &'static str {
        self.token.cancelled().await;
        match self.lost.get() {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Spawns a task that must not end before shutdown, and is dropped at its next await then.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let essential = self.essential(name);
        self.spawn_until_shutdown(async move {
            let _essential = essential;
            task.await;
        });
    }

    /// Spawns a task that ends by itself once [`Tasks::token`] is cancelled.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Spawns a task that is dropped at its next await once the word is given.
    pub fn spawn_until_shutdown<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Gives the word and waits for all tasks, at most `deadline`. Says whether all ended in time.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Waits for SIGTERM or SIGINT and names the one that came.
///
/// # Errors
/// When signal handlers cannot be installed.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_essential_task_that_ends_or_panics_ends_the_process() {
        for panics in [false, true] {
            let tasks = Tasks::new();
            tasks.spawn_essential("other", std::future::pending());
            tasks.spawn_essential("heart", async move {
                if panics {
                    std::panic::panic_any("as a fault of ours would");
                }
            });
            assert_eq!(tasks.lost().await, "heart");
            assert!(tasks.drain(Duration::from_secs(5)).await);
        }
    }

    #[tokio::test]
    async fn an_ordinary_shutdown_loses_nothing() {
        let tasks = Tasks::new();
        tasks.spawn_essential("heart", std::future::pending());
        assert!(tasks.drain(Duration::from_secs(5)).await);
        let lost = tokio::time::timeout(Duration::from_millis(10), tasks.lost()).await;
        assert!(lost.is_err());
    }
}
