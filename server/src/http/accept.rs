//! Whether the client can take what we answer with.

use actix_web::HttpRequest;
use actix_web::http::header;

use super::headers;
use super::problem::Problem;

/// Passes when there is no `Accept` header, or one of its ranges allows JSON (or text on `/metrics`).
pub fn check(request: &HttpRequest) -> Result<(), Problem> {
    let ours: &[&str] = match request.path().trim_end_matches('/') {
        "/metrics" => &["text/*", "text/plain", "application/openmetrics-text", "application/*"],
        "/api/events/stream" => &["text/event-stream", "text/*"],
        "/api/audit/events" => {
            &["application/json", "application/x-ndjson", "text/csv", "application/*", "text/*"]
        }
        "/api/docs" => &["text/html", "text/*"],
        "/api/docs/page.js" => &["text/javascript", "text/*"],
        "/api/docs/page.css" => &["text/css", "text/*"],
        path if path.starts_with("/problems/") => &["text/*", "text/markdown"],
        _ => &["application/json", "application/problem+json", "application/*"],
    };
    let Some(accepted) = headers::list(request.headers(), &header::ACCEPT)? else { return Ok(()) };
    let allows = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        // A weight of zero means: not this one.
        let refused = parts.any(|part| {
            part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0))
        });
        !refused && (kind == "*/*" || kind.is_empty() || ours.contains(&kind.as_str()))
    };
    if accepted.split(',').any(allows) {
        Ok(())
    } else {
        Err(Problem::new("accept.unsatisfiable", format!("this call answers as {}", ours[0])))
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
    }
}
