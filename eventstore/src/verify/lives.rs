//! How the lives of a log hang together: each after the first has to be explained by a signed restore.

use std::collections::HashSet;

use uuid::Uuid;

use super::report::{FaultKind, LifeReport, VerifyReport};
use crate::heads::Life;
use crate::signed::Signed;

/// Walks from the newest life back to the first one; what no statement explains is a fault.
pub(super) fn explain(known: &[Signed<Life>], report: &mut VerifyReport) {
    // A restored log whose new life has sealed nothing yet.
    if report.lives.last().is_none_or(|life| life.incarnation != report.incarnation) {
        let position = report.sealed_to;
        report.lives.push(LifeReport {
            incarnation: report.incarnation,
            first_position: 0,
            last_position: 0,
            published_to: 0,
            left_behind: 0,
            restored: false,
            last_block: report.lives.last().map_or(0, |life| life.last_block),
            last_hash: String::new(),
        });
        report.sealed_to = position;
    }
    for index in 1..report.lives.len() {
        let (before, life) = (report.lives[index - 1].clone(), report.lives[index].clone());
        match began(known, life.incarnation, before.incarnation) {
            Some(began) if began.block == before.last_block && began.hash == before.last_hash => {
                report.lives[index - 1].restored = true;
            }
            Some(began) => {
                let detail = format!(
                    "a restore was signed for a log that ended with block {}, this one ended with {}",
                    began.block, before.last_block
                );
                let from = before.first_position.max(1);
                report.fault(FaultKind::Rewritten, from, before.last_position, detail);
            }
            None => {
                let detail = format!(
                    "a life of the log, {}, begins here and no signed restore explains it",
                    life.incarnation
                );
                let from = before.last_position + 1;
                report.fault(FaultKind::UnknownLife, from, from, detail);
            }
        }
    }
}

/// The restore that led from `from` to this life, directly or over lives that sealed nothing.
fn began(known: &[Signed<Life>], incarnation: Uuid, from: Uuid) -> Option<&Life> {
    let mut seen = HashSet::new();
    let mut wanted = incarnation;
    let find = |wanted| {
        known.iter().map(|life| &life.statement).find(|life: &&Life| life.incarnation == wanted)
    };
    let newest = find(incarnation)?;
    while seen.insert(wanted) {
        let life = find(wanted)?;
        if life.from == from {
            return Some(newest);
        }
        wanted = life.from;
    }
    None
}

/// Whether a life that this log holds nothing of was given up by a restore that led to this log.
pub(super) fn was_left(known: &[Signed<Life>], report: &VerifyReport, incarnation: Uuid) -> bool {
    known.iter().any(|life| {
        let life = &life.statement;
        report.lives.iter().any(|ours| ours.incarnation == life.incarnation)
            && life.left.iter().any(|left| left.incarnation == incarnation)
    })
}
