//! The rules that a history and its log have to keep; the checker knows nothing of how calls were made.
//!
//! 1. Replayed in the log's order through the reference model, each command is accepted or refused as
//!    it was, and each reader was shown a state of the time in which it read.
//! 2. What was acknowledged before something else was asked for stands before it in the log.
//! 3. What was accepted is stored once, what was refused never, what got no answer at most once; and
//!    nothing is stored that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proximity_eventstore::Recorded;
use serde_json::Value;

use super::reference::Meets;
use super::{Call, Command, Outcome, Reference, Thing};

/// The commands whose appends have to be asked for by a call of the history.
const COMMANDS: [&str; 6] = [
    "application.deploy",
    "application.act",
    "application.clone",
    "backup.create",
    "host.change",
    "settings.resources",
];

/// What came of checking.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Sentences about everything that is wrong.
    pub anomalies: Vec<String>,
    pub accepted: usize,
    pub already_so: usize,
    pub refused: usize,
    /// Refused since too much was asked at once; nothing about the state justifies or forbids it.
    pub turned_away: usize,
    pub shown: usize,
    /// No answer came: stored all the same, or not.
    pub unknown: (usize, usize),
    /// Pairs of calls of which one was acknowledged before the other was sent.
    pub ordered: usize,
}

/// The events that one request stored.
#[derive(Debug)]
struct Group {
    first: u64,
    last: u64,
    request: String,
    command: String,
    /// What it asked for, as its events say.
    asked: Option<Command>,
    /// Commands that its events come from: one, if nothing is done twice.
    roots: usize,
    operation: Option<String>,
    claimed: bool,
}

/// Checks a history against the log, which begins at position 1; groups up to `from` were stored
/// before the history began.
pub fn judge(log: &[Recorded], calls: &[Call], from: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut groups = groups(log, from);
    let claims = claim(calls, &mut groups, &mut verdict);
    for group in groups.iter().filter(|group| !group.claimed) {
        verdict.anomalies.push(format!(
            "position {}: nobody asked for this {} once (more)",
            group.first, group.command
        ));
    }
    let order = Order::of(calls, &claims, &groups);
    real_time(calls, &claims, &groups, &order, &mut verdict);
    replay(log, calls, &claims, &groups, &order, &mut verdict);
    verdict
}

fn groups(log: &[Recorded], from: u64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for event in log.iter().filter(|event| event.position > from) {
        let metadata: Value = serde_json::from_str(&event.metadata).unwrap();
        let (request, command) = (metadata["request"].as_str(), metadata["command"].as_str());
        let Some((request, command)) = request.zip(command) else { continue };
        if !COMMANDS.contains(&command) {
            continue;
        }
        let goes_on = groups
            .last()
            .is_some_and(|group| group.request == request && group.last + 1 == event.position);
        if !goes_on {
            groups.push(Group {
                first: event.position,
                last: event.position,
                request: request.to_owned(),
                command: command.to_owned(),
                asked: None,
                roots: 0,
                operation: None,
                claimed: false,
            });
        }
        let group = groups.last_mut().unwrap();
        group.last = event.position;
        group.roots += usize::from(group.take_in(event));
    }
    groups
}

impl Group {
    /// Reads what was asked for from one of its events; whether that event is a command's root.
    fn take_in(&mut self, event: &Recorded) -> bool {
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        let inner = payload.as_object().and_then(|map| map.values().next());
        let text = |pointer: &str| {
            let found = inner.and_then(|inner| inner.pointer(pointer));
            found.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let subject = event.aggregate_id.clone();
        match (event.event_type.as_str(), self.command.as_str()) {
            ("operation.planned", _) => {
                self.operation = Some(subject);
                true
            }
            ("application.requested", "application.deploy") => {
                self.asked = Some(Command::Deploy { hostname: text("/holdings/hostname") });
                false
            }
            ("application.requested", _) => {
                let app = text("/origin/from");
                self.asked = Some(Command::Clone { app, hostname: text("/holdings/hostname") });
                false
            }
            ("application.operation_began", "application.act") => {
                let kind = text("/kind");
                let action = ["start", "stop", "restart", "delete"]
                    .into_iter()
                    .find(|action| *action == kind)
                    .unwrap_or("another");
                self.asked = Some(Command::Act { app: subject, action });
                false
            }
            ("application.operation_began", "backup.create") => {
                self.asked = Some(Command::Backup { app: subject });
                false
            }
            ("host.changed", _) => {
                let host = subject.parse().unwrap_or_default();
                self.asked = Some(Command::RenameHost { host, name: text("/connection/name") });
                true
            }
            ("settings.resources_changed", _) => {
                let memory = inner.and_then(|inner| inner["resources"]["memory"].as_i64());
                self.asked = Some(Command::Memory { megabytes: memory.unwrap_or_default() });
                true
            }
            _ => false,
        }
    }

    fn is_of(&self, command: &Command) -> bool {
        let folded = |name: &str| name.to_lowercase().trim_end_matches('.').to_owned();
        match (self.asked.as_ref(), command) {
            (Some(Command::Deploy { hostname: stored }), Command::Deploy { hostname }) => {
                *stored == folded(hostname)
            }
            (
                Some(Command::Clone { app: from, hostname: stored }),
                Command::Clone { app, hostname },
            ) => from == app && *stored == folded(hostname),
            (Some(stored), asked) => stored == asked,
            (None, _) => false,
        }
    }
}

/// Rule 3. Which group each call stored.
fn claim(calls: &[Call], groups: &mut [Group], verdict: &mut Verdict) -> Vec<Option<usize>> {
    let mut by_request: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut by_operation: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_first: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        by_request.entry(group.request.clone()).or_default().push(index);
        by_first.insert(group.first, index);
        if let Some(operation) = &group.operation {
            by_operation.insert(operation.clone(), index);
        }
        if group.roots != 1 {
            let what = format!("position {}: {} commands in one append", group.first, group.roots);
            verdict.anomalies.push(what);
        }
    }
    let mut claims = vec![None; calls.len()];
    for (call, claim) in calls.iter().zip(&mut claims) {
        let wrong = |what: &str| format!("{} ({:?}) {what}", call.key, call.command);
        if matches!(call.command, Command::Read { .. }) {
            continue;
        }
        // What changed nothing may be kept too, and then names no append of its own.
        let kept = call
            .kept
            .and_then(|first| by_first.get(&first).copied())
            .filter(|index| groups[*index].is_of(&call.command));
        let found = match &call.outcome {
            Outcome::Ok { request, operation, .. } => {
                let own = by_request.get(request).map_or(&[][..], Vec::as_slice);
                if own.len() > 1 {
                    verdict.anomalies.push(wrong("was accepted and is stored more than once"));
                }
                let named = operation.as_ref().and_then(|id| by_operation.get(id).copied());
                let found = own.first().copied().or(named).or(kept);
                if found.is_none() && operation.is_some() {
                    verdict.anomalies.push(wrong("was accepted and is not stored"));
                }
                if named.is_some_and(|named| Some(named) != found) || kept != found {
                    verdict.anomalies.push(wrong("is stored under another operation or key"));
                }
                found
            }
            Outcome::Fail { request, code, .. } => {
                if by_request.contains_key(request) || kept.is_some() {
                    let what = format!("was refused and is stored ({code}, request {request})");
                    verdict.anomalies.push(wrong(&what));
                }
                None
            }
            Outcome::Gone => {
                if kept.is_none() {
                    verdict.anomalies.push(wrong("was said to be carried out and is not stored"));
                }
                kept
            }
            Outcome::Info => {
                let count =
                    if kept.is_some() { &mut verdict.unknown.0 } else { &mut verdict.unknown.1 };
                *count += 1;
                kept
            }
        };
        let Some(index) = found else { continue };
        let group = &mut groups[index];
        if std::mem::replace(&mut group.claimed, true) {
            verdict.anomalies.push(wrong("is stored with another call's append"));
        }
        if !group.is_of(&call.command) {
            let asked = format!("is stored as {:?}", group.asked);
            verdict.anomalies.push(wrong(&asked));
        }
        if let Outcome::Ok { position, .. } = &call.outcome
            && *position != group.last
            && !call.repeated
        {
            let told = format!("was told position {position}, and ends at {}", group.last);
            verdict.anomalies.push(wrong(&told));
        }
        *claim = Some(index);
    }
    claims
}

/// What callers' clocks say about the order.
struct Order {
    /// By the time of the answer: that time, and the greatest position acknowledged by then.
    acknowledged: Vec<(Duration, u64)>,
    /// By the time of sending: that time, and the smallest position of those sent since.
    sent: Vec<(Duration, u64)>,
    head: u64,
}

impl Order {
    fn of(calls: &[Call], claims: &[Option<usize>], groups: &[Group]) -> Self {
        let mut acknowledged = Vec::new();
        let mut sent = Vec::new();
        for (call, claim) in calls.iter().zip(claims) {
            let Some(group) = claim.map(|index| &groups[index]) else { continue };
            sent.push((call.invoked, group.first));
            if let (Some(returned), Outcome::Ok { .. }) = (call.returned, &call.outcome) {
                acknowledged.push((returned, group.last));
            }
        }
        acknowledged.sort_unstable();
        let mut greatest = 0;
        for (_, position) in &mut acknowledged {
            greatest = greatest.max(*position);
            *position = greatest;
        }
        sent.sort_unstable();
        let mut smallest = u64::MAX;
        for (_, position) in sent.iter_mut().rev() {
            smallest = smallest.min(*position);
            *position = smallest;
        }
        Self { acknowledged, sent, head: u64::MAX }
    }

    /// The last position that was acknowledged before this moment.
    fn before(&self, moment: Duration) -> (usize, u64) {
        let count = self.acknowledged.partition_point(|(returned, _)| *returned < moment);
        (count, count.checked_sub(1).map_or(0, |last| self.acknowledged[last].1))
    }

    /// The last position that can have been there at this moment.
    fn until(&self, moment: Duration) -> u64 {
        let next = self.sent.partition_point(|(invoked, _)| *invoked <= moment);
        self.sent.get(next).map_or(self.head, |(_, first)| first.saturating_sub(1))
    }
}

/// Rule 2.
fn real_time(
    calls: &[Call],
    claims: &[Option<usize>],
    groups: &[Group],
    order: &Order,
    verdict: &mut Verdict,
) {
    for (call, claim) in calls.iter().zip(claims) {
        let Some(group) = claim.map(|index| &groups[index]) else { continue };
        let (count, acknowledged) = order.before(call.invoked);
        verdict.ordered += count;
        if acknowledged >= group.first {
            verdict.anomalies.push(format!(
                "{} stands at {}, but {acknowledged} was acknowledged before it was sent",
                call.key, group.first
            ));
        }
    }
}

/// A call whose answer has to have been right at some moment.
struct Watch<'c> {
    call: &'c Call,
    from: u64,
    until: u64,
    justified: bool,
}

impl Watch<'_> {
    fn look(&mut self, model: &Reference, position: u64) {
        if self.justified || position < self.from || position > self.until {
            return;
        }
        self.justified = match (&self.call.outcome, &self.call.command) {
            // It says that the host's stream moved while it was at work; here it just has.
            (Outcome::Fail { code, .. }, _) if code == "host.changed_meanwhile" => {
                position > self.from
            }
            (Outcome::Fail { code, .. }, _) => match model.meets(self.call) {
                Meets::Refuse(why) => why.contains(&code.as_str()),
                Meets::Accept | Meets::AlreadySo => false,
            },
            (Outcome::Ok { body, .. }, Command::Read { thing, .. }) => model.shows(thing, body),
            (Outcome::Ok { .. }, _) => model.meets(self.call) == Meets::AlreadySo,
            (Outcome::Gone | Outcome::Info, _) => true,
        };
    }
}

/// Rule 1.
fn replay(
    log: &[Recorded],
    calls: &[Call],
    claims: &[Option<usize>],
    groups: &[Group],
    order: &Order,
    verdict: &mut Verdict,
) {
    let mut accepted: BTreeMap<u64, &Call> = BTreeMap::new();
    let mut ends: BTreeSet<u64> = groups.iter().map(|group| group.last).collect();
    let mut watches = Vec::new();
    for (call, claim) in calls.iter().zip(claims) {
        match claim.map(|index| &groups[index]) {
            Some(group) => {
                accepted.insert(group.first, call);
                verdict.accepted += usize::from(!matches!(call.outcome, Outcome::Info));
            }
            None => watches.extend(watch(call, order, verdict)),
        }
    }
    let head = log.last().map_or(0, |event| event.position);
    for pair in log.windows(2) {
        // One append shares its metadata and the moment; between two of them others saw the state.
        if pair[0].metadata != pair[1].metadata || pair[0].recorded_at != pair[1].recorded_at {
            ends.insert(pair[0].position);
        }
    }
    ends.insert(head);

    let mut by_subject: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut entering: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, watch) in watches.iter().enumerate() {
        for subject in subjects(&watch.call.command) {
            by_subject.entry(subject).or_default().push(index);
        }
        entering.entry(watch.from.min(head)).or_default().push(index);
    }
    let mut model = Reference::default();
    let mut touched: Vec<String> = Vec::new();
    for index in entering.remove(&0).unwrap_or_default() {
        watches[index].look(&model, 0);
    }
    for event in log {
        if let Some(call) = accepted.get(&event.position) {
            match model.meets(call) {
                Meets::Accept => {}
                otherwise => verdict.anomalies.push(format!(
                    "position {}: {} ({:?}) was accepted, and {otherwise:?}",
                    event.position, call.key, call.command
                )),
            }
        }
        model.apply(event);
        touched.push(format!("{}/{}", event.aggregate_type, event.aggregate_id));
        if ends.contains(&event.position) {
            for subject in touched.drain(..) {
                for index in by_subject.get(&subject).into_iter().flatten() {
                    watches[*index].look(&model, event.position);
                }
            }
        }
        // What was acknowledged is the end of an append, so the state is whole here.
        for index in entering.remove(&event.position).unwrap_or_default() {
            let from = watches[index].from;
            watches[index].look(&model, from);
        }
    }
    verdict.anomalies.append(&mut model.illegal);
    for watch in watches.iter().filter(|watch| !watch.justified) {
        verdict.anomalies.push(format!(
            "{} ({:?}) was answered {:?}, and that was right at no moment from {} to {}",
            watch.call.key, watch.call.command, watch.call.outcome, watch.from, watch.until
        ));
    }
}

fn watch<'c>(call: &'c Call, order: &Order, verdict: &mut Verdict) -> Option<Watch<'c>> {
    let (_, acknowledged) = order.before(call.invoked);
    let mut from = acknowledged;
    let until = call.returned.map_or(u64::MAX, |returned| order.until(returned));
    match (&call.outcome, &call.command) {
        (Outcome::Gone | Outcome::Info, _) => return None,
        (Outcome::Fail { .. }, _) if call.is_turned_away() => {
            verdict.turned_away += 1;
            return None;
        }
        (Outcome::Fail { .. }, _) => verdict.refused += 1,
        (Outcome::Ok { position, .. }, Command::Read { since, .. }) => {
            verdict.shown += 1;
            // A server may stop waiting for its views; then it says how far they are. It says so of
            // what it knows: another one that keeps the same rows may have brought them further.
            from = (*since).min(*position);
        }
        (Outcome::Ok { .. }, _) => verdict.already_so += 1,
    }
    Some(Watch { call, from, until: until.max(from), justified: false })
}

/// The streams on which the answer depends.
fn subjects(command: &Command) -> Vec<String> {
    let hostname =
        |name: &str| format!("lease/hostname/{}", name.to_lowercase().trim_end_matches('.'));
    let application = |app: &str| format!("application/{app}");
    let host = |host: &i64| format!("host/{host}");
    match command {
        Command::Deploy { hostname: name } => vec![hostname(name)],
        Command::Clone { app, hostname: name } => vec![application(app), hostname(name)],
        Command::Act { app, .. }
        | Command::Backup { app }
        | Command::Read { thing: Thing::App(app), .. } => vec![application(app)],
        Command::RenameHost { host: id, name } => {
            vec![host(id), format!("lease/host-name/{}", name.to_lowercase())]
        }
        Command::Read { thing: Thing::HostName(id), .. } => vec![host(id)],
        Command::Memory { .. } | Command::Read { thing: Thing::Memory, .. } => {
            vec!["settings/resources".to_owned()]
        }
    }
}
