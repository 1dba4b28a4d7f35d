//! A second opinion on small histories: stateright's linearizability tester, which knows neither the
//! log nor the reference model that replays it.
//!
//! Linearizability is local: a history is linearizable if and only if that of each object is. The
//! objects are the host names, each with the applications that had it, the default memory, and the
//! names of all hosts together.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

use super::{Call, Command, Outcome, Thing};

/// What came of it.
#[derive(Debug, Default)]
pub struct Linear {
    /// Objects of which calls were made.
    pub objects: usize,
    /// Calls that an order was sought for.
    pub calls: usize,
    /// Calls that were turned away or read too early, which says nothing of the order.
    pub left_out: usize,
    /// The objects whose calls cannot have happened one after the other, with those calls.
    pub anomalies: Vec<String>,
}

/// Seeks an order in which calls made one after the other would have been answered as these were, each
/// at some moment between its sending and its answer. Clones concern two host names and are not taken.
///
/// # Panics
///
/// If a call names an application that no deployment of this history made.
pub fn linearize(calls: &[Call], hosts: &BTreeMap<i64, String>, memory: i64) -> Linear {
    let mut linear = Linear::default();
    let mut objects: BTreeMap<String, Vec<&Call>> = BTreeMap::new();
    let names = names(calls);
    for call in calls {
        if call.is_turned_away() || is_too_early(call) || is_overtaken(call) {
            linear.left_out += 1;
            continue;
        }
        linear.calls += 1;
        objects.entry(object(call, &names)).or_default().push(call);
    }
    linear.objects = objects.len();
    for (name, calls) in objects {
        let state = State { hosts: hosts.clone(), memory, apps: BTreeMap::new(), holder: None };
        if !tester(state, &calls).is_consistent() {
            linear.anomalies.push(format!("{name}: no order explains {calls:#?}"));
        }
    }
    linear
}

/// Each application's host name, by the answers to its deployments.
fn names(calls: &[Call]) -> BTreeMap<&str, String> {
    let deployed = calls.iter().filter_map(|call| match (&call.command, &call.outcome) {
        (Command::Deploy { hostname }, Outcome::Ok { body, .. }) => {
            Some((body["id"].as_str()?, folded(hostname)))
        }
        _ => None,
    });
    deployed.collect()
}

fn folded(hostname: &str) -> String {
    hostname.to_lowercase().trim_end_matches('.').to_owned()
}

fn object(call: &Call, names: &BTreeMap<&str, String>) -> String {
    match &call.command {
        Command::Deploy { hostname } => folded(hostname),
        Command::Act { app, .. }
        | Command::Backup { app }
        | Command::Read { thing: Thing::App(app), .. } => names[app.as_str()].clone(),
        Command::Memory { .. } | Command::Read { thing: Thing::Memory, .. } => "memory".to_owned(),
        Command::RenameHost { .. } | Command::Read { thing: Thing::HostName(_), .. } => {
            "names of hosts".to_owned()
        }
        Command::Clone { .. } => panic!("{call:?} concerns two objects"),
    }
}

/// A server that stops waiting for its views answers with an older state, and says so.
fn is_too_early(call: &Call) -> bool {
    matches!((&call.command, &call.outcome),
        (Command::Read { since, .. }, Outcome::Ok { position, .. }) if position < since)
}

/// It was asked to change what moved while it was at work, and did not.
fn is_overtaken(call: &Call) -> bool {
    call.code() == Some("host.changed_meanwhile")
}

/// All calls of one object, and for each operation that they began its end, which nobody calls. It
/// comes at some time after the call was sent; where the caller learnt nothing, perhaps never.
fn tester(state: State, calls: &[&Call]) -> LinearizabilityTester<usize, Spec> {
    assert!(calls.len() <= 64, "{} calls of one object are too many", calls.len());
    let spec = Spec { state, done: 0, tried: Rc::default() };
    // At one moment everything is sent before anything is answered: what is not known is allowed.
    let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        moments.push((call.invoked, false, index));
        if let (Some(returned), Some(_)) = (call.returned, answer(call)) {
            moments.push((returned, true, index));
        }
    }
    moments.sort_unstable();
    let mut tester = LinearizabilityTester::new(spec);
    let mut ends = Vec::new();
    for (_, is_answer, index) in moments {
        let call = calls[index];
        if is_answer {
            let answer = answer(call).expect("only answered calls are entered so");
            tester.on_return(index, answer).expect("it was sent");
            continue;
        }
        let op = Op::of(call);
        let answer = answer(call);
        let end = op.end().filter(|_| matches!(answer, Some(Answer::Accepted) | None));
        let numbered = |thread: usize, op| (thread, Numbered { bit: 1 << thread, op });
        let (thread, op) = numbered(index, op);
        tester.on_invoke(thread, op).expect("each call is a thread of its own");
        if let Some(end) = end {
            let (thread, end) = numbered(calls.len() + index, end);
            tester.on_invoke(thread, end).expect("so is the end of its operation");
            ends.extend(answer.map(|_| thread));
        }
    }
    for thread in ends {
        tester.on_return(thread, Answer::Done).expect("it was sent");
    }
    tester
}

/// What the caller was told; `None` when it learnt nothing.
fn answer(call: &Call) -> Option<Answer> {
    match (&call.outcome, &call.command) {
        (Outcome::Fail { code, .. }, _) => Some(Answer::Refused(code.clone())),
        (Outcome::Ok { body, .. }, Command::Read { thing, .. }) => Some(match thing {
            Thing::Memory => Answer::Number(body["default_memory_mb"].as_i64()?),
            Thing::HostName(_) => Answer::Text(body["name"].as_str()?.to_owned()),
            Thing::App(_) => Answer::Text(body["status"].as_str()?.to_owned()),
        }),
        (Outcome::Ok { .. }, Command::RenameHost { .. } | Command::Memory { .. }) => {
            Some(Answer::Done)
        }
        (Outcome::Ok { operation, .. }, _) => {
            Some(if operation.is_some() { Answer::Accepted } else { Answer::Done })
        }
        (Outcome::Gone | Outcome::Info, _) => None,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// An operation does it.
    Accepted,
    /// It is so now.
    Done,
    Refused(String),
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone)]
enum Op {
    /// The application's id, or the call's key where nobody learnt it.
    Deploy {
        id: String,
        by: Caller,
    },
    /// `key` is the call's, and names the operation that it begins.
    Act {
        app: String,
        kind: &'static str,
        key: String,
        by: Caller,
    },
    ReadApp {
        app: String,
        by: Caller,
    },
    /// The operation that this call began has ended.
    End {
        app: String,
        key: String,
    },
    SetMemory(i64),
    ReadMemory,
    Rename {
        host: i64,
        name: String,
    },
    ReadName(i64),
}

#[derive(Debug, Clone, Copy)]
struct Caller {
    id: i64,
    is_admin: bool,
}

impl Op {
    fn of(call: &Call) -> Self {
        let by = Caller { id: call.caller, is_admin: call.is_admin };
        let key = call.key.clone();
        match &call.command {
            Command::Deploy { .. } => {
                let id = match &call.outcome {
                    Outcome::Ok { body, .. } => body["id"].as_str().map(str::to_owned),
                    _ => None,
                };
                Self::Deploy { id: id.unwrap_or(key), by }
            }
            Command::Act { app, action } => Self::Act { app: app.clone(), kind: action, key, by },
            Command::Backup { app } => Self::Act { app: app.clone(), kind: "backup", key, by },
            Command::Read { thing: Thing::App(app), .. } => Self::ReadApp { app: app.clone(), by },
            Command::Read { thing: Thing::Memory, .. } => Self::ReadMemory,
            Command::Read { thing: Thing::HostName(host), .. } => Self::ReadName(*host),
            Command::Memory { megabytes } => Self::SetMemory(*megabytes),
            Command::RenameHost { host, name } => Self::Rename { host: *host, name: name.clone() },
            Command::Clone { .. } => panic!("{call:?} concerns two objects"),
        }
    }

    /// The end of the operation that it may begin.
    fn end(&self) -> Option<Self> {
        match self {
            Self::Deploy { id, .. } => Some(Self::End { app: id.clone(), key: id.clone() }),
            Self::Act { app, key, .. } => Some(Self::End { app: app.clone(), key: key.clone() }),
            _ => None,
        }
    }
}

/// A call or an end, and the bit that stands for it.
#[derive(Debug, Clone)]
struct Numbered {
    bit: u128,
    op: Op,
}

/// One object while an order of its calls is tried. The tester goes into the depth and stops at the
/// first order that fits, so whatever was tried before cannot be gone on with to any; remembering it
/// keeps calls that do not touch each other from being tried in all their orders.
#[derive(Debug, Clone)]
struct Spec {
    state: State,
    /// Calls and ends that came already.
    done: u128,
    tried: Rc<RefCell<HashSet<(u128, State)>>>,
}

impl SequentialSpec for Spec {
    type Op = Numbered;
    type Ret = Answer;

    fn invoke(&mut self, Numbered { bit, op }: &Numbered) -> Answer {
        self.done |= bit;
        self.state.invoke(op)
    }

    fn is_valid_step(&mut self, op: &Numbered, answer: &Answer) -> bool {
        self.invoke(op) == *answer
            && self.tried.borrow_mut().insert((self.done, self.state.clone()))
    }
}

/// One object as calls made one after the other would find it; only its own parts are ever touched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    memory: i64,
    hosts: BTreeMap<i64, String>,
    /// Applications that have or had the host name.
    apps: BTreeMap<String, App>,
    /// Whose the host name is.
    holder: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct App {
    owner: i64,
    is_running: bool,
    /// What is being done to it, and under which key it was asked for.
    current: Option<(&'static str, String)>,
}

impl State {
    fn seen(&mut self, app: &str, by: Caller) -> Result<&mut App, Answer> {
        let app = self.apps.get_mut(app).filter(|app| by.is_admin || app.owner == by.id);
        app.ok_or_else(|| Answer::Refused("not_found".to_owned()))
    }

    fn act(
        &mut self,
        app: &str,
        kind: &'static str,
        key: &str,
        by: Caller,
    ) -> Result<Answer, Answer> {
        let refused = |code: &str| Err(Answer::Refused(code.to_owned()));
        let app = self.seen(app, by)?;
        if app.current.is_some() {
            return refused("application.busy");
        }
        match (kind, app.is_running) {
            ("start", true) | ("stop", false) => return Ok(Answer::Done),
            ("restart", false) => return refused("application.not_running"),
            _ => app.current = Some((kind, key.to_owned())),
        }
        Ok(Answer::Accepted)
    }

    fn show(&mut self, app: &str, by: Caller) -> Result<Answer, Answer> {
        let app = self.seen(app, by)?;
        let status = match app.current {
            Some(("deploy", _)) => "deploying",
            Some(("delete", _)) => "removing",
            Some(_) => "updating",
            None if app.is_running => "running",
            None => "stopped",
        };
        Ok(Answer::Text(status.to_owned()))
    }

    /// `None` when that operation does not run.
    fn end(&mut self, id: &str, key: &str) -> Option<()> {
        let app = self.apps.get_mut(id)?;
        let (kind, _) = app.current.take_if(|(_, by)| by == key)?;
        match kind {
            "deploy" | "start" | "restart" => app.is_running = true,
            "stop" => app.is_running = false,
            "delete" => {
                self.apps.remove(id);
                self.holder.take_if(|holder| holder == id);
            }
            _ => {}
        }
        Some(())
    }

    fn invoke(&mut self, op: &Op) -> Answer {
        match op {
            Op::Deploy { .. } if self.holder.is_some() => {
                Answer::Refused("hostname.taken".to_owned())
            }
            Op::Deploy { id, by } => {
                self.holder = Some(id.clone());
                let current = Some(("deploy", id.clone()));
                self.apps.insert(id.clone(), App { owner: by.id, is_running: false, current });
                Answer::Accepted
            }
            Op::Act { app, kind, key, by } => {
                self.act(app, kind, key, *by).unwrap_or_else(|refused| refused)
            }
            Op::ReadApp { app, by } => self.show(app, *by).unwrap_or_else(|refused| refused),
            Op::End { app, key } => match self.end(app, key) {
                Some(()) => Answer::Done,
                None => Answer::Refused("it does not run".to_owned()),
            },
            Op::SetMemory(megabytes) => {
                self.memory = *megabytes;
                Answer::Done
            }
            Op::ReadMemory => Answer::Number(self.memory),
            Op::Rename { host, name } => {
                let is_same = |other: &String| other.to_lowercase() == name.to_lowercase();
                if self.hosts.iter().any(|(id, other)| id != host && is_same(other)) {
                    return Answer::Refused("host.name_taken".to_owned());
                }
                self.hosts.insert(*host, name.clone());
                Answer::Done
            }
            Op::ReadName(host) => Answer::Text(self.hosts[host].clone()),
        }
    }
}
