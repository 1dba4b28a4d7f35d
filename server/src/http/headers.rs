//! Headers that a request is judged by: read as a whole, or the request is refused. What was meant as a
//! condition must not count as absent because of how it is written.

use actix_web::http::header::{HeaderMap, HeaderName};

use super::problem::Problem;

/// A header that is there once at most.
pub fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let mut lines = readable(headers, name)?.into_iter();
    let first = lines.next();
    match lines.next() {
        None => Ok(first.map(str::to_owned)),
        Some(_) => Err(malformed(name, "is there more than once")),
    }
}

/// A header that is a list, all of its lines as one (RFC 9110, 5.3).
pub fn list(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let lines = readable(headers, name)?;
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

fn readable<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Vec<&'h str>, Problem> {
    let lines = headers.get_all(name).map(|value| value.to_str());
    lines.collect::<Result<_, _>>().map_err(|_| malformed(name, "has other than ASCII characters"))
}

fn malformed(name: &HeaderName, what: &str) -> Problem {
    Problem::new("request.malformed", format!("the header {name} {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use actix_web::http::header::{HeaderValue, IF_MATCH};

    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_name_and_never_absent() {
        for line in ["\"é\"".as_bytes(), b"\xe9", b"\"\xff\""] {
            for lines in [&[line][..], &[b"\"a\"", line]] {
                for read in [text, list] {
                    let problem = read(&headers(lines), &IF_MATCH).unwrap_err();
                    assert_eq!(problem.code, "request.malformed");
                    assert!(problem.detail.contains("if-match"), "{}", problem.detail);
                }
            }
        }
        assert_eq!(text(&headers(&[]), &IF_MATCH).unwrap(), None);
        assert_eq!(list(&headers(&[]), &IF_MATCH).unwrap(), None);
    }

    #[test]
    fn the_lines_of_a_list_are_one_list_and_of_anything_else_there_is_one() {
        let two = headers(&[b"\"a\"", b"\"b\", \"c\""]);
        assert_eq!(list(&two, &IF_MATCH).unwrap().unwrap(), "\"a\", \"b\", \"c\"");
        assert!(text(&two, &IF_MATCH).unwrap_err().detail.contains("more than once"));
        assert_eq!(text(&headers(&[b"x"]), &IF_MATCH).unwrap().unwrap(), "x");
    }
}
