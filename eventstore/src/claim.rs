//! Claims: which runner works on what, in the database's time.

use std::time::Duration;

/// A claim just taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Grows with every take-over; appends carry it as their fence.
    pub epoch: u64,
    /// Counted from before the claim was asked for, a holder that keeps to it never outlives it.
    pub expires_in: Duration,
}

/// What is kept under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Position of the append's first event.
    pub position: crate::Position,
    /// Keyed fingerprint of the request body.
    pub fingerprint: String,
    /// The answer to give again; `None` when it showed a one-time secret.
    pub answer: Option<String>,
}

/// Whole microseconds, capped.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The lowest id of version 7 of a moment (microseconds since 1970): ids begin with their time, so
/// the primary key finds old appends.
pub(crate) fn lowest_id_at(micros: i64) -> uuid::Uuid {
    let millis = u64::try_from(micros / 1_000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
