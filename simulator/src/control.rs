//! The control surface: plain HTTP on loopback, for people and for scripts in other processes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::behind::{self, Foreign};
use crate::error::Error;
use crate::fault::FaultRule;
use crate::handle;
use crate::sim::Sim;

const BODY_LIMIT: usize = 1 << 20;

/// Accepts until the simulator shuts down.
pub(crate) async fn run(sim: Arc<Sim>, listener: TcpListener, connections: TaskTracker) {
    loop {
        let stream = tokio::select! {
            () = sim.shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a control connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let sim = sim.clone();
        connections.spawn(async move {
            let shutdown = sim.shutdown.clone();
            let service = service_fn(move |request| {
                let sim = sim.clone();
                async move { Ok::<_, Infallible>(Box::pin(answer(&sim, request)).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = shutdown.cancelled() => {}
                served = serving => if let Err(error) = served {
                    tracing::trace!(%error, "a control connection ended early");
                }
            }
        });
    }
}

type Answer = Result<(StatusCode, Value), (StatusCode, String)>;

async fn answer(sim: &Arc<Sim>, request: Request<Incoming>) -> hyper::Response<Full<Bytes>> {
    // Web pages of other origins could reach loopback; a name that is not ours gives them away.
    let local = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .is_some_and(|host| host.starts_with("127.0.0.1") || host.starts_with("localhost"));
    let result = if local {
        route(sim, request).await
    } else {
        Err((StatusCode::FORBIDDEN, "only for loopback names".to_owned()))
    };
    let (status, body) = match result {
        Ok((status, value)) => (status, value),
        Err((status, text)) => (status, json!({ "error": text })),
    };
    let text = serde_json::to_string_pretty(&body).unwrap_or_else(|_| "null".to_owned());
    let mut response = hyper::Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn route(sim: &Arc<Sim>, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().trim_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    match (&method, &parts[..]) {
        (&Method::GET, [""]) => ok(json!({
            "about": "control surface of a simulated Proxmox VE",
            "calls": ["GET /ledger", "GET /journal", "GET /requests", "GET /effects",
                "GET /faults", "POST /faults", "DELETE /faults", "DELETE /faults/{id}",
                "POST /nodes/{node}/down", "POST /nodes/{node}/up", "POST /containers",
                "POST /storages/{storage}/retention", "POST /storages/{storage}/content"],
        })),
        (&Method::GET, ["ledger"]) => ok(json!(sim.world().ledger())),
        (&Method::GET, ["journal"]) => ok(json!(sim.world().journal.all())),
        (&Method::GET, ["requests"]) => ok(json!(sim.seen.all())),
        (&Method::GET, ["effects"]) => ok(json!(crate::routes::effects())),
        (&Method::GET, ["faults"]) => ok(json!(sim.faults.list())),
        (&Method::POST, ["faults"]) => {
            let rules: Rules = read(request).await?;
            let rules = match rules {
                Rules::One(rule) => vec![*rule],
                Rules::Many(rules) => rules,
            };
            let mut ids = Vec::new();
            for rule in rules {
                ids.push(sim.faults.add(rule).map_err(refuse)?);
            }
            Ok((StatusCode::CREATED, json!({ "ids": ids })))
        }
        (&Method::DELETE, ["faults"]) => {
            sim.faults.clear();
            ok(json!([]))
        }
        (&Method::DELETE, ["faults", id]) => {
            let known = id.parse().is_ok_and(|id| sim.faults.remove(id));
            if known { ok(json!(sim.faults.list())) } else { Err(not_found()) }
        }
        (&Method::POST, ["nodes", node, "down"]) => {
            handle::node_down(sim, node).await.map_err(refuse)?;
            ok(json!(sim.world().ledger().nodes))
        }
        (&Method::POST, ["nodes", node, "up"]) => {
            handle::node_up(sim, node).await.map_err(refuse)?;
            ok(json!(sim.world().ledger().nodes))
        }
        (&Method::POST, ["containers"]) => {
            let foreign: Foreign = read(request).await?;
            let vmid = behind::plant(sim, foreign).await.map_err(refuse)?;
            Ok((StatusCode::CREATED, json!({ "vmid": vmid })))
        }
        (&Method::POST, ["storages", storage, "retention"]) => {
            let wanted: Retention = read(request).await?;
            let text = wanted.prune_backups.as_deref();
            behind::set_retention(sim, storage, text).map_err(refuse)?;
            ok(json!({ "prune-backups": text }))
        }
        (&Method::POST, ["storages", storage, "content"]) => {
            let content: Vec<String> = read(request).await?;
            behind::set_content(sim, storage, &content).map_err(refuse)?;
            ok(json!(content))
        }
        _ => Err(not_found()),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Retention {
    /// Such as `keep-last=3`; null takes it away.
    #[serde(rename = "prune-backups")]
    prune_backups: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Rules {
    One(Box<FaultRule>),
    Many(Vec<FaultRule>),
}

fn ok(value: Value) -> Answer {
    Ok((StatusCode::OK, value))
}

fn not_found() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, "there is nothing here; GET / lists what there is".to_owned())
}

fn refuse(error: Error) -> (StatusCode, String) {
    let status = match error {
        Error::Taken(_) => StatusCode::CONFLICT,
        Error::Unknown { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, (StatusCode, String)> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let body = Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| bad(error.to_string()))?
        .to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}
