//! What a verification saw, as people and programs read it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::Position;
use crate::heads::Gone;

/// Faults that are kept; the rest is counted.
const KEPT: usize = 100;

/// What is not as it was sealed or published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The event at this position has other bytes.
    Changed,
    /// Two sealed events stand in each other's place.
    Swapped,
    /// An event was put in here: those behind it stand one place further.
    Inserted,
    /// A second event stands at this position, or one before the first.
    Duplicated,
    /// The sealed event is gone; or, behind the last block, there is none here, and others follow.
    Removed,
    /// The block does not follow the one before it, or its hash does not cover its leaves.
    BrokenBlock,
    /// The block was not signed by the key that it names.
    BadSignature,
    /// The block names a key that is not trusted.
    UnknownKey,
    /// The log ends before a published head: its tail was cut off, or an old backup put back.
    Cut,
    /// The chain has another block where a head was published: it was written anew.
    Rewritten,
    /// A life of the log that no signed restore explains.
    UnknownLife,
    /// A published head, or a statement beside it, is not signed by a trusted key, or cannot be read.
    ForgedHead,
    /// Something is sealed, and heads of it that were published are gone, or none ever was.
    NoHeads,
    /// There are events, and nothing was ever sealed.
    Unsealed,
}

impl FaultKind {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Swapped => "swapped",
            Self::Inserted => "inserted",
            Self::Duplicated => "duplicated",
            Self::Removed => "removed",
            Self::BrokenBlock => "broken_block",
            Self::BadSignature => "bad_signature",
            Self::UnknownKey => "unknown_key",
            Self::Cut => "cut",
            Self::Rewritten => "rewritten",
            Self::UnknownLife => "unknown_life",
            Self::ForgedHead => "forged_head",
            Self::NoHeads => "no_heads",
            Self::Unsealed => "unsealed",
        }
    }
}

/// One break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    /// Where it begins.
    pub position: Position,
    /// Up to where it may reach: a block or a head stands for more than one event.
    pub to: Position,
    /// A sentence.
    pub detail: String,
}

/// One life of the log, from its start or a restore on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LifeReport {
    pub incarnation: Uuid,
    /// Its sealed events in this log; none when both are 0.
    pub first_position: Position,
    pub last_position: Position,
    /// The newest published head of it, 0 when there is none.
    pub published_to: Position,
    /// Events that were published in this life, and that a restore left behind.
    pub left_behind: u64,
    /// Whether it ended with a signed restore.
    pub restored: bool,
    /// What was said when it began, and what its statement cannot prove; null for a first life.
    pub note: Option<String>,
    #[serde(skip)]
    pub(crate) first_block: u64,
    #[serde(skip)]
    pub(crate) last_block: u64,
    #[serde(skip)]
    pub(crate) last_hash: String,
}

impl LifeReport {
    /// One of which nothing was seen yet.
    pub(super) fn new(incarnation: Uuid) -> Self {
        Self {
            incarnation,
            first_position: 0,
            last_position: 0,
            published_to: 0,
            left_behind: 0,
            restored: false,
            note: None,
            first_block: 0,
            last_block: 0,
            last_hash: String::new(),
        }
    }
}

/// What a verification saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    pub clean: bool,
    /// The break at the lowest position.
    pub first_break: Option<Fault>,
    /// How many there are.
    pub breaks: u64,
    /// The first hundred of them.
    pub faults: Vec<Fault>,
    pub incarnation: Uuid,
    /// Sealed events that were compared.
    pub events: u64,
    pub blocks: u64,
    /// Published heads that were compared.
    pub heads: u64,
    /// Last sealed position; what stands behind it is not covered yet.
    pub sealed_to: Position,
    /// Last position of the log.
    pub head: Position,
    /// Sentences about what no proof covers although there was time for it; no breaks.
    pub warnings: Vec<String>,
    /// Oldest first; more than one when the log was restored.
    pub lives: Vec<LifeReport>,
    #[serde(skip)]
    pub(crate) gone: Vec<Gone>,
    pub seconds: f64,
    pub events_per_second: f64,
}

impl VerifyReport {
    pub(super) fn new(incarnation: Uuid) -> Self {
        Self {
            clean: true,
            first_break: None,
            breaks: 0,
            faults: Vec::new(),
            incarnation,
            events: 0,
            blocks: 0,
            heads: 0,
            sealed_to: 0,
            head: 0,
            warnings: Vec::new(),
            lives: Vec::new(),
            gone: Vec::new(),
            seconds: 0.0,
            events_per_second: 0.0,
        }
    }

    /// Notes a break from `position` to `to`.
    pub(super) fn fault(
        &mut self,
        kind: FaultKind,
        position: Position,
        to: Position,
        detail: impl Into<String>,
    ) {
        let fault = Fault { kind, position, to: to.max(position), detail: detail.into() };
        self.breaks += 1;
        if self.first_break.as_ref().is_none_or(|first| position < first.position) {
            self.first_break = Some(fault.clone());
        }
        if self.faults.len() < KEPT {
            self.faults.push(fault);
        }
    }

    /// Notes whose heads are gone, for whoever may accept that.
    pub(super) fn note_gone(&mut self, incarnation: Uuid, from: Position, to: Position) {
        self.gone.push(Gone { incarnation, from, to });
    }

    /// Whether a break is known that begins between these positions.
    pub(super) fn has(&self, from: Position, to: Position) -> bool {
        let within = |fault: &Fault| (from..=to).contains(&fault.position);
        self.faults.iter().chain(&self.first_break).any(within)
    }

    /// Gives the first break a better name.
    pub(super) fn rename(&mut self, position: Position, kind: FaultKind, detail: &str) {
        let named = self.faults.iter_mut().chain(self.first_break.as_mut());
        for fault in named.filter(|fault| fault.position == position) {
            if matches!(fault.kind, FaultKind::Changed | FaultKind::Removed) {
                fault.kind = kind;
                detail.clone_into(&mut fault.detail);
            }
        }
    }

    pub(super) fn finish(&mut self, took: Duration) {
        self.clean = self.breaks == 0;
        self.faults.sort_by_key(|fault| fault.position);
        self.seconds = took.as_secs_f64();
        // Counts of events are far below 2^52, where a double is exact.
        self.events_per_second =
            if self.seconds > 0.0 { self.events as f64 / self.seconds } else { 0.0 };
    }
}
