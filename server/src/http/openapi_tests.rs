//! That the document, the table and the handlers are one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn document() -> Value {
    super::document().unwrap()
}

/// With `PROXIMITY_WRITE_DOCS=1` the document is written instead of compared.
#[test]
fn the_kept_document_is_the_one_that_the_handlers_make() {
    let path = root().join("openapi.json");
    if std::env::var_os("PROXIMITY_WRITE_DOCS").is_some() {
        std::fs::write(&path, render().unwrap()).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == render().unwrap(),
        "openapi.json differs from the handlers: run `make openapi`"
    );
}

#[test]
fn the_table_and_the_document_name_the_same_calls() {
    let in_table: BTreeSet<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.verb.as_str(), route.path)).collect();
    assert_eq!(in_table.len(), ROUTES.len(), "a call stands twice in the table");
    let mut in_document = BTreeSet::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        for verb in item.as_object().unwrap().keys().filter(|key| key.len() <= 6) {
            in_document.insert(format!("{} {path}", verb.to_uppercase()));
        }
    }
    assert_eq!(in_table, in_document);
}

#[test]
fn every_handler_is_in_the_table_under_its_own_path() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/handlers");
    let mark = regex::Regex::new(
        r#"#\[utoipa::path\(\s*(\w+),\s*path = "([^"]+)"[\s\S]*?\)\]\s*pub async fn (\w+)"#,
    )
    .unwrap();
    let signature = regex::Regex::new(r"pub async fn (\w+)\(\s*_?call: Call\)").unwrap();
    let mut handlers = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let documented: Vec<_> = mark.captures_iter(&text).collect();
        assert_eq!(documented.len(), signature.captures_iter(&text).count(), "{module}");
        for found in documented {
            handlers += 1;
            let name = format!("{module}::{}", &found[3]);
            let routes: Vec<_> = ROUTES
                .iter()
                .filter(|route| route.handler_name.replace(' ', "") == name)
                .map(|route| (route.verb.as_str().to_lowercase(), route.path.to_owned()))
                .collect();
            assert_eq!(routes, [(found[1].to_owned(), found[2].to_owned())], "{name}");
        }
    }
    assert_eq!(handlers, ROUTES.len());
}

#[test]
fn every_field_parameter_and_answer_is_described() {
    let document = document();
    let mut missing = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let variants = schema["oneOf"].as_array().cloned().unwrap_or_default();
        for part in std::iter::once(schema).chain(&variants) {
            for (field, property) in part["properties"].as_object().into_iter().flatten() {
                // An optional reference carries its description one level down; the tag of a
                // variant explains itself by its only value.
                let described = std::iter::once(property)
                    .chain(property["oneOf"].as_array().into_iter().flatten())
                    .any(|part| part["description"].as_str().is_some_and(|text| !text.is_empty()));
                if !described && property["enum"].as_array().is_none_or(|values| values.len() != 1)
                {
                    missing.push(format!("{name}.{field}"));
                }
            }
        }
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            for described in ["summary", "description"] {
                if operation[described].as_str().is_none_or(str::is_empty) {
                    missing.push(format!("{verb} {path}: {described}"));
                }
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["description"].as_str().is_none_or(str::is_empty) {
                    missing.push(format!("{verb} {path}: {}", parameter["name"]));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not described: {missing:#?}");
}

/// That they are answered so is held by every test of the interface.
#[test]
fn the_headers_of_the_contract_stand_where_they_hold() {
    let document = document();
    let takes = |operation: &Value, place: &str, name: &str| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.filter(|one| one["in"] == place && one["name"] == name).count() == 1
    };
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.verb.as_str().to_lowercase()];
        let (is_read, name) = (route.verb.is_safe(), route.name);
        let has_tag = route.answers("ETag");
        for (place, parameter, is_taken) in [
            ("query", "min_position", is_read),
            ("header", "Proximity-Position", is_read),
            ("header", "If-None-Match", is_read && has_tag),
            ("header", "Idempotency-Key", !is_read),
            ("header", "If-Match", route.compares_state()),
        ] {
            assert_eq!(takes(operation, place, parameter), is_taken, "{name}: {parameter}");
        }
        let responses = operation["responses"].as_object().unwrap();
        assert_eq!(responses.contains_key("304"), is_read && has_tag, "{name}");
        assert_eq!(responses.contains_key("412"), !is_read, "{name}");
        for (status, response) in responses {
            let carried = response["headers"].as_object().unwrap();
            assert!(carried.contains_key("X-Request-Id"), "{name}: {status}");
            let is_success = status.as_str() < "400";
            if is_success || status == "429" {
                assert_eq!(carried.contains_key("Proximity-Position"), is_success, "{name}");
                assert_eq!(carried.contains_key("Retry-After"), !is_success, "{name}");
            }
            for (header, entry) in carried {
                let place = entry["$ref"].as_str().unwrap().trim_start_matches('#');
                assert!(document.pointer(place).is_some(), "{name}: {header}");
            }
        }
        for header in route.headers {
            assert!(headers::ANSWERED.iter().any(|(known, ..)| known == header), "{header}");
        }
    }
    let of = |pointer: &str| document.pointer(pointer).is_some();
    assert!(of("/paths/~1api~1apps~1{id}/get/responses/200/headers/ETag"));
    assert!(of("/paths/~1api~1apps~1{id}/get/responses/304/headers/ETag"));
    assert!(of("/paths/~1api~1apps/post/responses/202/headers/Location"));
}

#[test]
fn every_code_of_the_table_exists() {
    for route in ROUTES {
        for code in codes_of(route) {
            assert!(codes::find(code).is_some(), "{}: {code}", route.name);
        }
    }
}
