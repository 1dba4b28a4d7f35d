//! What tasks share: the watched head, and work that may block.

use tokio::sync::watch;

use crate::append::Position;
use crate::error::Error;

/// Moves the watched head forward, never back.
pub(crate) fn advance(head: &watch::Sender<Position>, position: Position) {
    head.send_if_modified(|seen| {
        let moved = *seen < position;
        *seen = position.max(*seen);
        moved
    });
}

/// Runs `work` on a thread where it may block; dropping the future does not stop it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Closed),
        },
    }
}
