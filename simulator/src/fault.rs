//! The fault script: which calls go wrong, how, and how often.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::Error;

/// One entry of the script. The first entry that fires on a call decides it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRule {
    /// Which calls it is about.
    #[serde(default)]
    pub when: When,
    /// How often it fires.
    #[serde(default)]
    pub times: Times,
    /// What happens.
    pub fault: Fault,
}

impl FaultRule {
    /// Fires once, on the first call that has this effect (such as `container.create`).
    #[must_use]
    pub fn once(effect: &str, fault: Fault) -> Self {
        Self { when: When::effect(effect), times: Times::Once, fault }
    }

    /// Fires on every call that has this effect.
    #[must_use]
    pub fn forever(effect: &str, fault: Fault) -> Self {
        Self { when: When::effect(effect), times: Times::Forever, fault }
    }

    /// Fires on the first `count` calls that have this effect.
    #[must_use]
    pub fn count(effect: &str, count: u64, fault: Fault) -> Self {
        Self { when: When::effect(effect), times: Times::Count(count), fault }
    }
}

/// Which calls a rule is about; what is absent matches everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: Option<String>,
    /// A regular expression on the path below `/api2/json`, decoded.
    pub path: Option<String>,
    /// The name of the call's effect, such as `container.create`; see `effects()`.
    pub effect: Option<String>,
    /// Not before the n-th call that matches, counted from 1 since the rule was added.
    pub nth: Option<u64>,
    /// The chance of each call, drawn from the seed.
    pub probability: Option<f64>,
}

impl When {
    /// Calls of one effect.
    #[must_use]
    pub fn effect(name: &str) -> Self {
        Self { effect: Some(name.to_owned()), ..Self::default() }
    }
}

/// How often a rule fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// On one call.
    #[default]
    Once,
    /// On this many calls.
    Count(u64),
    /// On every call.
    Forever,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// An error reply: 4xx, 500, or the pseudo codes 595, 596 and 599, whose body is empty.
    Status {
        /// The status code.
        status: u16,
        /// The reason phrase; a usual one when absent.
        #[serde(default)]
        reason: Option<String>,
        /// Whether the call was carried out nevertheless.
        #[serde(default)]
        after_effect: bool,
    },
    /// The connection is closed and nothing was done.
    NoReplyBeforeEffect,
    /// Everything was done, and the connection is closed without a reply.
    NoReplyAfterEffect,
    /// Everything was done, and the reply breaks off in the middle of its body.
    CutMidBody,
    /// The call is carried out twice, as a repeating proxy would.
    AppliedTwice {
        /// Whether the answer is that of the second run.
        #[serde(default)]
        second_answer: bool,
    },
    /// Everything was done; the data have wrong types (a list for an object, a text for a number).
    WrongTypes,
    /// Everything was done; the reply is truncated JSON of the announced length.
    MalformedJson,
    /// Everything was done; the reply is an HTML page with status 200.
    HtmlPage,
    /// Everything was done; the reply is `{"data":null}`.
    NullData,
    /// Everything was done; the reply is `{"data":[]}`.
    EmptyList,
    /// Everything was done; the reply is a text of this many bytes.
    HugeReply {
        /// Length of the body.
        bytes: usize,
    },
    /// A 401 although the credential is good; delayed like every 401.
    Unauthorized,
    /// The call is held up before it is carried out.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// The task that the call starts hangs until it is aborted or the faults are cleared.
    TaskNeverEnds {
        /// Whether it hangs after its work is done.
        #[serde(default)]
        after_effect: bool,
    },
    /// The worker of the task dies: `unexpected status`, and its locks stay.
    TaskDies {
        /// Whether it dies after its work is done.
        #[serde(default)]
        after_effect: bool,
    },
    /// The worker of the task dies half-way, if its work can be left half done: a destruction whose
    /// disks are gone leaves a configuration that is the lock `destroyed` and nothing else.
    TaskDiesMidway,
    /// The worker of a creation, a copy or a restore dies when it has made so many disks: they stay, and
    /// the configuration names none of them.
    TaskDiesAfterDisks {
        /// Counted from 1.
        disks: usize,
        /// Whether the call that began it gets no reply, so that nobody is told of the task.
        #[serde(default)]
        unseen: bool,
    },
    /// The task ends in an error text and undoes what it had begun.
    TaskFails {
        /// The exit status.
        text: String,
        /// Whether it fails after its work is done, which then stays.
        #[serde(default)]
        after_effect: bool,
    },
    /// The task does its work and ends in `WARNINGS: 1`.
    TaskWarns,
}

impl Fault {
    /// Whether the fault strikes the task instead of the call.
    pub(crate) fn strikes_task(&self) -> bool {
        matches!(
            self,
            Self::TaskNeverEnds { .. }
                | Self::TaskDies { .. }
                | Self::TaskDiesMidway
                | Self::TaskDiesAfterDisks { .. }
                | Self::TaskFails { .. }
                | Self::TaskWarns
        )
    }
}

/// A rule with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    /// Its number, in the order of adding.
    pub id: u64,
    /// The rule.
    pub rule: FaultRule,
    /// Calls that matched it.
    pub seen: u64,
    /// Calls that it struck.
    pub fired: u64,
}

struct Entry {
    state: RuleState,
    path: Option<Regex>,
    /// How often each call was drawn for, so that the draw does not depend on the order of others.
    draws: BTreeMap<String, u64>,
}

/// The script of one simulator.
pub struct Faults {
    seed: u64,
    entries: Mutex<(u64, Vec<Entry>)>,
    lift: watch::Sender<u64>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, entries: Mutex::new((0, Vec::new())), lift: watch::channel(0).0 }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Vec<Entry>)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule behind those that are there, and returns its number.
    ///
    /// # Errors
    /// `Error::Pattern` if its path is not a regular expression.
    pub fn add(&self, rule: FaultRule) -> Result<u64, Error> {
        let path = rule.when.path.as_deref().map(Regex::new).transpose()?;
        let mut entries = self.lock();
        entries.0 += 1;
        let id = entries.0;
        let state = RuleState { id, rule, seen: 0, fired: 0 };
        entries.1.push(Entry { state, path, draws: BTreeMap::new() });
        Ok(id)
    }

    /// The rules and how often each fired.
    #[must_use]
    pub fn list(&self) -> Vec<RuleState> {
        self.lock().1.iter().map(|entry| entry.state.clone()).collect()
    }

    /// How many calls were struck, over all rules that are there.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.lock().1.iter().map(|entry| entry.state.fired).sum()
    }

    /// Removes one rule; `false` if it is not there.
    pub fn remove(&self, id: u64) -> bool {
        let mut entries = self.lock();
        let before = entries.1.len();
        entries.1.retain(|entry| entry.state.id != id);
        entries.1.len() < before
    }

    /// Removes every rule and lets hanging tasks go on.
    pub fn clear(&self) {
        self.lock().1.clear();
        self.lift.send_modify(|count| *count += 1);
    }

    /// Resolves when the faults are cleared after this call.
    pub(crate) fn lifted(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut lifts = self.lift.subscribe();
        async move {
            if lifts.changed().await.is_err() {
                // The simulator is gone, and with it the task.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What strikes this call, if anything does.
    pub(crate) fn decide(&self, method: &str, path: &str, effect: &str) -> Option<Fault> {
        let mut entries = self.lock();
        let mut struck = None;
        for entry in &mut entries.1 {
            let when = &entry.state.rule.when;
            let matches = when.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && when.effect.as_deref().is_none_or(|name| name == effect)
                && entry.path.as_ref().is_none_or(|pattern| pattern.is_match(path));
            if !matches {
                continue;
            }
            entry.state.seen += 1;
            let limit = match entry.state.rule.times {
                Times::Once => 1,
                Times::Count(count) => count,
                Times::Forever => u64::MAX,
            };
            if struck.is_some()
                || entry.state.fired >= limit
                || when.nth.is_some_and(|nth| entry.state.seen < nth)
            {
                continue;
            }
            if let Some(probability) = when.probability {
                let call = format!("{method} {path}");
                let count = entry.draws.entry(call.clone()).or_default();
                *count += 1;
                if draw(self.seed, entry.state.id, &call, *count) >= probability {
                    continue;
                }
            }
            entry.state.fired += 1;
            struck = Some(entry.state.rule.fault.clone());
        }
        struck
    }
}

/// A number in 0..1 that depends on nothing but its arguments.
fn draw(seed: u64, rule: u64, call: &str, count: u64) -> f64 {
    let digest = Sha256::digest(format!("{seed}/{rule}/{call}/{count}"));
    let mut bytes = [0u8; 4];
    bytes.copy_from_slice(&digest[..4]);
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(when: When, times: Times) -> FaultRule {
        FaultRule { when, times, fault: Fault::NoReplyBeforeEffect }
    }

    #[test]
    fn the_nth_call_is_struck_once() {
        let faults = Faults::new(1);
        faults
            .add(rule(When { nth: Some(3), ..When::effect("container.create") }, Times::Once))
            .unwrap();
        let struck: Vec<bool> = (0..5)
            .map(|_| faults.decide("POST", "/nodes/a/lxc", "container.create").is_some())
            .collect();
        assert_eq!(struck, [false, false, true, false, false]);
        assert!(
            faults.decide("POST", "/nodes/a/lxc/100/status/start", "container.start").is_none()
        );
        assert_eq!(faults.list()[0].seen, 5);
    }

    #[test]
    fn a_probability_strikes_the_same_calls_for_the_same_seed() {
        let run = |seed| {
            let faults = Faults::new(seed);
            let when = When { probability: Some(0.3), ..When::default() };
            faults.add(rule(when, Times::Forever)).unwrap();
            (0..1_000)
                .map(|n| faults.decide("GET", &format!("/nodes/{n}"), "node.status").is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let share = run(7).iter().filter(|struck| **struck).count();
        assert!((250..350).contains(&share), "{share} of 1000");
    }

    #[test]
    fn the_first_rule_that_fires_decides_and_a_bad_pattern_is_refused() {
        let faults = Faults::new(1);
        faults.add(FaultRule::once("x", Fault::WrongTypes)).unwrap();
        faults.add(FaultRule::forever("x", Fault::HtmlPage)).unwrap();
        assert_eq!(faults.decide("GET", "/", "x"), Some(Fault::WrongTypes));
        assert_eq!(faults.decide("GET", "/", "x"), Some(Fault::HtmlPage));
        let bad = When { path: Some("(".to_owned()), ..When::default() };
        assert!(faults.add(rule(bad, Times::Once)).is_err());
        faults.clear();
        assert_eq!(faults.decide("GET", "/", "x"), None);
    }

    #[test]
    fn a_rule_reads_from_json_as_the_control_surface_takes_it() {
        let text = r#"{"when":{"method":"POST","path":"/lxc$","probability":0.5},
            "times":{"count":3},"fault":{"kind":"status","status":596}}"#;
        let rule: FaultRule = serde_json::from_str(text).unwrap();
        assert_eq!(rule.times, Times::Count(3));
        assert_eq!(rule.fault, Fault::Status { status: 596, reason: None, after_effect: false });
        let plain: FaultRule =
            serde_json::from_str(r#"{"fault":{"kind":"no_reply_after_effect"}}"#).unwrap();
        assert_eq!(plain.times, Times::Once);
    }
}
