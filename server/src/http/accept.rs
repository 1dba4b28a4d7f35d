//! Whether the client can take what we answer with.

use actix_web::HttpRequest;
use actix_web::http::header;

use super::export::FORMS;
use super::headers;
use super::problem::Problem;

/// Passes when there is no `Accept` header, or one of its ranges allows JSON (or text on `/metrics`).
pub fn check(request: &HttpRequest) -> Result<(), Problem> {
    let ours: &[&str] = match request.path().trim_end_matches('/') {
        "/metrics" => &["text/plain", "application/openmetrics-text"],
        "/api/events/stream" => &["text/event-stream"],
        "/api/audit/events" => FORMS,
        "/api/docs" => &["text/html"],
        "/api/docs/page.js" => &["text/javascript"],
        "/api/docs/page.css" => &["text/css"],
        path if path.starts_with("/problems/") => &["text/markdown"],
        _ => &["application/json", "application/problem+json"],
    };
    let Some(accepted) = headers::list(request.headers(), &header::ACCEPT)? else { return Ok(()) };
    if best(&accepted, ours).is_some() {
        Ok(())
    } else {
        Err(Problem::new("accept.unsatisfiable", format!("this call answers as {}", ours[0])))
    }
}

/// Which of our media types is wanted most by an `Accept` header (RFC 9110, 12.5.1): by weight, then by
/// whose range comes first in it, then as we name them; `None` when it takes none of them.
pub fn best(accepted: &str, ours: &[&str]) -> Option<usize> {
    let ranges = accepted.split(',').map(range).filter(|(range, _)| !range.is_empty());
    let mut ranges: Vec<(String, f32)> = ranges.collect();
    if ranges.is_empty() {
        // An empty header takes whatever comes.
        ranges.push(("*/*".to_owned(), 1.0));
    }
    let mut best: Option<(usize, f32, usize)> = None;
    for (index, kind) in ours.iter().enumerate() {
        // Of several ranges that fit, the most precise one counts, whatever the others say.
        let fits = ranges
            .iter()
            .enumerate()
            .filter_map(|(place, (range, weight))| Some((precision(range, kind)?, *weight, place)));
        let Some((_, weight, place)) = fits.min_by_key(|(precision, ..)| *precision) else {
            continue;
        };
        let is_better = best.is_none_or(|(_, known, first)| {
            weight > known || (weight.total_cmp(&known).is_eq() && place < first)
        });
        if weight > 0.0 && is_better {
            best = Some((index, weight, place));
        }
    }
    best.map(|(index, ..)| index)
}

/// A range in lower case and its weight: 1 when there is none, or none that can be read.
fn range(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| {
        let (name, weight) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| weight.trim().parse().ok())?
    });
    (kind, weight.unwrap_or(1.0))
}

/// How closely a range names a media type, 0 by its name; `None` when it does not.
fn precision(range: &str, kind: &str) -> Option<u8> {
    match range.strip_suffix('*') {
        None if range == kind => Some(0),
        None => None,
        Some("*/") => Some(2),
        Some(family) => (family.ends_with('/') && kind.starts_with(family)).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use actix_web::test::TestRequest;

    use super::*;

    fn answers(path: &str, accept: &str) -> bool {
        let request =
            TestRequest::get().uri(path).insert_header(("accept", accept)).to_http_request();
        check(&request).is_ok()
    }

    #[test]
    fn json_is_answered_to_whoever_can_take_it() {
        for accept in [
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "text/html,application/*;q=0.1",
        ] {
            assert!(answers("/api/apps", accept), "{accept}");
        }
        for accept in ["text/html", "application/xml", "application/json;q=0", "image/*"] {
            assert!(!answers("/api/apps", accept), "{accept}");
        }
        assert!(answers("/metrics", "text/plain;version=0.0.4;q=0.5"));
        assert!(!answers("/metrics", "application/json"));
        assert!(answers("/problems/not_found", "text/*") && answers("/api/docs", "TEXT/HTML"));
        assert!(!answers("/api/audit/events", "text/*;q=0") && answers("/api/audit/events", ""));
    }

    #[test]
    fn of_several_forms_the_one_that_is_wanted_most_is_chosen() {
        for (accept, form) in [
            ("*/*", Some(0)),
            ("", Some(0)),
            ("text/csv;q=0.5,", Some(2)),
            ("text/csv", Some(2)),
            ("TEXT/CSV", Some(2)),
            ("text/*", Some(2)),
            ("text/csv, application/json", Some(2)),
            ("application/json, text/csv", Some(0)),
            ("application/json;q=0.5, text/csv", Some(2)),
            ("text/csv; Q=0.1, application/*", Some(0)),
            ("text/csv;q=0, application/x-ndjson", Some(1)),
            ("text/csv;q=0.0, text/*", None),
            ("application/json;q=0, */*", Some(1)),
            ("text/html, image/*;q=0.3", None),
        ] {
            assert_eq!(best(accept, FORMS), form, "{accept}");
        }
    }
}
