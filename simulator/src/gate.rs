//! The front of the API: framing, authentication, routing, permission, workers, faults and the reply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use hyper::Request;
use hyper::body::Incoming;

use crate::auth::Auth;
use crate::fault::Fault;
use crate::fault_reply::{self, Answer};
use crate::params::verify;
use crate::reply::{Outcome, Refusal, RefusalBody, render, with_body};
use crate::request::{Asked, carries_credential, read};
use crate::routes::{self, Check, Route};
use crate::seen::RequestSeen;
use crate::sim::{Call, Sim};

/// The connection is to be cut without a reply.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub(crate) struct Cut;

/// Answers one request, or cuts its connection.
pub(crate) async fn answer(
    sim: Arc<Sim>,
    request: Request<Incoming>,
) -> Result<hyper::Response<Answer>, Cut> {
    let method = request.method().clone();
    let full_path = request.uri().to_string();
    let mut seen = RequestSeen {
        method: method.to_string(),
        path: full_path,
        credential: carries_credential(request.headers())
            || (method == Method::POST && request.uri().path().ends_with("/access/ticket")),
        by: None,
        status: None,
    };
    let result = process(&sim, request, &mut seen.by).await;
    if let Ok(response) = &result {
        seen.status = Some(response.status().as_u16());
    }
    sim.seen.request(seen);
    result
}

async fn process(
    sim: &Arc<Sim>,
    request: Request<Incoming>,
    by: &mut Option<String>,
) -> Result<hyper::Response<Answer>, Cut> {
    if sim.world().answering().is_none() {
        return Err(Cut);
    }
    let asked = match read(sim, request).await {
        Ok(asked) => asked,
        Err(refusal) => return Ok(plain(sim, &Err(hold_back(sim, refusal).await))),
    };
    *by = asked.auth.as_ref().map(Auth::id);
    let segments: Vec<&str> = asked.segments.iter().map(String::as_str).collect();
    let found = routes::find(&asked.method, &segments);
    let Some((route, captured)) = found else {
        let refusal = Refusal::not_implemented(asked.method.as_str(), &asked.path);
        return Ok(plain(sim, &Err(refusal)));
    };
    let fault = sim.faults.decide(asked.method.as_str(), &asked.path, route.effect);
    match before_effect(sim, fault.as_ref()).await {
        Ok(()) => {}
        Err(Some(refusal)) => return Ok(plain(sim, &Err(refusal))),
        Err(None) => return Err(Cut),
    }
    // The work goes on when the caller leaves: a real host does not notice either.
    let work = carry_out(sim.clone(), route, captured, asked, fault.clone());
    let outcome = match sim.tracker.spawn(work).await {
        Ok(outcome) => hold_outcome(sim, outcome).await,
        // Only a panic or the shutdown of the runtime gets here.
        Err(_) => return Err(Cut),
    };
    let response = render(&outcome, sim.config.message_in_body);
    fault_reply::after_effect(fault.as_ref(), &outcome, response)
}

fn plain(sim: &Sim, outcome: &Outcome) -> hyper::Response<Answer> {
    render(outcome, sim.config.message_in_body).map(fault_reply::whole)
}

/// A 401 comes late, so that guessing is slow.
async fn hold_back(sim: &Sim, refusal: Refusal) -> Refusal {
    if refusal.status == 401 {
        tokio::time::sleep(sim.config.auth_delay).await;
    }
    refusal
}

async fn hold_outcome(sim: &Sim, outcome: Outcome) -> Outcome {
    match outcome {
        Err(refusal) => Err(hold_back(sim, refusal).await),
        done => done,
    }
}

/// The faults that come before the effect: a refusal or a cut (`None`).
async fn before_effect(sim: &Sim, fault: Option<&Fault>) -> Result<(), Option<Refusal>> {
    match fault {
        Some(Fault::Status { status, reason, after_effect: false }) => {
            Err(Some(fault_reply::status_refusal(*status, reason.as_deref())))
        }
        Some(Fault::NoReplyBeforeEffect) => Err(None),
        Some(Fault::Unauthorized) => {
            let refusal = Refusal::empty(401, "Authentication failed!");
            Err(Some(hold_back(sim, refusal).await))
        }
        _ => Ok(()),
    }
}

/// Permission, node, worker, parameters, and then the call itself: once, or twice under a fault.
async fn carry_out(
    sim: Arc<Sim>,
    route: &'static Route,
    captured: BTreeMap<String, String>,
    asked: Asked,
    fault: Option<Fault>,
) -> Outcome {
    if let Some(Fault::Slow { ms }) = &fault {
        tokio::time::sleep(Duration::from_millis(*ms)).await;
    }
    let auth = asked.auth.unwrap_or(Auth { user: String::new(), token: None });
    let mut given = asked.given;
    given.extend(captured);
    permit(&sim, &auth, &route.check, &given)?;
    let node = resolve_node(&sim, &mut given).await?;
    let _worker = match (route.protected, sim.workers.get(&node)) {
        (true, Some(workers)) => {
            let permit = workers.clone().acquire_owned().await;
            Some((permit.map_err(|_| Refusal::empty(595, "Connection refused"))?, Busy::new(&sim)))
        }
        _ => None,
    };
    let params = verify(&route.params, &given)?;
    let task_fault = fault.clone().filter(Fault::strikes_task);
    let call = Arc::new(Call { auth, params, task_fault: std::sync::Mutex::new(task_fault) });
    let first = (route.run)(sim.clone(), call.clone()).await;
    match fault {
        Some(Fault::AppliedTwice { second_answer }) => {
            let second = (route.run)(sim.clone(), call).await;
            if second_answer { second } else { first }
        }
        _ => first,
    }
}

/// Counts the workers in use.
struct Busy(Arc<Sim>);

impl Busy {
    fn new(sim: &Arc<Sim>) -> Self {
        let now = sim.busy.fetch_add(1, Ordering::SeqCst) + 1;
        sim.busiest.fetch_max(now, Ordering::SeqCst);
        Self(sim.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

fn permit(
    sim: &Sim,
    auth: &Auth,
    check: &Check,
    given: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let (template, privileges, any) = match check {
        Check::All => return Ok(()),
        Check::Every(path, privileges) => (*path, *privileges, false),
        Check::Any(path, privileges) => (*path, *privileges, true),
    };
    let mut path = template.to_owned();
    for (name, value) in given {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    sim.require(auth, &path, privileges, any)
}

impl Sim {
    /// What a caller may do on a path.
    pub(crate) fn rights(&self, auth: &Auth, path: &str) -> std::collections::BTreeSet<String> {
        rights_in(&self.world(), auth, path)
    }

    /// Refuses unless the caller has all (or any) of the privileges.
    pub(crate) fn require(
        &self,
        auth: &Auth,
        path: &str,
        privileges: &[&str],
        any: bool,
    ) -> Result<(), Refusal> {
        if auth.is_root() {
            return Ok(());
        }
        let rights = self.rights(auth, path);
        if any {
            if privileges.iter().any(|privilege| rights.contains(*privilege)) {
                return Ok(());
            }
            return Err(Refusal::forbidden(format!("{path}, {}", privileges.join("|"))));
        }
        match privileges.iter().find(|privilege| !rights.contains(**privilege)) {
            Some(missing) => Err(Refusal::forbidden(format!("{path}, {missing}"))),
            None => Ok(()),
        }
    }
}

/// The same for callers that hold the world's lock already.
pub(crate) fn rights_in(
    world: &crate::world::World,
    auth: &Auth,
    path: &str,
) -> std::collections::BTreeSet<String> {
    let pool = path
        .strip_prefix("/vms/")
        .and_then(|vmid| world.containers.get(&vmid.parse().ok()?))
        .and_then(|container| container.pool.as_deref());
    world.access.privileges(auth, path, pool)
}

/// The node that serves the call. Unknown ones fail to resolve, dead ones fail to answer.
async fn resolve_node(sim: &Sim, given: &mut BTreeMap<String, String>) -> Result<String, Refusal> {
    let answering = sim
        .world()
        .answering()
        .map(str::to_owned)
        .ok_or_else(|| Refusal::empty(595, "No route to host"))?;
    let Some(name) = given.get("node").cloned() else { return Ok(answering) };
    if name == "localhost" {
        given.insert("node".to_owned(), answering.clone());
        return Ok(answering);
    }
    let online = sim.world().nodes.get(&name).map(|node| node.online);
    match online {
        Some(true) => Ok(name),
        Some(false) => {
            tokio::time::sleep(sim.config.unreachable_delay).await;
            Err(Refusal::empty(595, "No route to host"))
        }
        None => {
            let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let cause = if valid {
                "Temporary failure in name resolution"
            } else {
                "Name or service not known"
            };
            Err(Refusal::die(format!(
                "hostname lookup '{name}' failed - failed to get address info for: {name}: {cause}"
            )))
        }
    }
}

/// Sends a plain-HTTP caller to https.
pub(crate) fn redirect(
    request: &Request<Incoming>,
    local: std::net::SocketAddr,
) -> crate::reply::Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map_or_else(|| local.to_string(), str::to_owned);
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    let (status, reason) =
        if get { (301, "Moved Permanently") } else { (308, "Permanent Redirect") };
    let mut response = with_body(status, reason, None, Bytes::new());
    if let Ok(value) = HeaderValue::from_str(&format!("https://{host}{}", request.uri())) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Pseudo codes have no body.
pub(crate) fn body_for(status: u16) -> RefusalBody {
    if (595..=599).contains(&status) || status == 401 {
        RefusalBody::Empty
    } else {
        RefusalBody::Json
    }
}
