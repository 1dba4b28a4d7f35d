//! How moments are written and how a search term is matched.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds since 1970 as RFC 3339 in UTC, e.g. `2026-01-31T12:00:00.25Z`.
pub(crate) fn moment(micros: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        // Out of the range of years 0 to 9999: shown as it is rather than as another moment.
        .unwrap_or_else(|| micros.to_string())
}

/// The pattern that finds this text anywhere, for `like … escape '\'`.
pub(crate) fn contains(term: &str) -> String {
    let mut pattern = String::with_capacity(term.len() + 2);
    pattern.push('%');
    for c in term.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// The inverse of [`moment`].
pub(crate) fn micros(moment: &str) -> Option<i64> {
    let moment = OffsetDateTime::parse(moment, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok()
}
