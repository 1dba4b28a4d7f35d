//! Decides anew while others are faster: the loop around a unit of work.

use std::future::Future;

use crate::dispatch::Tried;

/// Evaluates a future of `Result<T, Tried>` until it succeeds, fails, or has been stale too often.
macro_rules! retrying {
    ($work:expr) => {{
        let mut retries = $crate::dispatch::Retries::default();
        loop {
            match $crate::retry::attempt($work).await {
                Ok(done) => break Ok(done),
                Err(tried) => {
                    if let Err(error) = retries.again(tried).await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}
pub(crate) use retrying;

/// Says what kind of future an attempt is.
pub(crate) fn attempt<T>(
    work: impl Future<Output = Result<T, Tried>>,
) -> impl Future<Output = Result<T, Tried>> {
    work
}
