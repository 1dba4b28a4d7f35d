//! The parameters of a query that a call takes: those that its declaration in the OpenAPI document has.
//!
//! Ignored, one that is misspelt would do for real what was only to be tried, or find more than was asked
//! for.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::dry;
use super::openapi;
use super::problem::{Problem, chain};
use super::route::Route;

/// The code of a parameter that the call does not have.
const UNKNOWN: &str = "query.unknown";

/// By path and verb; `None` when the document cannot be made.
static DECLARED: LazyLock<Option<HashMap<String, Vec<String>>>> = LazyLock::new(|| {
    let document = openapi::document().inspect_err(|error| {
        tracing::error!(error = chain(error), "the OpenAPI document could not be made");
    });
    Some(read(&document.ok()?))
});

/// Refuses a parameter whose name is none of those that the call has; a call that the document does not
/// know has none.
pub fn check(route: &Route, query: &str) -> Result<(), Problem> {
    if query.is_empty() {
        return Ok(());
    }
    let declared = DECLARED.as_ref().ok_or_else(Problem::internal)?;
    let known = declared.get(&key(route.path, route.verb.as_str()));
    let known = known.map(Vec::as_slice).unwrap_or_default();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        // A call that cannot be tried refuses these itself, and says so.
        let is_judged = !route.verb.is_safe() && dry::PARAMETERS.contains(&name.as_ref());
        if !is_judged && !known.iter().any(|known| *known == name) {
            let there_are = match known {
                [] => "this call has none".to_owned(),
                known => format!("this call has {}", known.join(", ")),
            };
            let detail = format!("there is no parameter {name:?}; {there_are}");
            return Err(Problem::field(format!("?{name}"), UNKNOWN, detail));
        }
    }
    Ok(())
}

fn read(document: &Value) -> HashMap<String, Vec<String>> {
    let mut declared = HashMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (verb, operation) in item.as_object().into_iter().flatten() {
            let names = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
            declared.insert(key(path, verb), names.collect());
        }
    }
    declared
}

fn key(path: &str, verb: &str) -> String {
    format!("{} {path}", verb.to_uppercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http::routes::ROUTES;

    fn route(name: &str) -> &'static Route {
        ROUTES.iter().find(|route| route.name == name).unwrap()
    }

    #[test]
    fn every_call_refuses_a_parameter_that_its_declaration_does_not_have() {
        for route in ROUTES {
            for query in
                ["zz=1", "zz", "%7Az=1", "min_positions=3", "Page=1", "=1", "a&dry-run=true"]
            {
                let problem = check(route, query).unwrap_err();
                assert_eq!((problem.status.as_u16(), problem.code), (422, UNKNOWN), "{query}");
                assert!(problem.errors[0].pointer.starts_with('?'), "{}: {query}", route.name);
            }
            for nothing in ["", "&", "&&"] {
                check(route, nothing).unwrap();
            }
            assert_eq!(
                check(route, "min_position=3").is_ok(),
                route.verb.is_safe(),
                "{}",
                route.name
            );
        }
    }

    #[test]
    fn what_a_call_has_is_taken_in_any_spelling_and_named_to_whoever_misses_it() {
        for (name, query) in [
            ("Get /api/apps", "page=1&per_page=2&status=running&search=x&min_position=3"),
            ("Get /api/apps/{id}", "at=3"),
            ("Get /api/apps/{id}/diff", "from=1&t%6F=3"),
            ("Get /api/apps/{id}/logs", "tail=5&limit=5"),
            ("Get /api/audit/events", "type=lease&format=csv&from=x&to=y&limit=3&until=9"),
            ("Post /api/apps", "dry_run=true&plan=x"),
            // Refused later, in words of their own.
            ("Post /api/apps/{id}/backups", "dry_run=true&plan=x"),
        ] {
            check(route(name), query).unwrap();
        }
        let detail = |name, query| check(route(name), query).unwrap_err().detail.clone();
        assert_eq!(
            detail("Post /api/apps", "dryrun=true"),
            "there is no parameter \"dryrun\"; this call has dry_run, plan"
        );
        assert_eq!(
            detail("Post /api/catalog/reload", "force=1"),
            "there is no parameter \"force\"; this call has none"
        );
    }
}
