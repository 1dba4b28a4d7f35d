//! Who may do what: every route of the table × everybody, read from the table itself.

use proximity_server::http::route::{Policy, Route};
use proximity_server::http::routes::ROUTES;
use reqwest::Method;
use serde_json::Value;

use crate::harness::{Answer, on_both};
use crate::world::{Person, World};

/// Everybody who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Garbage,
    Other,
    Owner,
    Admin,
    /// A program with the owner's token that may only read.
    Reader,
}

const EVERYBODY: [Who; 6] =
    [Who::Nobody, Who::Garbage, Who::Other, Who::Owner, Who::Admin, Who::Reader];

struct Ids {
    application: String,
    operation: String,
    backup: String,
    schedule: String,
}

/// The route's path with ids of things that the owner has, or that never were.
fn path(route: &Route, ids: Option<&Ids>) -> String {
    let never = uuid::Uuid::new_v4();
    let (application, operation, backup, schedule) = match ids {
        Some(ids) => (
            ids.application.clone(),
            ids.operation.clone(),
            ids.backup.clone(),
            ids.schedule.clone(),
        ),
        None => {
            let application = format!("nginx-{:08x}", rand::random::<u32>());
            let number = || rand::random::<u32>().to_string();
            (application, never.to_string(), number(), number())
        }
    };
    let id = if route.path.starts_with("/api/apps") {
        application
    } else if route.path.starts_with("/api/operations") {
        operation
    } else if route.path.starts_with("/api/backup-schedules") {
        schedule
    } else if route.path.starts_with("/api/proxmox") {
        "1".to_owned()
    } else {
        "nginx".to_owned()
    };
    let path = route.path.replace("{backup_id}", &backup);
    path.replace("{id}", &id).replace("{category}", "web").replace("{code}", "not_found")
}

/// Calls so that nothing is changed by whoever may: the body is no JSON, or nothing matches.
async fn call(world: &World, reader: &Person, route: &Route, path: &str, who: Who) -> Answer {
    let method = Method::from_bytes(route.verb.as_str().as_bytes()).unwrap();
    let person: Option<&Person> = match who {
        Who::Nobody | Who::Garbage => None,
        Who::Other => Some(&world.other),
        Who::Owner => Some(&world.owner),
        Who::Admin => Some(&world.admin),
        Who::Reader => Some(reader),
    };
    let bearer = match (who, person) {
        (Who::Garbage, _) => Some(format!("Bearer {}", uuid::Uuid::new_v4())),
        // Logging out would end the session that the other cells need.
        (_, Some(_)) if route.name.ends_with("/api/auth/logout") => None,
        (_, person) => person.map(|person| format!("Bearer {}", person.token)),
    };
    let mut headers = vec![("content-type", "application/json"), ("if-match", "\"never\"")];
    if let Some(bearer) = &bearer {
        headers.push(("authorization", bearer));
    }
    let takes_body = !route.verb.is_safe() && route.verb.as_str() != "DELETE";
    let body: Option<&[u8]> = takes_body.then_some(b"{");
    world.server.call(method, path, &headers, body).await
}

/// What a refusal looks like but for its request id.
fn bare(answer: &Answer) -> (u16, Value, Vec<(String, String)>) {
    let mut body = answer.body.clone();
    body["request_id"] = Value::Null;
    let differing = ["x-request-id", "date", "proximity-position", "content-length"];
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| !differing.contains(&name.as_str()))
        .collect();
    headers.sort();
    (answer.status.as_u16(), body, headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_whom_it_must_and_nobody_else() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let application = world.deployed(&world.owner, "web-01").await;
        let operations = world.get(&world.owner, "/api/operations").await;
        let operation = operations.body["operations"][0]["id"].as_str().unwrap().to_owned();
        let backup = world.backed_up(&world.owner, &application).await;
        let body = serde_json::json!({ "cron": "0 2 * * *", "application_id": application });
        let made = world.post(&world.owner, "/api/backup-schedules", &body).await;
        let schedule = made.body["id"].to_string();
        let ids = Ids { application, operation, backup: backup.to_string(), schedule };
        let body = serde_json::json!({ "name": "reader", "scopes": ["read"] });
        let made = world.post(&world.owner, "/api/auth/tokens", &body).await;
        let token = made.body["token"].as_str().unwrap().to_owned();
        let reader = Person { name: "reader".to_owned(), token };
        let head = world.server.app.store.head().await.unwrap();
        let (mut cells, mut wrong) = (0, Vec::new());
        for route in ROUTES {
            for who in EVERYBODY {
                cells += 1;
                let answer = call(&world, &reader, route, &path(route, Some(&ids)), who).await;
                let status = answer.status.as_u16();
                let signed_in = !matches!(who, Who::Nobody | Who::Garbage);
                let well = match (route.policy, who) {
                    // Both take a token in the body, and there is none.
                    (Policy::Public, _) if route.path.starts_with("/api/auth/token/") => {
                        matches!(status, 400 | 401)
                    }
                    (Policy::Public | Policy::Optional, _) => !matches!(status, 401 | 403),
                    (_, Who::Nobody | Who::Garbage) => status == 401,
                    (Policy::Person, Who::Reader) => {
                        status == 403 && answer.body["code"] == "api_token.not_accepted"
                    }
                    (Policy::Admin, Who::Reader) => {
                        status == 403 && answer.body["code"] == "api_token.scope_missing"
                    }
                    (_, Who::Reader) if !route.verb.is_safe() => {
                        status == 403 && answer.body["code"] == "api_token.scope_missing"
                    }
                    (Policy::Admin, Who::Other | Who::Owner) => {
                        status == 403 && answer.body["code"] == "admin.required"
                    }
                    (Policy::Owner, Who::Other) => {
                        let never = call(&world, &reader, route, &path(route, None), who).await;
                        status == 404 && bare(&answer) == bare(&never)
                    }
                    (Policy::Owner, _) => !matches!(status, 401 | 403 | 404),
                    (Policy::User | Policy::Person | Policy::Admin, _) => {
                        signed_in && !matches!(status, 401 | 403)
                    }
                };
                if !well || status >= 500 {
                    wrong.push(format!("{} by {who:?}: {status} {}", route.name, answer.text));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(cells, ROUTES.len() * EVERYBODY.len());
        // Resuming, cancelling and looking at hosts may note something; nobody's thing has changed.
        let after = world.server.app.store.feed(head, 10_000).await.unwrap();
        let changed: Vec<_> =
            after.iter().filter(|event| event.aggregate_type == "application").collect();
        assert!(changed.is_empty(), "{changed:#?}");
        println!("figure: authorization matrix on {kind:?}: {cells} cells, 0 wrong");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_its_reader_nothing_of_others() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        for (who, sees) in [(&world.owner, 1), (&world.other, 0), (&world.admin, 1)] {
            let apps = world.get(who, "/api/apps?search=WEB").await.body;
            assert_eq!(apps["total"], sees, "{}: {apps}", who.name);
            let operations = world.get(who, &format!("/api/operations?app={id}")).await.body;
            assert_eq!(operations["total"], sees, "{}: {operations}", who.name);
        }
        let nodes = world.get(&world.other, "/api/proxmox/nodes").await.body;
        assert_eq!(nodes[0]["memory_total"], Value::Null, "figures are for administrators");
        let nodes = world.get(&world.admin, "/api/proxmox/nodes").await.body;
        assert!(nodes[0]["memory_total"].as_u64().unwrap() > 0);
        world.stop().await;
    })
    .await;
}
