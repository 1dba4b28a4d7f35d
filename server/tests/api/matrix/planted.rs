//! Faults planted on purpose: the matrix has to find each, or it proves nothing.

use proximity_server::http::call::Call;
use proximity_server::http::problem::Problem;
use proximity_server::http::reply::Reply;
use proximity_server::http::route::{Answer as Handled, Policy, Route};
use proximity_server::http::routes::ROUTES;
use proximity_simulator::Foreign;
use reqwest::Method;
use serde_json::{Value, json};

use super::cast::{Cast, State, Who};
use super::cells::{self, Cell};
use super::table::{self, Row};
use super::{Outcome, Run};
use crate::harness::Answer;

/// What a stranger's call for somebody else's application is made to do besides.
#[derive(Debug, Clone, Copy)]
pub enum Plant {
    /// One byte more in the body.
    Told,
    /// One header more.
    Header,
    /// An event in the log.
    Event,
    /// A container in the simulator.
    Guest,
}

impl Plant {
    pub async fn grow(self, cast: &Cast, cell: &Cell<'_>, answer: &mut Answer) {
        if cell.who != Who::Other || cell.state() != Some(State::Others) {
            return;
        }
        match self {
            Self::Told => answer.text.push(' '),
            Self::Header => {
                answer.headers.insert("x-known", "1".parse().unwrap());
            }
            Self::Event => {
                let body = Some(json!({ "first_name": format!("{}", rand::random::<u32>()) }));
                let (server, admin) = (&cast.world.server, &cast.world.admin);
                let path = "/api/auth/user";
                let done = server.as_person(admin, Method::PUT, path, body.as_ref()).await;
                assert_eq!(done.status, 200, "{}", done.text);
            }
            Self::Guest => {
                cast.world.simulator.plant_container(Foreign::default()).await.unwrap();
            }
        }
    }
}

/// The server's table with one line changed.
fn table_with(name: &str, change: impl Fn(&mut Route)) -> &'static [Route] {
    let mut table = ROUTES.to_vec();
    change(table.iter_mut().find(|route| route.name == name).unwrap());
    table.leak()
}

/// Shows an application without asking whose it is.
fn forgetful(call: Call) -> Handled {
    Box::pin(async move {
        let id: String = call.param("id")?;
        let found = call.app.views.app(&id, false).await.ok().flatten();
        Reply::json(&found.ok_or_else(Problem::not_found)?)
    })
}

/// The rows of one call.
fn rows_of(name: &str) -> Vec<Row> {
    let rows: Vec<Row> = table::rows().into_iter().filter(|row| row.name == name).collect();
    assert!(!rows.is_empty(), "{name}");
    rows
}

/// Plants all of them, one after the other; how many, and how many of them were found.
pub async fn try_all(cast: &Cast, document: &Value, rows: &[Row]) -> (usize, usize) {
    let mut found = Vec::new();
    let one = "GET /api/apps/{id}";
    for plant in [Plant::Told, Plant::Header, Plant::Event, Plant::Guest] {
        let mut run = Run::new(cast, &cast.world.server.url);
        run.plant = Some(plant);
        found.push((format!("{plant:?}"), run.all(&rows_of(one)).await.wrong.len()));
    }
    let public = |route: &mut Route| route.policy = Policy::Public;
    let any_user = |route: &mut Route| route.policy = Policy::User;
    let asks_nobody = |route: &mut Route| route.handler = forgetful;
    for (name, called, table) in [
        ("anybody lists", "GET /api/apps", table_with("Get /api/apps", public)),
        (
            "any user reloads",
            "POST /api/catalog/reload",
            table_with("Post /api/catalog/reload", any_user),
        ),
        ("a handler asks nobody", one, table_with("Get /api/apps/{id}", asks_nobody)),
    ] {
        let (url, listening) = cast.world.server.also_serve(table);
        let Outcome { wrong, .. } = Run::new(cast, &url).all(&rows_of(called)).await;
        listening.stop().await;
        found.push((name.to_owned(), wrong.len()));
    }
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 4] = [
        ("a call without a row", |document| {
            document["paths"]["/api/apps/{id}/more"]["get"] = json!({});
        }),
        ("an id in the query", |document| {
            let parameter = json!({ "in": "query", "name": "backup_id" });
            let all = &mut document["paths"]["/api/backups"]["get"]["parameters"];
            all.as_array_mut().unwrap().push(parameter);
        }),
        ("an id in the body", |document| {
            document["components"]["schemas"]["CloneWanted"]["properties"]["host_id"] = json!({});
        }),
        ("another policy", |document| {
            document["paths"]["/api/users"]["get"]["x-policy"] = json!("user");
        }),
    ];
    for (name, change) in changes {
        let mut document = document.clone();
        change(&mut document);
        found.push((name.to_owned(), cells::uncovered(&document, rows).len()));
    }
    let missed: Vec<&String> =
        found.iter().filter(|(_, times)| *times == 0).map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
    (found.len(), found.iter().filter(|(_, times)| *times > 0).count())
}
