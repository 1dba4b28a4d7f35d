//! The query string: decoded before anything is looked for in it, and refused in words of our own.

use std::str::FromStr as _;

use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::problem::Problem;
use super::wording::Wrong;

/// The code of a value that is none of those that are possible.
const OUT_OF_RANGE: &str = "query.out_of_range";

/// A parameter by its name as the client means it, however that is encoded; one that stands there
/// twice says two things, and neither is taken.
pub fn single(query: &str, name: &str) -> Result<Option<String>, Problem> {
    let mut found = None;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if key != name {
            continue;
        }
        if found.is_some() {
            let detail = format!("{name} is there twice");
            return Err(Problem::field(format!("?{name}"), "value.invalid", detail));
        }
        found = Some(value.into_owned());
    }
    Ok(found)
}

/// A parameter that is `true` or `false`, and `false` when it is not there.
pub fn flag(query: &str, name: &str) -> Result<bool, Problem> {
    let Some(value) = single(query, name)? else { return Ok(false) };
    bool::from_str(&value).map_err(|_| {
        let detail = format!("{name} is true or false");
        Problem::field(format!("?{name}"), "value.invalid", detail)
    })
}

/// The query without a parameter, the rest letter by letter as it was.
pub fn without(query: &str, name: &str) -> String {
    let is_it = |part: &str| {
        url::form_urlencoded::parse(part.as_bytes()).next().is_some_and(|(key, _)| key == name)
    };
    query.split('&').filter(|part| !is_it(part)).collect::<Vec<_>>().join("&")
}

/// Refuses control characters: no value that anything here is found by has one, and a store that
/// cannot hold them in a text (PostgreSQL and NUL) would take itself for broken.
pub fn legible(query: &str) -> Result<(), Problem> {
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if has_controls(&key) {
            let detail = "the name of a parameter has control characters";
            return Err(Problem::new("query.malformed", detail));
        }
        if has_controls(&value) {
            let detail = format!("{key} has control characters");
            return Err(Problem::new("query.malformed", detail));
        }
    }
    Ok(())
}

/// Whether a text has control characters.
pub fn has_controls(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The query as `T`: those of its parameters that `T` has; a number that is too large is a 422, and
/// whatever else is malformed a 400.
pub fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let parser = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(parser).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, &error.into_inner().to_string())
    })
}

/// What an error says; it names a parameter itself where there is no path to it.
fn refusal(path: &str, reason: &str) -> Problem {
    let wrong = Wrong::of(reason);
    let detail = wrong.sentence(path);
    match wrong {
        Wrong::OutOfRange => Problem::field(format!("?{path}"), OUT_OF_RANGE, detail),
        Wrong::Missing(_) | Wrong::Twice(_) | Wrong::Kind(_) => {
            Problem::new("query.malformed", detail)
        }
    }
}

/// A parameter that is one of the words of `T`; an empty one is none.
pub fn word<T: DeserializeOwned>(
    name: &str,
    value: Option<String>,
) -> Result<Option<String>, Problem> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    match T::deserialize(StrDeserializer::<ValueError>::new(&value)) {
        Ok(_) => Ok(Some(value)),
        Err(error) => {
            let detail = Wrong::of(&error.to_string()).sentence(name);
            Err(Problem::field(format!("?{name}"), OUT_OF_RANGE, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        page: Option<i64>,
        #[expect(dead_code)]
        whole: Option<bool>,
        #[expect(dead_code)]
        from: String,
    }

    #[test]
    fn a_parameter_is_found_however_its_name_is_encoded() {
        for query in ["dry_run=true", "dry%5Frun=true", "a=1&%64ry_run=%74rue", "x&dry_run=true"] {
            assert!(flag(query, "dry_run").unwrap(), "{query}");
        }
        for query in ["", "dry_run=false", "a=dry_run", "dry_runs=true", "dry%255Frun=true"] {
            assert!(!flag(query, "dry_run").unwrap(), "{query}");
        }
        assert_eq!(without("a=%41&dry%5Frun=true&b", "dry_run"), "a=%41&b");
        assert_eq!(without("dry_run=true", "dry_run"), "");
    }

    #[test]
    fn a_flag_that_says_neither_yes_nor_no_or_both_is_refused_by_name() {
        for query in [
            "dry_run",
            "dry_run=",
            "dry_run=1",
            "dry_run=yes",
            "dry_run=TRUE",
            "dry_run=true+",
            "dry_run=false&dry_run=true",
            "dry_run=true&dry%5Frun=true",
        ] {
            let problem = flag(query, "dry_run").unwrap_err();
            assert_eq!(problem.status.as_u16(), 422, "{query}");
            assert_eq!(problem.errors[0].pointer, "?dry_run", "{query}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_in_words_of_ours() {
        for (query, status, detail) in [
            ("from=x&page=18446744073709551615", 422, "page is out of range"),
            ("from=x&page=-99999999999999999999", 422, "page is out of range"),
            ("from=x&page=y", 400, "page is a whole number"),
            ("from=x&page=", 400, "page is a whole number"),
            ("from=x&page=1&page=1", 400, "page is there twice"),
            ("from=x&whole=yes", 400, "whole is true or false"),
            ("page=1", 400, "from is missing"),
        ] {
            let problem = read::<Sample>(query).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.detail.as_str()), (status, detail));
        }
        assert_eq!(read::<Sample>("from=x&page=7&unknown=1").unwrap().page, Some(7));
    }
}
