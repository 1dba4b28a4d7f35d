//! Judges a log event by event: what was stored has to be what could have been decided.
//!
//! Leases, operations and applications are judged by their aggregates: each event is held against what
//! the aggregate, folded so far, would have decided. What holds between streams is judged at the end.
//! In memory is what lives at that moment, and one number for each stream.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use cqrs_es::{Aggregate, DomainEvent};
use proximity_domain::application::Application;
use proximity_domain::backup::Backup;
use proximity_domain::backup_run::BackupRun;
use proximity_domain::backup_schedule::BackupSchedule;
use proximity_domain::host::Host;
use proximity_domain::keys::Keys;
use proximity_domain::lease::{Error as LeaseError, Event as LeaseEvent, Holder, Lease};
use proximity_domain::log::Log;
use proximity_domain::operation::Operation;
use proximity_domain::settings::Settings;
use proximity_domain::user::{ApiToken, Session, User};
use proximity_domain::{admin_action, known, refusal, secret_use};
use proximity_eventstore::{Position, Recorded};
use serde::Serialize;

use super::law;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where in the log; `None` for what only shows at the end.
    pub position: Option<Position>,
    /// What it is about: a stream, or a row of a read model.
    pub subject: String,
    /// What is wrong, as a sentence.
    pub problem: String,
}

/// How many findings are kept; beyond, they are counted.
const KEPT: usize = 100;

/// What was found, the first of it in full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub total: u64,
    /// The first hundred.
    pub first: Vec<Finding>,
}

impl Findings {
    /// Adds others.
    pub fn append(&mut self, others: Self) {
        self.total += others.total;
        let room = KEPT.saturating_sub(self.first.len());
        self.first.extend(others.first.into_iter().take(room));
    }

    pub(super) fn note(
        &mut self,
        position: Option<Position>,
        subject: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.total += 1;
        if self.first.len() < KEPT {
            let (subject, problem) = (subject.into(), problem.into());
            self.first.push(Finding { position, subject, problem });
        }
    }
}

/// What the log says so far.
#[derive(Default)]
pub(super) struct Judge {
    pub findings: Findings,
    /// The last position that was seen.
    pub position: Position,
    /// The last event's time.
    pub recorded_at: i64,
    /// Tells streams apart by a number, so that ended ones cost next to nothing.
    hasher: RandomState,
    sequences: HashMap<u64, u64>,
    leases: HashMap<String, Lease>,
    operations: HashMap<String, Operation>,
    applications: HashMap<String, Application>,
    hosts: HashMap<String, Host>,
    users: HashMap<String, User>,
    others: Others,
}

/// Streams that are folded for nothing but that they can be.
#[derive(Default)]
struct Others {
    backups: HashMap<String, Backup>,
    schedules: HashMap<String, BackupSchedule>,
    runs: HashMap<String, BackupRun>,
    settings: HashMap<String, Settings>,
    keys: HashMap<String, Keys>,
    log: HashMap<String, Log>,
}

impl Judge {
    /// Takes the next event.
    pub fn take(&mut self, event: &Recorded) {
        if event.position != self.position + 1 {
            let problem = format!("position {} follows {}", event.position, self.position);
            self.findings.note(Some(event.position), "the log", problem);
        }
        self.position = event.position;
        self.recorded_at = event.recorded_at;
        let stream = (event.aggregate_type.as_str(), event.aggregate_id.as_str());
        let last = self.sequences.entry(self.hasher.hash_one(stream)).or_default();
        let follows = *last;
        *last = event.sequence;
        if event.sequence != follows + 1 {
            self.wrong(event, format!("event {} of its stream follows {follows}", event.sequence));
        }
        self.metadata(event);
        if !known::is_known(&event.event_type, &event.event_version) {
            let (name, version) = (&event.event_type, &event.event_version);
            self.wrong(event, format!("{name} has version {version}, which is not known"));
            return;
        }
        if let Err(problem) = self.fold(event) {
            self.wrong(event, problem);
        }
    }

    fn wrong(&mut self, event: &Recorded, problem: impl Into<String>) {
        let subject = format!("{}/{}", event.aggregate_type, event.aggregate_id);
        self.findings.note(Some(event.position), subject, problem);
    }

    /// Every event says who did it, what was asked for, and what it belongs to.
    fn metadata(&mut self, event: &Recorded) {
        #[derive(serde::Deserialize)]
        struct Said<'a> {
            #[serde(borrow, default)]
            actor: std::borrow::Cow<'a, str>,
            #[serde(borrow, default)]
            command: std::borrow::Cow<'a, str>,
        }
        match serde_json::from_str::<Said<'_>>(&event.metadata) {
            Ok(said) if said.actor.is_empty() || said.command.is_empty() => {
                self.wrong(event, "its metadata does not say who did what");
            }
            Ok(_) => {}
            Err(error) => self.wrong(event, format!("its metadata cannot be read: {error}")),
        }
    }

    fn fold(&mut self, event: &Recorded) -> Result<(), String> {
        match event.aggregate_type.as_str() {
            "lease" => self.lease(event),
            "operation" => self.operation(event),
            "application" => self.application(event),
            "host" => keep(&mut self.hosts, event, |host| host.registration().is_some()),
            "user" => keep(&mut self.users, event, |_| true),
            "backup" => keep(&mut self.others.backups, event, |one| *one != Backup::Deleted),
            "backup_schedule" => {
                keep(&mut self.others.schedules, event, |one| *one != BackupSchedule::Deleted)
            }
            "backup_run" => keep(&mut self.others.runs, event, |run| run.open().is_some()),
            "settings" => keep(&mut self.others.settings, event, |_| true),
            "keys" => keep(&mut self.others.keys, event, |_| true),
            "log" => keep(&mut self.others.log, event, |_| true),
            "session" => read::<<Session as Aggregate>::Event>(event).map(drop),
            "api_token" => read::<<ApiToken as Aggregate>::Event>(event).map(drop),
            "admin_action" => read::<admin_action::Event>(event).map(drop),
            "refusal" => read::<refusal::Event>(event).map(drop),
            "secret_use" => read::<secret_use::Event>(event).map(drop),
            other => Err(format!("there is no kind of stream {other:?}")),
        }
    }

    fn lease(&mut self, event: &Recorded) -> Result<(), String> {
        let said: LeaseEvent = read(event)?;
        let lease = self.leases.remove(&event.aggregate_id).unwrap_or_default();
        let judged = lease.decide(law::of_lease(&said));
        let verdict = match (judged, &said) {
            (Ok(decided), _) if decided == [said.clone()] => Ok(()),
            (Err(LeaseError::Held { by }), LeaseEvent::Acquired { holder }) => {
                Err(format!("{} took it while {} held it", name_of(holder), name_of(&by)))
            }
            (Ok(_), LeaseEvent::Acquired { holder }) => {
                Err(format!("{} took what it held already", name_of(holder)))
            }
            (Ok(_), _) => Err(format!("{} of what is not held", event.event_type)),
            (Err(error), _) => Err(format!("{}, although {error}", event.event_type)),
        };
        let lease = lease.evolve(said);
        if lease != Lease::Free {
            self.leases.insert(event.aggregate_id.clone(), lease);
        }
        verdict
    }

    fn operation(&mut self, event: &Recorded) -> Result<(), String> {
        let said = read(event)?;
        let operation = self.operations.remove(&event.aggregate_id).unwrap_or_default();
        let verdict = match operation.decide(law::of_operation(&said)) {
            Ok(decided) if decided == [said.clone()] => Ok(()),
            Ok(decided) => Err(format!(
                "{} is no legal next step; that would be {decided:?}",
                event.event_type
            )),
            // What has ended is not kept, and looks as if it had never been planned.
            Err(error) => Err(format!("{} is no legal next step: {error}", event.event_type)),
        };
        let operation = operation.evolve(said);
        if operation.progress().is_some() {
            self.operations.insert(event.aggregate_id.clone(), operation);
        }
        verdict
    }

    fn application(&mut self, event: &Recorded) -> Result<(), String> {
        let said = read(event)?;
        let application = self.applications.remove(&event.aggregate_id).unwrap_or_default();
        let verdict = match application.decide(law::of_application(&said)) {
            Ok(decided) if decided == [said.clone()] => Ok(()),
            Ok(_) => Err(format!("{} is not what could happen then", event.event_type)),
            Err(error) => Err(format!("{} could not happen then: {error}", event.event_type)),
        };
        let application = application.evolve(said);
        if !matches!(application, Application::Absent | Application::Removed) {
            self.applications.insert(event.aggregate_id.clone(), application);
        }
        verdict
    }

    /// What has to hold between streams, now that the last append is complete.
    pub fn close(&mut self) {
        let mut found = Vec::new();
        for (key, lease) in &self.leases {
            let Some(holder) = lease.holder() else { continue };
            if !self.may_hold(holder) {
                let problem = format!("{} holds it and does not live", name_of(holder));
                found.push((format!("lease/{key}"), problem));
            }
        }
        for (id, application) in &self.applications {
            if let Some(current) = application.current() {
                let operation = current.operation.to_string();
                if !self.operations.contains_key(&operation) {
                    let problem =
                        format!("it is reserved for operation {operation}, which has ended");
                    found.push((format!("application/{id}"), problem));
                }
            }
            let Some(live) = application.live() else { continue };
            let (guest, holdings) = (&live.requested.guest, &live.requested.holdings);
            for key in holdings.leases(&guest.cluster).into_iter().chain([guest.vmid_lease()]) {
                let lease = self.leases.get(&key.to_string());
                let holds = lease.and_then(Lease::holder).is_some_and(
                    |holder| matches!(holder, Holder::Application(holder) if holder.as_str() == id),
                );
                if !holds {
                    found.push((format!("application/{id}"), format!("it does not hold {key}")));
                }
            }
        }
        for (id, operation) in &self.operations {
            let Some(progress) = operation.progress() else { continue };
            let application = self.applications.get(progress.application.as_str());
            let reserved = application
                .and_then(Application::current)
                .is_some_and(|current| current.operation.to_string() == *id);
            if !reserved && !progress.plan.is_detached() {
                let problem = format!("{} is not reserved for it", progress.application);
                found.push((format!("operation/{id}"), problem));
            }
        }
        found.sort();
        for (subject, problem) in found {
            self.findings.note(None, subject, problem);
        }
    }

    /// An application holds while it lives, or while an operation works on it or is stuck.
    fn may_hold(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Application(id) => match self.applications.get(id.as_str()) {
                Some(Application::Live(_)) => true,
                Some(other) => other.current().is_some_and(|current| {
                    self.operations.contains_key(&current.operation.to_string())
                }),
                None => false,
            },
            Holder::Operation(id) => self.operations.contains_key(&id.to_string()),
            Holder::User(id) => self.users.contains_key(&id.to_string()),
            Holder::Host(id) => self.hosts.contains_key(&id.to_string()),
        }
    }
}

fn name_of(holder: &Holder) -> String {
    match holder {
        Holder::Application(id) => format!("application/{id}"),
        Holder::Operation(id) => format!("operation/{id}"),
        Holder::User(id) => format!("user/{id}"),
        Holder::Host(id) => format!("host/{id}"),
    }
}

/// The event, if it can be read and is called what it is.
fn read<E: DomainEvent>(event: &Recorded) -> Result<E, String> {
    let read: E = serde_json::from_str(&event.payload)
        .map_err(|error| format!("{} cannot be read: {error}", event.event_type))?;
    if read.event_type() != event.event_type {
        return Err(format!("it is called {} and is {}", event.event_type, read.event_type()));
    }
    Ok(read)
}

/// Folds an event into its stream's state, which is kept for as long as it `lives`.
fn keep<A: Aggregate>(
    states: &mut HashMap<String, A>,
    event: &Recorded,
    lives: impl Fn(&A) -> bool,
) -> Result<(), String> {
    let said = read(event)?;
    let mut state = states.remove(&event.aggregate_id).unwrap_or_default();
    state.apply(said);
    if lives(&state) {
        states.insert(event.aggregate_id.clone(), state);
    }
    Ok(())
}
