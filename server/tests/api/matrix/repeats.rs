//! Who is given an answer again that is kept under an idempotency key: whoever the call is open to now. An
//! answer is planted under each call's key, as if it had been open before.

use proximity_commands::answers::Answer as Kept;
use proximity_commands::once::OnceKey;
use proximity_commands::{Actor, CredentialUsed, Identity};
use proximity_domain::user::Role;
use proximity_domain::{SessionId, UserId};
use serde_json::Value;
use uuid::Uuid;

use super::cast::{Cast, State, Who};
use super::cells::{self, Cell, Expected};
use super::table::{May, Row, Thing, Trial, rows};
use crate::harness::{Answer, on_both};

/// The body of what is planted.
const FIRST: &str = r#"{"first":"what was answered first"}"#;

/// Callers whose keys are tried.
const CALLERS: [Who; 5] = [Who::Owner, Who::Demoted, Who::DemotedProgram, Who::Reader, Who::Admin];

/// Whether the first answer may be given again; `None` of what no first call can have been about.
fn may_have_it(cell: &Cell<'_>) -> Option<bool> {
    let thing = cell.place.map(|(place, state)| (cell.row.places[place].1, state));
    match (cell.expected(), thing) {
        (_, Some((_, State::Never))) => None,
        // A session or a token never was another user's, and the key is that user's.
        (_, Some((Thing::Session | Thing::Token, state))) if state != State::Own => None,
        // A schedule is never changed to be for another application.
        (_, Some((Thing::Application, _))) if cell.row.name.starts_with("PUT ") => None,
        (Expected::Refused(..), _) => Some(false),
        (_, Some((Thing::User | Thing::Host, _))) => None,
        (Expected::Allowed, _) => Some(true),
        // What is gone is no secret to whom it belonged.
        (_, Some((_, State::OwnGone))) => Some(true),
        (_, Some((_, State::OthersGone))) => Some(cell.who == Who::Admin),
        _ => Some(false),
    }
}

async fn sent(cast: &Cast, cell: &Cell<'_>, key: Option<&str>) -> Answer {
    let (method, path, mut headers, body) = cell.call(cast);
    headers.extend(key.map(|key| ("idempotency-key", key.to_owned())));
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (server, body) = (&cast.world.server, body.map(|body| body.to_string().into_bytes()));
    server.send(&server.url, method, &path, &headers, body.as_deref()).await
}

/// The call's caller, by the login that it is made with.
async fn caller(cast: &Cast, who: Who) -> Actor {
    let bearer = format!("Bearer {}", cast.bearer(who).unwrap());
    let server = &cast.world.server;
    let headers = [("authorization", bearer.as_str())];
    let me = server.send(&server.url, reqwest::Method::GET, "/api/auth/user", &headers, None).await;
    let credential = CredentialUsed::Session(SessionId(Uuid::new_v4()));
    let id = UserId(me.body["id"].as_i64().unwrap());
    Actor::new(Identity::User { id, role: Role::User, credential }, None, None)
}

/// Keeps an answer as the call's first one; the key.
async fn planted(cast: &Cast, cell: &Cell<'_>, actor: &Actor, number: usize) -> String {
    let (method, path, _, body) = cell.call(cast);
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let body = body.as_ref().map(Value::to_string).unwrap_or_default();
    let verb = method.as_str();
    let verb = format!("{}{}", &verb[..1], verb[1..].to_lowercase());
    let (_, pattern) = cell.row.name.split_once(' ').unwrap();
    let (app, name) = (&cast.world.server.app, format!("k{number}"));
    let key = OnceKey {
        key: format!("{verb} {pattern} {name}"),
        fingerprint: app.fingerprint(&[path.as_bytes(), query.as_bytes(), body.as_bytes()]),
    };
    let kept = Kept {
        status: 200,
        content_type: "application/json".to_owned(),
        body: Some(FIRST.as_bytes().to_vec()),
        location: None,
        position: 0,
    };
    assert_eq!(app.answers.keep(actor, &key, &kept).await.unwrap(), None);
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_answer_is_given_again_to_whom_its_call_is_open_and_to_nobody_else() {
    on_both(async |kind| {
        let cast = Cast::gather(kind).await;
        let is_tried = |row: &Row| !row.is_safe() && row.may != May::Anybody;
        let rows: Vec<Row> = rows()
            .into_iter()
            .filter(is_tried)
            .map(|row| Row { trial: Trial::Real, ..row })
            .collect();
        let mut wrong = Vec::new();
        let (mut again, mut refused) = (0, 0);
        for who in CALLERS {
            let actor = caller(&cast, who).await;
            let cells = rows.iter().flat_map(cells::of).filter(|cell| cell.who == who);
            for cell in cells {
                let Some(may) = may_have_it(&cell) else { continue };
                let key = planted(&cast, &cell, &actor, again + refused).await;
                let answer = sent(&cast, &cell, Some(&key)).await;
                if may {
                    again += 1;

                    if answer.text != FIRST {
                        wrong.push(format!("{cell}: {} {}", answer.status, answer.text));
                    }
                    continue;
                }
                refused += 1;
                let fresh = sent(&cast, &cell, None).await;
                let told = |answer: &Answer| (answer.status, answer.body["code"].clone());
                if answer.text.contains("first") || told(&answer) != told(&fresh) {
                    wrong.push(format!(
                        "{cell}: {} {}, fresh {}",
                        answer.status, answer.text, fresh.text
                    ));
                }
            }
        }
        println!(
            "figure: kept answers on {kind:?}: {again} given again, {refused} refused, {} wrong",
            wrong.len()
        );
        assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
        assert!(again > 40 && refused > 100, "{again} and {refused}");
        cast.world.stop().await;
    })
    .await;
}
