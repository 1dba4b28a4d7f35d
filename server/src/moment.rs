//! Moments as people and clients read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339, of microseconds since 1970.
pub fn rfc3339(micros: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| micros.to_string())
}
