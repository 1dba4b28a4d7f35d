//! The journal: every effect that a call had, in order, with the description that the container bore.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The journal keeps this many effects and drops the oldest beyond them.
const LIMIT: usize = 200_000;

/// One effect on the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Counts from 1 without a gap.
    pub seq: u64,
    /// Unix seconds of the simulated clock.
    pub at: i64,
    /// The node it happened on.
    pub node: String,
    /// What happened, such as `container.created`.
    pub what: String,
    /// The container it happened to.
    pub vmid: Option<u32>,
    /// The volume it happened to.
    pub volid: Option<String>,
    /// Who caused it: user or token id.
    pub by: String,
    /// The container's description at that moment, which holds an ownership marker if it has one.
    pub description: Option<String>,
}

/// The effects so far.
#[derive(Default)]
pub(crate) struct Journal {
    effects: VecDeque<Effect>,
    last: u64,
}

impl Journal {
    pub(crate) fn push(&mut self, mut effect: Effect) {
        self.last += 1;
        effect.seq = self.last;
        if self.effects.len() == LIMIT {
            self.effects.pop_front();
        }
        self.effects.push_back(effect);
    }

    pub(crate) fn all(&self) -> Vec<Effect> {
        self.effects.iter().cloned().collect()
    }
}
