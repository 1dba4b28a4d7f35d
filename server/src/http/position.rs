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
    /// The parameter or the header that it was given by.
    name: &'static str,
    /// Absent when only a number was given.
    pub incarnation: Option<String>,
    pub position: Position,
}

impl Wanted {
    /// What a parameter or a header of this name says.
    pub fn read(name: &'static str, value: &str) -> Result<Self, Problem> {
        let (incarnation, number) = match value.rsplit_once('.') {
            Some((incarnation, number)) => (Some(incarnation.to_owned()), number),
            None => (None, value),
        };
        match number.parse() {
            Ok(position) => Ok(Self { name, incarnation, position }),
            Err(_) => Err(unknown(name, &format!("{value:?} is not a position of this log"))),
        }
    }

    /// Why it is refused, and which of several positions it is.
    pub fn unknown(&self, why: &str) -> Problem {
        unknown(self.name, why)
    }
}

fn unknown(name: &str, why: &str) -> Problem {
    Problem::new("position.unknown", format!("{name}: {why}"))
}

/// What a query may ask for.
#[derive(Deserialize)]
struct Asked {
    min_position: Option<String>,
}

/// The position that the header or the query asks for.
pub fn wanted(request: &HttpRequest) -> Result<Option<Wanted>, Problem> {
    let Asked { min_position } = query::read(request.query_string())?;
    let (name, wanted) = match min_position {
        None => ("Proximity-Position", headers::text(request.headers(), &HEADER)?),
        given => ("min_position", given),
    };
    wanted.map(|value| Wanted::read(name, &value)).transpose()
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
        let read = |text: &str| Wanted::read("at", text);
        let full = Wanted { name: "at", incarnation: Some("abc".into()), position: 12 };
        assert_eq!(read("abc.12").unwrap(), full);
        assert_eq!(read("12").unwrap(), Wanted { incarnation: None, ..full });
        for wrong in ["", "x", "-1", "abc.", "1e3", "99999999999999999999"] {
            let problem = read(wrong).unwrap_err();
            assert_eq!(problem.code, "position.unknown");
            assert!(problem.detail.starts_with("at: "), "{}", problem.detail);
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
