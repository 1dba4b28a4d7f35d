//! Bodies that lack a field, of each call that takes one: how they are refused is in the document.

use proximity_server::demo::generated_password;
use serde_json::{Map, Value, json};

use super::cast::{Cast, Who};
use super::cells::Cell;
use super::table::{May, Row, Trial, rows};
use crate::contract;
use crate::harness::Kind;

/// A body with all that the call needs; none of a call that takes none.
fn full(row: &Row) -> Option<Map<String, Value>> {
    let body = match row.name {
        // The row's own lacks everything, so that nobody is refused for a wrong password.
        "POST /api/auth/login" => json!({ "username": "ann", "password": generated_password() }),
        _ => row.body.clone()?,
    };
    body.as_object().cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_body_lacks_is_refused_as_the_document_says() {
    let cast = Cast::gather(Kind::Sqlite).await;
    let (mut calls, mut refused, mut wrong) = (0, 0, Vec::new());
    for mut row in rows() {
        let Some(full) = full(&row) else { continue };
        let who = if row.may == May::Admin { Who::Admin } else { Who::Owner };
        if row.trial != Trial::Dry {
            row.trial = Trial::Real;
        }
        let lacking = full.keys().map(|name| {
            let mut part = full.clone();
            part.remove(name);
            part
        });
        for part in lacking.chain([Map::new()]) {
            row.body = Some(Value::Object(part));
            let (method, path, headers, body) = Cell { row: &row, who, place: None }.call(&cast);
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (server, verb) = (&cast.world.server, method.to_string());
            let body = body.map(|body| body.to_string().into_bytes());
            let answer = server.send(&server.url, method, &path, &headers, body.as_deref()).await;
            calls += 1;
            refused += usize::from(answer.status == 422);
            wrong.extend(contract::complaint(&verb, &path, &answer));
        }
    }
    println!("figure: bodies that lack a field: {calls}, of which {refused} were refused for it");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(refused > 20, "{refused} of {calls}");
    cast.world.stop().await;
}
