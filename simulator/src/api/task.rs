//! Tasks: lists, state, log and abort.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gate::rights_in;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Sim};
use crate::world::World;
use crate::world::task::Task;

/// The task that the call names, if it is the caller's or he may see all of the node's.
fn find<'a>(world: &'a World, call: &Call) -> Result<&'a Task, Refusal> {
    let upid = call.params.text("upid");
    let shaped = upid.starts_with("UPID:") && upid.split(':').count() >= 9 && upid.ends_with(':');
    if !shaped {
        return Err(Refusal::parameter("upid", "unable to parse worker upid"));
    }
    let task = world
        .task(upid)
        .filter(|task| task.node == call.node())
        .ok_or_else(|| Refusal::parameter("upid", "no such task"))?;
    let path = format!("/nodes/{}", task.node);
    if task.by != call.auth.id() && !rights_in(world, &call.auth, &path).contains("Sys.Audit") {
        return Err(Refusal::forbidden(format!("{path}, Sys.Audit")));
    }
    Ok(task)
}

pub(crate) async fn index(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    find(&sim.world(), &call)?;
    Reply::data(json!([{ "name": "log" }, { "name": "status" }]))
}

pub(crate) async fn status(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    Reply::data(find(&sim.world(), &call)?.status_json())
}

pub(crate) async fn log(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let task = find(&world, &call)?;
    let number = |name: &str, default: usize| {
        call.params.number(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    let limit = match number("limit", 50) {
        0 => usize::MAX,
        limit => limit,
    };
    let lines = task.log.iter().enumerate().skip(number("start", 0)).take(limit);
    let rows: Vec<Value> =
        lines.map(|(index, text)| json!({ "n": index + 1, "t": text })).collect();
    Ok(Reply { data: Value::Array(rows), total: Some(task.log.len()) })
}

/// Asks the task to stop and waits until it has; an ended one is left as it is.
pub(crate) async fn stop(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let ended = {
        let world = sim.world();
        let task = find(&world, &call)?;
        let path = format!("/nodes/{}", task.node);
        if task.by != call.auth.id() && !rights_in(&world, &call.auth, &path).contains("Sys.Modify")
        {
            return Err(Refusal::forbidden(format!("{path}, Sys.Modify")));
        }
        task.abort.cancel();
        task.ended.clone()
    };
    // Work that is past its last safe point ends by itself soon; then nothing is to be waited for.
    if tokio::time::timeout(Duration::from_secs(10), ended.cancelled()).await.is_err() {
        tracing::debug!("a task did not stop within ten seconds");
    }
    Reply::null()
}

pub(crate) async fn list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let params = &call.params;
    let path = format!("/nodes/{}", call.node());
    let auditor = rights_in(&world, &call.auth, &path).contains("Sys.Audit");
    let source = params.get("source").unwrap_or("archive");
    let own = call.auth.id();
    let instant = |name: &str| params.get(name).and_then(|text| text.parse::<i64>().ok());
    let (since, until) = (instant("since"), instant("until"));
    let statuses: Option<Vec<&str>> =
        params.get("statusfilter").map(|list| crate::params::formats::split_list(list).collect());
    let rows: Vec<&Task> = world
        .tasks
        .iter()
        .rev()
        .filter(|task| task.node == call.node() && (auditor || task.by == own))
        .filter(|task| match source {
            "archive" => !world.lists_as_running(task),
            "active" => world.lists_as_running(task),
            _ => true,
        })
        .filter(|task| params.get("vmid").is_none_or(|vmid| task.id == vmid))
        .filter(|task| params.get("typefilter").is_none_or(|kind| task.kind == kind))
        .filter(|task| params.get("userfilter").is_none_or(|user| task.by.contains(user)))
        .filter(|task| !params.flag("errors") || task.failed())
        .filter(|task| since.is_none_or(|since| task.start >= since))
        .filter(|task| until.is_none_or(|until| task.start <= until))
        .filter(|task| statuses.as_ref().is_none_or(|list| list.contains(&class(task))))
        .collect();
    let number = |name: &str, default: usize| {
        params.number(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    let total = rows.len();
    let page = rows.into_iter().skip(number("start", 0)).take(number("limit", 50));
    // Of no active task not even the number is told.
    let total = Some(total).filter(|total| source != "active" || *total > 0);
    let page = page.map(|task| task.row_json(world.lists_as_running(task)));
    Ok(Reply { data: page.collect(), total })
}

fn class(task: &Task) -> &'static str {
    match task.exit.as_deref() {
        Some("OK") => "ok",
        Some("unexpected status") => "unknown",
        Some(exit) if exit.starts_with("WARNINGS:") => "warning",
        Some(_) => "error",
        None => "running",
    }
}

/// The newest tasks of all nodes.
pub(crate) async fn cluster_list(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let own = call.auth.id();
    let visible = |task: &&Task| {
        let path = format!("/nodes/{}", task.node);
        task.by == own || rights_in(&world, &call.auth, &path).contains("Sys.Audit")
    };
    let rows = world.tasks.iter().rev().filter(visible).take(25).map(|task| {
        let mut row = task.row_json(task.exit.is_none());
        if let Value::Object(members) = &mut row {
            members.remove("pid");
            members.remove("pstart");
            match task.exit {
                Some(_) => members.insert("saved".to_owned(), json!(1)),
                None => members.remove("status"),
            };
        }
        row
    });
    Reply::data(rows.collect())
}
