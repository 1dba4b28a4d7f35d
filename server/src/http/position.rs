//! Read-your-writes: the place in the log that a write reached, and reads that wait for it.

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use proximity_eventstore::Position;

use super::headers;
use super::problem::Problem;
use crate::app::App;

/// Carries `<incarnation>.<position>`.
pub const HEADER: HeaderName = HeaderName::from_static("proximity-position");

/// What a read asks to have seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Absent when only a number was given.
    pub incarnation: Option<String>,
    pub position: Position,
}

impl std::str::FromStr for Wanted {
    type Err = Problem;

    fn from_str(value: &str) -> Result<Self, Problem> {
        let unknown =
            || Problem::new("position.unknown", format!("{value:?} is not a position of this log"));
        let (incarnation, number) = match value.rsplit_once('.') {
            Some((incarnation, number)) => (Some(incarnation.to_owned()), number),
            None => (None, value),
        };
        Ok(Self { incarnation, position: number.parse().map_err(|_| unknown())? })
    }
}

/// The position that the header or the query asks for.
pub fn wanted(request: &HttpRequest) -> Result<Option<Wanted>, Problem> {
    let from_query = url::form_urlencoded::parse(request.query_string().as_bytes())
        .find(|(key, _)| key == "min_position")
        .map(|(_, value)| value.into_owned());
    let wanted = match from_query {
        None => headers::text(request.headers(), &HEADER)?,
        given => given,
    };
    wanted.map(|value| value.parse()).transpose()
}

/// Waits until the views have seen it, two seconds at most; beyond the head is refused at once.
pub async fn reach(app: &App, wanted: Option<Wanted>) -> Result<(), Problem> {
    match wanted {
        None => Ok(()),
        Some(wanted) => app.wait_for(&wanted).await,
    }
}

/// The header's value: the write's position, or where the views stand for a read.
pub fn header(app: &App, reached: Option<Position>) -> Option<HeaderValue> {
    let position = reached.unwrap_or_else(|| app.viewed());
    HeaderValue::from_str(&format!("{}.{position}", app.incarnation())).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_position_is_a_number_with_or_without_its_incarnation() {
        let full: Wanted = "abc.12".parse().unwrap();
        assert_eq!(full, Wanted { incarnation: Some("abc".into()), position: 12 });
        let bare: Wanted = "12".parse().unwrap();
        assert_eq!(bare, Wanted { incarnation: None, position: 12 });
        for wrong in ["", "x", "-1", "abc.", "1e3", "99999999999999999999"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }
}
