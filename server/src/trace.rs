//! What one request brought about, as a tree: its commands, their events, the operations that carried
//! them out, the calls and tasks of each step, and the end of what each task said.

use std::collections::BTreeMap;

use proximity_commands::Actor;
use proximity_commands::saga::{self, task_log};
use proximity_domain::call::{self, Event as Call};
use proximity_domain::operation::{Direction, Event as Operation};
use proximity_domain::plan::Plan;
use proximity_eventstore::{Recorded, Search, Store};
use proximity_projections::operations::{self, Effort};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::events::{Shown, metadata, seen};
use crate::moment::rfc3339;

/// Events read at once.
const PAGE: usize = 1_000;

/// What came of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Trace {
    /// The request's id, as its answer's header `X-Request-Id` told it.
    pub request: String,
    /// Who asked.
    pub actor: Option<String>,
    /// RFC 3339, of the first event.
    pub recorded_at: String,
    /// The requests whose answers it was given again, under their idempotency key; empty for most.
    pub repeats: Vec<String>,
    /// What was asked for, in the order in which it was stored; what the requests that it repeats brought
    /// about comes last.
    pub commands: Vec<TracedCommand>,
}

/// One command of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct TracedCommand {
    /// Its name.
    #[schema(example = "application.deploy")]
    pub command: String,
    /// What it stored.
    pub events: Vec<Shown>,
    /// What carried it out, or what it told to go on or to turn back.
    pub operations: Vec<TracedOperation>,
}

/// An operation that follows from a command.
#[derive(Debug, Serialize, ToSchema)]
pub struct TracedOperation {
    /// Its id.
    pub id: String,
    /// The application.
    pub app: String,
    /// What it does, e.g. `deploy`.
    pub kind: String,
    /// How it stands.
    pub state: String,
    /// What it stored since, its outcome for the application among it.
    pub events: Vec<Shown>,
    /// What was done, in order; then what was taken back.
    pub steps: Vec<TracedStep>,
}

/// One step that was begun, or its undoing.
#[derive(Debug, Serialize, ToSchema)]
pub struct TracedStep {
    /// Its name.
    pub step: String,
    /// `act` or `undo`.
    pub direction: &'static str,
    /// How it stands.
    pub state: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last failed try said.
    pub failure: Option<String>,
    /// The calls with an effect that such a step makes, or its undoing.
    pub calls: Vec<TracedCall>,
    /// The tasks that ran for it.
    pub tasks: Vec<TracedTask>,
}

/// A call of Proxmox.
#[derive(Debug, Serialize, ToSchema)]
pub struct TracedCall {
    /// Method and path below `/api2/json`.
    pub call: String,
    /// When it is made only then; null when it is made in any case.
    pub only: Option<&'static str>,
}

/// A task of Proxmox.
#[derive(Debug, Serialize, ToSchema)]
pub struct TracedTask {
    /// Proxmox's id of it.
    pub upid: String,
    /// How it ended: `OK`, what Proxmox said instead, or `unknown`; null while its step goes on.
    pub outcome: Option<String>,
    /// The last lines of its log, as they were then, without what looked like a secret.
    pub log: Vec<String>,
}

/// Why a trace cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log cannot be read")]
    Store(#[from] proximity_eventstore::Error),
    #[error("a kept log cannot be read: {0:?}")]
    Commands(proximity_commands::Error),
    #[error("a past operation cannot be told: {0}")]
    Untold(String),
}

/// The tree of a request, of those of its events that the reader may see; `None` when there are none.
pub async fn of(store: &Store, request: &str, reader: &Actor) -> Result<Option<Trace>, Error> {
    let at_once = of_request(store, request, reader).await?;
    let Some(first) = at_once.first() else { return Ok(None) };
    let (actor, recorded_at) = (Shown::of(first).actor, rfc3339(first.recorded_at));
    let repeats = repeated(&at_once, request);
    let mut commands = told(store, request, &at_once, reader).await?;
    for first in &repeats {
        let at_once = of_request(store, first, reader).await?;
        commands.extend(told(store, first, &at_once, reader).await?);
    }
    Ok(Some(Trace { request: request.to_owned(), actor, recorded_at, repeats, commands }))
}

/// What a request stored by itself.
async fn of_request(store: &Store, request: &str, reader: &Actor) -> Result<Vec<Recorded>, Error> {
    let search = Search { request: Some(request.to_owned()), ..Search::default() };
    Ok(seen(store, all(store, search).await?, reader).await?)
}

/// The requests that were answered first what this one was answered again.
fn repeated(events: &[Recorded], request: &str) -> Vec<String> {
    let mut firsts = Vec::new();
    for event in events.iter().filter(|event| event.aggregate_type == call::STREAM) {
        if let Ok(Call::Repeated(counted)) = serde_json::from_str(&event.payload) {
            firsts.extend(counted.firsts.into_iter().filter(|first| first != request));
        }
    }
    firsts.sort_unstable();
    firsts.dedup();
    firsts
}

/// The commands of a request, with all that follows from them.
async fn told(
    store: &Store,
    request: &str,
    at_once: &[Recorded],
    reader: &Actor,
) -> Result<Vec<TracedCommand>, Error> {
    let mut commands: Vec<(String, Vec<&Recorded>)> = Vec::new();
    for event in at_once {
        let metadata = metadata(event);
        let command = metadata.get("command").and_then(|name| name.as_str()).unwrap_or_default();
        match commands.last_mut().filter(|(last, _)| last == command) {
            Some((_, events)) => events.push(event),
            None => commands.push((command.to_owned(), vec![event])),
        }
    }
    let mut told = Vec::new();
    for (command, events) in commands {
        let mut operations = Vec::new();
        let mut ids: Vec<&str> = events
            .iter()
            .filter(|event| event.aggregate_type == "operation")
            .map(|event| event.aggregate_id.as_str())
            .collect();
        ids.dedup();
        for id in ids {
            let search = Search { correlations: Some(vec![id.to_owned()]), ..Search::default() };
            let related = seen(store, all(store, search).await?, reader).await?;
            operations.extend(operation(store, id, request, &related, reader).await?);
        }
        let events = events.into_iter().map(|event| Shown::to(event, reader)).collect();
        told.push(TracedCommand { command, events, operations });
    }
    Ok(told)
}

async fn all(store: &Store, mut search: Search) -> Result<Vec<Recorded>, Error> {
    let mut events = Vec::new();
    loop {
        let mut found = store.search(&search, PAGE).await?;
        events.append(&mut found.events);
        search.after = found.next;
        if found.complete {
            return Ok(events);
        }
    }
}

async fn operation(
    store: &Store,
    id: &str,
    request: &str,
    related: &[Recorded],
    reader: &Actor,
) -> Result<Option<TracedOperation>, Error> {
    let is_plan =
        |event: &Recorded| event.aggregate_id == id && event.event_type == "operation.planned";
    if !related.iter().any(is_plan) {
        // The reader sees an own act on it, and nothing of what it is.
        return Ok(None);
    }
    let row = operations::after(id, related).map_err(|error| Error::Untold(error.to_string()))?;
    let Some(row) = row else { return Ok(None) };
    let mut logs: BTreeMap<String, task_log::TaskLog> = task_log::of_operation(store, id)
        .await
        .map_err(Error::Commands)?
        .into_iter()
        .map(|log| (log.upid.clone(), log))
        .collect();
    let (plan, names) = plan(id, related).unzip();
    let names = names.unwrap_or_default();
    let calls = plan.as_ref().map(|plan| saga::calls(plan, &names)).unwrap_or_default();
    let undone = |step: &str, direction: Direction| match &plan {
        Some(plan) if direction == Direction::Undo => saga::undo_calls(plan, step),
        _ => Vec::new(),
    };
    let mut steps = Vec::new();
    let begun = |effort: &Effort| effort.attempts > 0;
    let mut tell = |name: &str, direction: Direction, effort: &Effort| TracedStep {
        step: name.to_owned(),
        direction: if direction == Direction::Act { "act" } else { "undo" },
        state: effort.state.clone(),
        attempts: effort.attempts,
        failure: effort.failure.clone(),
        calls: calls
            .iter()
            .filter(|call| call.step == name && direction == Direction::Act)
            .chain(undone(name, direction).iter())
            .map(|call| TracedCall { call: call.call.clone(), only: call.only })
            .collect(),
        tasks: effort
            .upids
            .iter()
            .map(|upid| {
                let log = logs.remove(upid);
                let outcome = log.as_ref().map(|log| log.outcome.clone());
                let log = log.map(|log| log.lines).unwrap_or_default();
                TracedTask { upid: upid.clone(), outcome, log }
            })
            .collect(),
    };
    for step in row.steps.iter().filter(|step| begun(&step.act)) {
        steps.push(tell(&step.name, Direction::Act, &step.act));
    }
    for step in row.steps.iter().rev() {
        if let Some(undo) = step.compensation.as_ref().filter(|undo| begun(undo)) {
            steps.push(tell(&step.name, Direction::Undo, undo));
        }
    }
    let of_request = |event: &&Recorded| {
        metadata(event).get("request").and_then(|id| id.as_str()) != Some(request)
    };
    Ok(Some(TracedOperation {
        id: row.id,
        app: row.app,
        kind: row.kind,
        state: row.state,
        events: related.iter().filter(of_request).map(|event| Shown::to(event, reader)).collect(),
        steps,
    }))
}

/// The plan as it was last, with the names of its steps.
fn plan(id: &str, events: &[Recorded]) -> Option<(Plan, Vec<String>)> {
    let own = events
        .iter()
        .filter(|event| event.aggregate_type == "operation" && event.aggregate_id == id);
    let mut last = None;
    for event in own {
        match serde_json::from_str(&event.payload) {
            Ok(Operation::Planned { plan, steps, .. }) => last = Some((plan, steps)),
            Ok(Operation::PlanChanged { plan, .. }) => {
                last = last.map(|(_, steps)| (plan, steps));
            }
            Ok(_) | Err(_) => {}
        }
    }
    last
}
