//! The headers of the contract in the document: what each call takes, and what its answers carry.

use serde_json::{Map, Value, json};

use super::PROBLEM_JSON;
use crate::http::route::Route;

/// Every header of an answer that the document tells of, and what it says.
pub const ANSWERED: &[(&str, &str, &str)] = &[
    ("ETag", "string", "The state of what is answered, for `If-Match` and `If-None-Match`."),
    ("Location", "string", "Where the operation that was accepted, or what was made, can be read."),
    (
        "Proximity-Position",
        "string",
        "How far in the log the answer has seen, or where what was written stands: a read that is \
         sent it as `min_position` has seen that much.",
    ),
    ("Retry-After", "integer", "Seconds after which the same request may be sent again."),
    ("WWW-Authenticate", "string", "`Bearer`: how a request says who sends it."),
    ("X-Request-Id", "string", "Under which the server's log and the audit trail tell more."),
];

/// The entries that the answers refer to.
pub fn components() -> Value {
    let entry = |(name, kind, description): &(&str, &str, &str)| {
        let header = json!({ "description": description, "schema": { "type": kind } });
        ((*name).to_owned(), header)
    };
    ANSWERED.iter().map(entry).collect::<Map<_, _>>().into()
}

/// Parameters that a call takes because of what its route is.
pub fn parameters(route: &Route) -> Vec<Value> {
    let text = |place: &str, name: &str, description: &str| {
        json!({
            "name": name, "in": place, "required": false, "schema": { "type": "string" },
            "description": description,
        })
    };
    let mut parameters = Vec::new();
    if route.verb.is_safe() {
        let description = "The `Proximity-Position` of an earlier answer: this one has seen that \
            much, or is given after two seconds with what there is.";
        parameters.push(text("query", "min_position", description));
        let description = "The same as `min_position`, which wins when both are sent.";
        parameters.push(text("header", "Proximity-Position", description));
        if route.answers("ETag") {
            let description =
                "The `ETag` of an answer that the client has kept: 304 while it holds.";
            parameters.push(text("header", "If-None-Match", description));
        }
    } else {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
            "description": "Makes this the one effect of the key: the same request again gets \
                the first answer again, for a day at least.",
        }));
        if route.compares_state() {
            let description = "The `ETag` of what is changed, as it was read: when it has changed \
                since, the answer is 412 and nothing is done.";
            parameters.push(text("header", "If-Match", description));
        }
    }
    parameters
}

/// Says of each answer which headers it carries; all answers have to be there by now.
pub fn complete(responses: &mut Map<String, Value>, route: &Route) {
    if route.verb.is_safe() && route.answers("ETag") {
        let unchanged = json!({ "description": "What the client has kept still holds" });
        responses.insert("304".to_owned(), unchanged);
    }
    for (status, response) in responses {
        let is_problem = response["content"][PROBLEM_JSON].is_object();
        let is_carried = |header: &str| match header {
            "X-Request-Id" => true,
            "Proximity-Position" => !is_problem,
            "Retry-After" => is_problem && matches!(status.as_str(), "429" | "503"),
            "WWW-Authenticate" => status == "401",
            "ETag" => matches!(status.as_str(), "200" | "201" | "304") && route.answers(header),
            "Location" => matches!(status.as_str(), "201" | "202") && route.answers(header),
            _ => false,
        };
        let refer = |(name, ..): &(&'static str, &str, &str)| {
            let entry = json!({ "$ref": format!("#/components/headers/{name}") });
            ((*name).to_owned(), entry)
        };
        let carried = ANSWERED.iter().filter(|(name, ..)| is_carried(name)).map(refer);
        response["headers"] = carried.collect::<Map<_, _>>().into();
    }
}
