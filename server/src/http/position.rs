//! Read-your-writes: the place in the log that a write reached, and reads that wait for it.

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use proximity_eventstore::Position;
use serde::Deserialize;

use super::headers;
use super::problem::Problem;
use super::query;
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

/// What a query may ask for.
#[derive(Deserialize)]
struct Asked {
    min_position: Option<String>,
}

/// The position that the header or the query asks for.
pub fn wanted(request: &HttpRequest) -> Result<Option<Wanted>, Problem> {
    let Asked { min_position } = query::read(request.query_string())?;
    let wanted = match min_position {
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

    #[test]
    fn of_two_positions_in_a_query_neither_is_taken() {
        let of = |query: &str| {
            let request = actix_web::test::TestRequest::get().uri(&format!("/x?{query}"));
            wanted(&request.to_http_request())
        };
        assert_eq!(of("a=1&a=2&min%5Fposition=7").unwrap().unwrap().position, 7);
        assert_eq!(of("a=1").unwrap(), None);
        let problem = of("min_position=7&min_position=7").unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (400, "query.malformed"));
        assert_eq!(problem.detail, "min_position is there twice");
    }
}
