//! Judges a log event by event: what was stored has to be what could have been decided.
//!
//! Whatever has an aggregate is judged by it: each event is held against what the aggregate, folded so
//! far, would have decided. What holds between streams is judged at the end. In memory is what lives at
//! that moment, and one number for each stream.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use cqrs_es::DomainEvent;
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
use proximity_domain::user::{ApiToken, ApiTokenEvent, Session, SessionEvent, User};
use proximity_domain::{LeaseKey, UserId, admin_action, call, known, refusal, secret_use};
use proximity_eventstore::{Position, Recorded};
use serde::Serialize;

use super::law;
use super::said::Said;

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
    pub(super) leases: HashMap<String, Lease>,
    pub(super) operations: HashMap<String, Operation>,
    pub(super) applications: HashMap<String, Application>,
    pub(super) hosts: HashMap<String, Host>,
    pub(super) users: HashMap<String, User>,
    pub(super) backups: HashMap<String, Backup>,
    /// What the append that is being read does for users who were not registered so far.
    unknown: Vec<ForNobody>,
    others: Others,
}

/// An event for a user whom the same append may register: its streams stand in no order of their own.
struct ForNobody {
    event: Recorded,
    user: UserId,
}

/// Streams that nothing else rests on, by their numbers.
#[derive(Default)]
struct Others {
    sessions: HashMap<u64, Session>,
    tokens: HashMap<u64, ApiToken>,
    schedules: HashMap<u64, BackupSchedule>,
    runs: HashMap<u64, BackupRun>,
    settings: HashMap<u64, Settings>,
    keys: HashMap<u64, Keys>,
    log: Log,
}

impl Judge {
    /// Takes the next event.
    pub fn take(&mut self, event: &Recorded) {
        if event.position != self.position + 1 {
            let problem = format!("position {} follows {}", event.position, self.position);
            self.findings.note(Some(event.position), "the log", problem);
        }
        if self.recorded_at != event.recorded_at {
            self.end_append();
        }
        self.position = event.position;
        self.recorded_at = event.recorded_at;
        let stream = (event.aggregate_type.as_str(), event.aggregate_id.as_str());
        let stream = self.hasher.hash_one(stream);
        let last = self.sequences.entry(stream).or_default();
        let follows = *last;
        *last = event.sequence;
        if event.sequence != follows + 1 {
            self.wrong(event, format!("event {} of its stream follows {follows}", event.sequence));
        }
        let said = Said::read(&event.metadata);
        let named = said.as_ref().map_err(Clone::clone).and_then(Said::names_somebody);
        if let Err(problem) = named {
            self.wrong(event, problem);
        }
        let said = said.unwrap_or_default();
        if !known::is_known(&event.event_type, &event.event_version) {
            let (name, version) = (&event.event_type, &event.event_version);
            self.wrong(event, format!("{name} has version {version}, which is not known"));
            return;
        }
        if let Err(problem) = self.fold(event, stream, &said) {
            self.wrong(event, problem);
        }
    }

    fn wrong(&mut self, event: &Recorded, problem: impl Into<String>) {
        let subject = format!("{}/{}", event.aggregate_type, event.aggregate_id);
        self.findings.note(Some(event.position), subject, problem);
    }

    fn fold(&mut self, event: &Recorded, stream: u64, said: &Said<'_>) -> Result<(), String> {
        let id = || event.aggregate_id.clone();
        match event.aggregate_type.as_str() {
            "lease" => self.lease(event),
            "operation" => law::judge(&mut self.operations, id(), event, said)
                .and_then(|()| said.belongs_to(&event.aggregate_id)),
            "application" => law::judge(&mut self.applications, id(), event, said),
            "host" => {
                let verdict = law::judge(&mut self.hosts, id(), event, said);
                verdict.and_then(|()| self.host_is_unused(event))
            }
            "user" => law::judge(&mut self.users, id(), event, said),
            "session" => {
                if let Ok(SessionEvent::Opened { user, .. }) = read(event) {
                    self.needs_user(event, user);
                }
                law::judge(&mut self.others.sessions, stream, event, said)
            }
            "api_token" => {
                if let Ok(ApiTokenEvent::Issued { user, .. }) = read(event) {
                    self.needs_user(event, user);
                }
                law::judge(&mut self.others.tokens, stream, event, said)
            }
            "backup" => law::judge(&mut self.backups, id(), event, said),
            "backup_schedule" => law::judge(&mut self.others.schedules, stream, event, said),
            "backup_run" => law::judge(&mut self.others.runs, stream, event, said),
            "settings" => law::judge(&mut self.others.settings, stream, event, said),
            "keys" => law::judge(&mut self.others.keys, stream, event, said),
            "log" => self.log(event),
            // Nothing is decided by these: what was done or counted is written down as it comes.
            "admin_action" => read::<admin_action::Event>(event).map(drop),
            "call" => read::<call::Event>(event).map(drop),
            "refusal" => read::<refusal::Event>(event).map(drop),
            "secret_use" => read::<secret_use::Event>(event).map(drop),
            other => Err(format!("there is no kind of stream {other:?}")),
        }
    }

    fn log(&mut self, event: &Recorded) -> Result<(), String> {
        let said = read(event)?;
        let verdict = law::of_log(&self.others.log, &said, event);
        self.others.log = std::mem::take(&mut self.others.log).evolve(said);
        verdict
    }

    fn lease(&mut self, event: &Recorded) -> Result<(), String> {
        let said: LeaseEvent = read(event)?;
        let lease = self.leases.remove(&event.aggregate_id).unwrap_or_default();
        let judged = lease.decide(law::of_lease(&said, event.recorded_at));
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
        let key: Result<LeaseKey, _> = event.aggregate_id.parse();
        verdict.and_then(|()| {
            key.map(drop).map_err(|error| format!("it is no lease key: {}", error.message))
        })
    }

    fn needs_user(&mut self, event: &Recorded, user: UserId) {
        if !self.users.contains_key(&user.to_string()) {
            self.unknown.push(ForNobody { event: event.clone(), user });
        }
    }

    /// The append is complete: whoever was not registered by it never was.
    pub(super) fn end_append(&mut self) {
        for ForNobody { event, user } in std::mem::take(&mut self.unknown) {
            if !self.users.contains_key(&user.to_string()) {
                let name = &event.event_type;
                self.wrong(&event, format!("{name} is for user {user}, whom there never was"));
            }
        }
    }
}

/// The stream of who holds a lease.
pub(super) fn name_of(holder: &Holder) -> String {
    match holder {
        Holder::Application(id) => format!("application/{id}"),
        Holder::Operation(id) => format!("operation/{id}"),
        Holder::User(id) => format!("user/{id}"),
        Holder::Host(id) => format!("host/{id}"),
    }
}

/// The event, if it can be read and is called what it is.
pub(super) fn read<E: DomainEvent>(event: &Recorded) -> Result<E, String> {
    let read: E = serde_json::from_str(&event.payload)
        .map_err(|error| format!("{} cannot be read: {error}", event.event_type))?;
    if read.event_type() != event.event_type {
        return Err(format!("it is called {} and is {}", event.event_type, read.event_type()));
    }
    Ok(read)
}
