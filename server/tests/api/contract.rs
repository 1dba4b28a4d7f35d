//! Holds every answer of every test against the OpenAPI document: status, code, headers and shape.

use std::sync::LazyLock;

use proximity_server::http::openapi;
use proximity_server::http::route::Route;
use proximity_server::http::routes::ROUTES;
use serde_json::Value;

use crate::harness::Answer;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&openapi::render().unwrap()).unwrap());

/// The route of a call: a literal segment wins over a parameter, as in the server.
fn route(verb: &str, path: &str) -> Option<&'static Route> {
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let verb = if verb == "HEAD" { "GET" } else { verb };
    let fits = |route: &&Route| {
        let (wanted, given): (Vec<_>, Vec<_>) =
            (route.path.split('/').collect(), path.split('/').collect());
        route.verb.as_str() == verb
            && wanted.len() == given.len()
            && wanted.iter().zip(given).all(|(part, given)| part.starts_with('{') || *part == given)
    };
    ROUTES.iter().filter(fits).min_by_key(|route| route.path.matches('{').count())
}

/// Panics when an answer is not what the document says of its call.
pub fn check(verb: &str, path: &str, answer: &Answer) {
    if let Some(complaint) = complaint(verb, path, answer) {
        panic!("{complaint}");
    }
}

/// What about an answer is not as the document says of its call.
pub fn complaint(verb: &str, path: &str, answer: &Answer) -> Option<String> {
    let route = route(verb, path)?;
    let status = answer.status.as_u16();
    let place = format!("{} answered {status} {}", route.name, answer.text);
    let operation = &DOCUMENT["paths"][route.path][route.verb.as_str().to_lowercase()];
    let told = &operation["responses"][status.to_string()];
    if !told.is_object() {
        return Some(format!("not in the document: {place}"));
    }
    if let Some(header) = wrong_header(route, path, told, answer) {
        return Some(format!("{header} is not as in the document: {place}"));
    }
    if let Some(code) = answer.body["code"].as_str() {
        let is_told = openapi::codes_of(route).contains(&code);
        return (!is_told).then(|| format!("not in the document: {place}"));
    }
    // A form of its own, if the document names it.
    let form = answer.header("content-type").split(';').next().unwrap_or_default();
    if form != "application/json" && told["content"][form].is_object() {
        return None;
    }
    let schema = told["content"]["application/json"]["schema"].as_object()?;
    if verb == "HEAD" {
        return None;
    }
    let mut wrong = Vec::new();
    compare(&Value::Object(schema.clone()), &answer.body, "", &mut wrong);
    (!wrong.is_empty()).then(|| format!("{wrong:#?} in {place}"))
}

/// A header that is carried and not told of, or told of where every such answer has it and not carried.
fn wrong_header(route: &Route, path: &str, told: &Value, answer: &Answer) -> Option<&'static str> {
    let is_now = route.verb.is_safe() && !path.contains("?at=");
    let known = DOCUMENT["components"]["headers"].as_object()?.keys();
    known.map(String::as_str).find(|header| {
        let (is_told, is_there) =
            (told["headers"][*header].is_object(), !answer.header(header).is_empty());
        // What was done already has no place, and only what is read as it is now has a tag for certain.
        let is_certain = match *header {
            "ETag" => is_now,
            "Location" => false,
            _ => true,
        };
        is_there != is_told && (is_there || is_certain)
    })
}

/// What of a value is not as the schema says: fields that it lacks or does not name, wrong kinds.
fn compare(schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return compare(&DOCUMENT["components"]["schemas"][name], value, place, wrong);
    }
    for alternatives in [&schema["oneOf"], &schema["anyOf"]] {
        let Some(alternatives) = alternatives.as_array() else { continue };
        let fits = |one: &Value| {
            let mut wrong = Vec::new();
            compare(one, value, place, &mut wrong);
            wrong.is_empty()
        };
        if !alternatives.iter().any(fits) {
            wrong.push(format!("{place}: none of the alternatives"));
        }
        return;
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Together they name the fields, so none of them can say which are too many.
        for part in parts {
            let mut of_part = Vec::new();
            compare(part, value, place, &mut of_part);
            wrong.extend(of_part.into_iter().filter(|text| !text.ends_with("not named")));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let is_kind = |wanted: &&str| *wanted == kind || (*wanted == "number" && kind == "integer");
    if !kinds.iter().any(is_kind) {
        wrong.push(format!("{place}: {kind} instead of {kinds:?}"));
        return;
    }
    if let Value::Array(items) = value {
        for (number, item) in items.iter().enumerate() {
            compare(&schema["items"], item, &format!("{place}/{number}"), wrong);
        }
    }
    if let (Value::Object(fields), Some(named)) = (value, schema["properties"].as_object()) {
        for required in schema["required"].as_array().into_iter().flatten() {
            if required.as_str().is_some_and(|name| !fields.contains_key(name)) {
                wrong.push(format!("{place}: {required} is missing"));
            }
        }
        for (name, field) in fields {
            match named.get(name) {
                Some(schema) => compare(schema, field, &format!("{place}/{name}"), wrong),
                None if schema["additionalProperties"].is_null() => {
                    wrong.push(format!("{place}/{name}: not named"));
                }
                None => {}
            }
        }
    }
}

#[test]
fn the_check_finds_what_it_is_for() {
    let session = DOCUMENT["components"]["schemas"]["Session"].clone();
    let well = serde_json::json!({
        "id": "a", "created_at": "b", "last_used_at": "c", "expires_at": "d", "source": "e",
        "user_agent": "f", "current": true,
    });
    let found = |change: &dyn Fn(&mut Value)| {
        let (mut value, mut wrong) = (well.clone(), Vec::new());
        change(&mut value);
        compare(&session, &value, "", &mut wrong);
        wrong
    };
    assert_eq!(found(&|_| {}), Vec::<String>::new());
    assert_eq!(found(&|value| value["current"] = 1.into()).len(), 1);
    assert_eq!(found(&|value| value["more"] = 1.into()).len(), 1);
    assert_eq!(found(&|value| drop(value.as_object_mut().unwrap().remove("id"))).len(), 1);
    assert_eq!(route("GET", "/api/apps/x/logs/?a=b").unwrap().name, "Get /api/apps/{id}/logs");
    assert_eq!(route("GET", "/api/catalog/stats").unwrap().path, "/api/catalog/stats");
}
