//! Waiting for conditions, with a deadline and a word for what was waited for.

use std::time::Duration;

use tokio::time::Instant;

/// Long enough for anything that is to happen at once on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);
/// Time between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Looks until `look` has something.
///
/// # Panics
/// When `deadline` passes first, with `what`.
pub async fn until_some<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < end,
            "waited {} s in vain for: {what}",
            deadline.as_secs()
        );
        tokio::time::sleep(STEP).await;
    }
}

/// Looks until `look` says yes.
///
/// # Panics
/// As [`until_some`].
pub async fn until(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> bool) {
    until_some(what, deadline, async || look().await.then_some(())).await;
}

/// Awaits a future that has to end.
///
/// # Panics
/// When `deadline` passes first, with `what`.
pub async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(deadline, future)
        .await
        .unwrap_or_else(|_| panic!("took longer than {} s: {what}", deadline.as_secs()))
}
