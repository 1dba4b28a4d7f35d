//! `?dry_run=true`: the handler runs as ever, and what it would have stored is the answer.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proximity_commands::agreed::{self, Agreed, Picks};
use proximity_commands::preview::{Draft, Preview};
use proximity_commands::saga;
use proximity_domain::plan::{Plan, RestoreWay};
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use super::call::Call;
use super::once;
use super::problem::Problem;
use super::query;
use super::reply::{Reply, StatusCode};
use super::route::Route;

/// The calls that can be tried without effect. All that such a call does has to be in its append:
/// one that changes anything on Proxmox or writes anything beside it does not belong here.
const DRY: &[&str] = &[
    "Post /api/apps",
    "Delete /api/apps/{id}",
    "Post /api/apps/{id}/action",
    "Post /api/apps/{id}/clone",
    "Post /api/apps/adopt",
    "Post /api/apps/{id}/backups/{backup_id}/restore",
    "Post /api/backup-schedules",
    "Put /api/backup-schedules/{id}",
    "Delete /api/backup-schedules/{id}",
];

/// The parameter that asks for it.
const DRY_RUN: &str = "dry_run";
/// The parameter that holds a call to what a dry run has answered.
const PLAN: &str = "plan";
/// Those that are judged here, for all calls that may change something.
pub const PARAMETERS: &[&str] = &[DRY_RUN, PLAN];

/// What would be done.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Always true: nothing was stored and nothing will happen.
    pub dry_run: bool,
    /// Sent back as `plan=` with the same request, it is carried out exactly so, with this node and
    /// these numbers, or refused with 412; null when nothing would be done.
    pub plan_hash: Option<String>,
    /// The kind of operation that would carry it out; null when there would be none.
    pub operation: Option<String>,
    /// The node that would be used; without `plan=` another one may be chosen for real.
    pub node: Option<String>,
    /// The container's number; without `plan=` another one may be chosen for real.
    pub vmid: Option<u32>,
    /// The operation's steps, in order.
    pub steps: Vec<String>,
    /// The events that would be appended, all or none. With `plan=`, the plan in `operation.planned` says
    /// `agreed: true` besides: these numbers were shown to somebody, and no others will be taken.
    pub events: Vec<DryEvent>,
    /// The names and numbers that would be taken, and those that would be given back at the end.
    pub leases: Vec<DryLease>,
    /// The calls with an effect that Proxmox would be sent, in order, when nothing fails.
    pub calls: Vec<DryCall>,
}

/// An event that would be appended.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryEvent {
    /// Kind and id of what it would happen to.
    #[schema(example = "lease/hostname/web-01")]
    pub stream: String,
    /// Its name.
    #[schema(example = "lease.acquired")]
    pub event_type: String,
    /// The version of its shape.
    pub event_version: String,
    /// What it would say: an object, or a text where there is nothing more; never a secret.
    pub payload: serde_json::Value,
}

/// A name or number that would change hands.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DryLease {
    /// What it is.
    #[schema(example = "hostname/web-01")]
    pub lease: String,
    /// `acquired`, or `released` when the operation has ended well.
    pub change: &'static str,
}

/// A call that Proxmox would be sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryCall {
    /// The step that makes it.
    pub step: String,
    /// Method and path below `/api2/json`.
    pub call: String,
    /// When it is made only then; null when it is made in any case.
    pub only: Option<&'static str>,
}

/// Whether a route can be tried without effect.
pub fn is_possible(route: &Route) -> bool {
    DRY.contains(&route.name)
}

/// Whether the call wants nothing to happen.
pub fn is_wanted(route: &Route, call: &Call) -> Result<bool, Problem> {
    // Whatever is neither yes nor no is refused: carried out, it would have an effect that was perhaps
    // not meant. Other parameters are the handlers' to judge.
    if route.verb.is_safe() { Ok(false) } else { query::flag(&call.query, DRY_RUN) }
}

/// Bytes of a plan's hash that are looked at: ours are shorter.
const LONGEST_PLAN: usize = 1_024;

/// Stands for a decision about this request: what was picked, readable, and a keyed hash over that, the
/// decision, the request and the caller.
fn hash(call: &Call, picks: &Picks, digest: &str) -> Option<String> {
    let picks = serde_json::to_vec(picks).ok()?;
    Some(format!("{}.{}", URL_SAFE_NO_PAD.encode(&picks), seal(call, &picks, digest)))
}

fn seal(call: &Call, picks: &[u8], digest: &str) -> String {
    let name = call.actor.name();
    let path = call.path.trim_end_matches('/');
    let parts = [b"plan", picks, digest.as_bytes(), name.as_bytes(), path.as_bytes(), &call.body];
    call.app.fingerprint(&parts)
}

/// The plan that the call is to be held to; one that is no plan of ours is refused as changed.
fn agreed(route: &Route, call: &Call) -> Result<Option<Agreed>, Problem> {
    if route.verb.is_safe() {
        return Ok(None);
    }
    let Some(plan) = query::single(&call.query, PLAN)? else { return Ok(None) };
    if !is_possible(route) {
        let detail = "this call makes no plans; nothing was done";
        return Err(Problem::field("?plan", "dry_run.unsupported", detail));
    }
    let changed = || Problem::from(agreed::changed());
    let (picks, wanted) =
        plan.split_once('.').filter(|_| plan.len() <= LONGEST_PLAN).ok_or_else(changed)?;
    let picks = URL_SAFE_NO_PAD.decode(picks).map_err(|_| changed())?;
    let read: Picks = serde_json::from_slice(&picks).map_err(|_| changed())?;
    let (call, wanted) = (call.clone(), wanted.to_owned());
    Ok(Some(Agreed::new(read, move |digest| {
        seal(&call, &picks, digest).as_bytes().ct_eq(wanted.as_bytes()).into()
    })))
}

/// What a request may name that was there when its plan was made: that it is gone is no slip of the
/// caller's.
const GONE: &[&str] = &[
    "backup_schedule.application_unknown",
    "catalog.install_unsupported",
    "catalog.needs_newer_proxmox",
    "catalog.unknown",
    "container.unknown",
    "host.unknown",
    "node.ambiguous",
    "node.offline",
    "node.unknown",
];

/// Of a plan that stands no more, whatever now stands in its way says just that; what the caller may not
/// see or do, or asks for in the wrong way, is refused as ever.
fn overtaken(problem: Problem) -> Problem {
    let in_its_way = match problem.status {
        StatusCode::CONFLICT => !problem.code.starts_with("idempotency_key."),
        _ => GONE.contains(&problem.code),
    };
    if !in_its_way {
        return problem;
    }
    let mut changed = Problem::from(agreed::changed());
    changed.detail = format!("{}: {}", changed.detail, problem.detail);
    changed
}

/// Calls the handler: for real, or only to see what would come of it.
pub async fn answered(route: &'static Route, mut call: Call) -> Result<Reply, Problem> {
    if !is_wanted(route, &call)? {
        call.actor.agreed = agreed(route, &call)?.map(Arc::new);
        let is_agreed = call.actor.agreed.is_some();
        let outcome = once::answered(route, call).await;
        return outcome.map_err(|problem| if is_agreed { overtaken(problem) } else { problem });
    }
    if !is_possible(route) {
        let detail = "this call cannot be tried without effect; nothing was done";
        return Err(Problem::field("?dry_run", "dry_run.unsupported", detail));
    }
    // From here on it is the call for real, its idempotency key included.
    call.query = query::without(&call.query, DRY_RUN);
    match once::before(route, &call).await? {
        // Carried out before: it would get that answer again, and nothing more would happen.
        None => return Reply::json(&described(&Draft::default())?),
        Some(refusals) => call.refusals = refusals,
    }
    let held = agreed(route, &call)?.map(Arc::new);
    call.actor.agreed = held.clone();
    let preview = Arc::new(Preview::default());
    call.actor.preview = Some(preview.clone());
    let outcome = route.answer(call.clone()).await;
    let outcome =
        outcome.map_err(|problem| if held.is_some() { overtaken(problem) } else { problem });
    match preview.taken() {
        Some(draft) if held.is_some_and(|held| !held.is(&draft)) => {
            Err(Problem::from(agreed::changed()))
        }
        Some(draft) => {
            let plan = draft.plan()?.map(|(plan, _)| Picks::of(&plan)).unwrap_or_default();
            let plan_hash = hash(&call, &plan, &agreed::digest(&draft));
            Reply::json(&DryRun { plan_hash, ..described(&draft)? })
        }
        // Refused as it would be for real, or there is nothing to do.
        None => {
            outcome?;
            Reply::json(&described(&Draft::default())?)
        }
    }
}

fn described(draft: &Draft) -> Result<DryRun, Problem> {
    let (plan, steps) = draft.plan()?.unzip();
    let steps = steps.unwrap_or_default();
    let mut events = Vec::new();
    let mut leases = Vec::new();
    for event in &draft.events {
        let payload = serde_json::from_str(&event.payload).map_err(|error| {
            tracing::error!(%error, "a drafted event cannot be read");
            Problem::internal()
        })?;
        if event.event_type == "lease.acquired" {
            leases.push(DryLease { lease: event.aggregate_id.clone(), change: "acquired" });
        }
        events.push(DryEvent {
            stream: format!("{}/{}", event.aggregate_type, event.aggregate_id),
            event_type: event.event_type.clone(),
            event_version: event.event_version.clone(),
            payload,
        });
    }
    if let Some(Plan::Delete(plan)) = &plan
        && let (Some(guest), Some(holdings)) = (&plan.guest, &plan.holdings)
    {
        let held = holdings.leases(&guest.cluster).into_iter().chain([guest.vmid_lease()]);
        leases.extend(held.map(|key| DryLease { lease: key.to_string(), change: "released" }));
    }
    if let Some(Plan::Restore(plan)) = &plan
        && plan.way == RestoreWay::Swap
    {
        let lease = plan.original.vmid_lease().to_string();
        leases.push(DryLease { lease, change: "released" });
    }
    let guest = plan.as_ref().and_then(Plan::guest);
    let calls = plan.as_ref().map(|plan| saga::calls(plan, &steps)).unwrap_or_default();
    Ok(DryRun {
        dry_run: true,
        plan_hash: None,
        operation: plan.as_ref().map(|plan| plan.kind().as_str().to_owned()),
        node: guest.map(|guest| guest.node.to_string()),
        vmid: guest.map(|guest| guest.vmid.get()),
        steps,
        events,
        leases,
        calls: calls
            .into_iter()
            .map(|planned| DryCall { step: planned.step, call: planned.call, only: planned.only })
            .collect(),
    })
}
