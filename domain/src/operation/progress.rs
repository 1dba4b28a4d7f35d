//! Where an operation stands between its plan and its end, and which move is next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Command, Direction, Error, Event, Failure, FailureClass, Finding, Site, Volumes};
use crate::plan::Plan;
use crate::value::{ApplicationId, UserId};

/// The state of an operation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub application: ApplicationId,
    pub owner: UserId,
    pub plan: Plan,
    /// Names of all steps, in order.
    pub steps: Vec<String>,
    /// µs since 1970.
    pub deadline: i64,
    pub phase: Phase,
    /// How many steps have succeeded.
    pub succeeded: usize,
    /// Steps that were ever intended and are not taken back yet, in order.
    pub begun: Vec<String>,
    /// The step that is being tried; `None` between steps.
    pub attempt: Option<Attempt>,
    /// What steps have learnt, by step.
    pub findings: BTreeMap<String, Finding>,
    /// Why someone wants it taken back; acted on between steps.
    pub cancel: Option<String>,
    /// Volumes under the number of the container that it makes, from before it made anything; `None`
    /// when nobody has looked.
    #[serde(default)]
    pub stood: Option<Volumes>,
    /// Where that was looked at.
    #[serde(default)]
    pub site: Option<Site>,
}

/// Which way it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Forward,
    Unwinding {
        reason: String,
    },
    /// Remembers which way it went, so that a resumption goes on in the same direction.
    Stuck {
        unwinding: Option<String>,
    },
}

/// A step that was intended and has not succeeded yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub step: String,
    pub direction: Direction,
    /// 1 for the first try.
    pub number: u32,
    /// Proxmox's id of the task that the last try started, if it got that far.
    pub upid: Option<String>,
    /// How the last try failed; `None` while one is under way (or was when the runner died).
    pub failure: Option<Failure>,
    /// µs since 1970 of the next try.
    pub retry_at: Option<i64>,
}

/// What the runner does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Try this step; `number` is the try's number.
    Try { step: String, direction: Direction, number: u32 },
    /// A try was under way when its runner ended, or its outcome is unknown: look, then go on.
    Recover { step: String, direction: Direction, number: u32, upid: Option<String> },
    /// All steps have succeeded.
    Complete,
    /// All begun steps are taken back.
    FinishUndo,
    /// The last failure leaves no further try: turn back, or get stuck.
    GiveUp { step: String, direction: Direction, failure: Failure },
    /// Someone has to act.
    AwaitOperator,
}

impl Progress {
    pub(super) fn new(
        application: ApplicationId,
        owner: UserId,
        plan: Plan,
        steps: Vec<String>,
        deadline: i64,
    ) -> Self {
        Self {
            application,
            owner,
            plan,
            steps,
            deadline,
            phase: Phase::Forward,
            succeeded: 0,
            begun: Vec::new(),
            attempt: None,
            findings: BTreeMap::new(),
            cancel: None,
            stood: None,
            site: None,
        }
    }

    /// The next move, from the state alone.
    pub fn next_move(&self) -> Move {
        let direction = match self.phase {
            Phase::Stuck { .. } => return Move::AwaitOperator,
            Phase::Forward => Direction::Act,
            Phase::Unwinding { .. } => Direction::Undo,
        };
        if let Some(attempt) = self.attempt.as_ref().filter(|a| a.direction == direction) {
            let (step, number) = (attempt.step.clone(), attempt.number);
            return match &attempt.failure {
                None => Move::Recover { step, direction, number, upid: attempt.upid.clone() },
                Some(failure) if attempt.retry_at.is_none() => {
                    Move::GiveUp { step, direction, failure: failure.clone() }
                }
                Some(Failure { class: FailureClass::Unknown, .. }) => {
                    let upid = attempt.upid.clone();
                    Move::Recover { step, direction, number: number + 1, upid }
                }
                Some(_) => Move::Try { step, direction, number: number + 1 },
            };
        }
        match direction {
            Direction::Act => match self.steps.get(self.succeeded) {
                Some(step) => Move::Try { step: step.clone(), direction, number: 1 },
                None => Move::Complete,
            },
            Direction::Undo => match self.begun.last() {
                Some(step) => Move::Try { step: step.clone(), direction, number: 1 },
                None => Move::FinishUndo,
            },
        }
    }

    /// µs since 1970 before which the next try should not begin.
    pub fn not_before(&self) -> Option<i64> {
        self.attempt.as_ref().and_then(|attempt| attempt.retry_at)
    }

    fn under_way(&self, step: &str, direction: Direction) -> Result<&Attempt, Error> {
        self.attempt
            .as_ref()
            .filter(|attempt| attempt.step == step && attempt.direction == direction)
            .ok_or(Error::NotNext)
    }

    pub(super) fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        let stuck = matches!(self.phase, Phase::Stuck { .. });
        match command {
            Command::Plan { .. } => Err(Error::AlreadyPlanned),
            Command::Resume { by, note } if stuck => Ok(vec![Event::Resumed { by, note }]),
            Command::Abandon { by, note } if stuck => Ok(vec![Event::Abandoned { by, note }]),
            Command::Resume { .. } | Command::Abandon { .. } => Err(Error::NotStuck),
            _ if stuck => Err(Error::IsStuck),
            Command::IntendStep { step, direction, stood, site } => match self.next_move() {
                Move::Try { step: next, direction: way, number }
                | Move::Recover { step: next, direction: way, number, .. }
                    if next == step && way == direction =>
                {
                    let attempt = number;
                    Ok(vec![Event::StepIntended { step, direction, attempt, stood, site }])
                }
                _ => Err(Error::NotNext),
            },
            Command::NoteTask { step, direction, upid } => {
                self.under_way(&step, direction)?;
                Ok(vec![Event::TaskStarted { step, direction, upid }])
            }
            Command::SucceedStep { step, direction, found } => {
                let attempt = self.under_way(&step, direction)?.number;
                Ok(vec![Event::StepSucceeded { step, direction, attempt, found }])
            }
            Command::FailStep { step, direction, failure, retry_at } => {
                let attempt = self.under_way(&step, direction)?.number;
                Ok(vec![Event::StepFailed { step, direction, attempt, failure, retry_at }])
            }
            Command::ChangePlan { plan, reason } => {
                Ok(vec![Event::PlanChanged { plan: *plan, reason }])
            }
            Command::Cancel { by, reason } => match (&self.phase, &self.cancel) {
                (Phase::Forward, None) => Ok(vec![Event::CancelRequested { by, reason }]),
                _ => Ok(vec![]),
            },
            Command::Unwind { past_pivot: true, .. } => Err(Error::PastPivot),
            Command::Unwind { reason, past_pivot: false } => match self.phase {
                Phase::Forward => Ok(vec![Event::UnwindingBegan { reason }]),
                Phase::Unwinding { .. } | Phase::Stuck { .. } => Ok(vec![]),
            },
            Command::Complete => match self.next_move() {
                Move::Complete => Ok(vec![Event::Completed]),
                _ => Err(Error::NotNext),
            },
            Command::FinishUndo => match (self.next_move(), &self.phase) {
                (Move::FinishUndo, Phase::Unwinding { reason }) => {
                    Ok(vec![Event::Undone { reason: reason.clone() }])
                }
                _ => Err(Error::NotNext),
            },
            Command::GetStuck { step, direction, reason, instructions } => {
                Ok(vec![Event::Stuck { step, direction, reason, instructions }])
            }
        }
    }

    pub(super) fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::StepIntended { step, direction, attempt: number, stood, site } => {
                if stood.is_some() {
                    (self.stood, self.site) = (stood, site);
                }
                if direction == Direction::Act && !self.begun.contains(&step) {
                    self.begun.push(step.clone());
                }
                // A repeated try goes on with the task of the one before it, if there was one.
                let upid = self
                    .attempt
                    .take()
                    .filter(|last| last.step == step && last.direction == direction)
                    .and_then(|last| last.upid);
                let attempt =
                    Attempt { step, direction, number, upid, failure: None, retry_at: None };
                self.attempt = Some(attempt);
            }
            Event::TaskStarted { upid, .. } => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.upid = Some(upid);
                }
            }
            Event::StepSucceeded { step, direction, found, .. } => {
                self.attempt = None;
                match direction {
                    Direction::Act => {
                        self.succeeded += 1;
                        self.findings.extend(found.map(|found| (step, found)));
                    }
                    Direction::Undo => self.begun.retain(|begun| *begun != step),
                }
            }
            Event::StepFailed { failure, retry_at, .. } => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.failure = Some(failure);
                    attempt.retry_at = retry_at;
                }
            }
            Event::PlanChanged { plan, .. } => {
                // Tries under the old plan say nothing about the new one.
                self.plan = plan;
                self.attempt = None;
                self.stood = None;
                self.site = None;
            }
            Event::CancelRequested { reason, .. } => self.cancel = Some(reason),
            Event::UnwindingBegan { reason } => {
                self.phase = Phase::Unwinding { reason };
                self.attempt = None;
            }
            Event::Stuck { .. } => {
                let unwinding = match self.phase {
                    Phase::Unwinding { reason } => Some(reason),
                    Phase::Stuck { unwinding } => unwinding,
                    Phase::Forward => None,
                };
                self.phase = Phase::Stuck { unwinding };
                self.attempt = None;
            }
            Event::Resumed { .. } => {
                if let Phase::Stuck { unwinding } = self.phase {
                    self.phase =
                        unwinding.map_or(Phase::Forward, |reason| Phase::Unwinding { reason });
                }
                self.attempt = None;
            }
            Event::Planned { .. }
            | Event::Completed
            | Event::Undone { .. }
            | Event::Abandoned { .. } => {}
        }
        self
    }
}
