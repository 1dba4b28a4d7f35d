//! Whether the log is as it was sealed: the last verification, and how far the next one is.

use std::time::Duration;

use proximity_eventstore::{Fault, LifeReport, VerifyProgress, VerifyReport};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::page::within;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// How old an answer may be.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VerificationWanted {
    /// Seconds: an older result starts another verification; 0 to 31,536,000, 300 by default.
    pub max_age: Option<i64>,
}

/// What is known about the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verification {
    /// `running`: ask again; `result` is the one before, if there is one. `finished`: `result` is
    /// recent. `failed`: it could not be looked, and `reason` says why.
    #[schema(example = "finished")]
    pub state: &'static str,
    /// Why the last one failed; null unless it did.
    pub reason: Option<String>,
    /// How far the one under way is; null when none is.
    pub progress: Option<VerificationProgress>,
    /// When `result` was found, RFC 3339.
    pub finished_at: Option<String>,
    /// How old `result` is, in seconds.
    pub age_seconds: Option<u64>,
    /// What the last verification saw.
    pub result: Option<VerificationResult>,
}

/// How far a verification is.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerificationProgress {
    /// Events compared so far.
    pub events_done: u64,
    /// Events of the log when it began.
    pub events_total: u64,
    /// Since it began.
    pub seconds: f64,
    /// At the pace so far; null as long as nothing can be said.
    pub seconds_left: Option<f64>,
}

/// What a verification saw.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerificationResult {
    /// Whether everything is as it was sealed and published.
    pub clean: bool,
    /// The break at the lowest position.
    pub first_break: Option<Break>,
    /// How many there are.
    pub breaks: u64,
    /// The first hundred.
    pub faults: Vec<Break>,
    /// Which life of the log this is.
    pub incarnation: String,
    /// Sealed events that were compared.
    pub events: u64,
    /// Blocks of the chain.
    pub blocks: u64,
    /// Published heads that were compared.
    pub heads: u64,
    /// The last sealed position; what stands behind it is not covered yet.
    pub sealed_to: u64,
    /// The last position of the log.
    pub head: u64,
    /// Sentences about what is not sealed or published although there was time for it. No breaks: a
    /// server that was killed leaves the same, and the next one seals it.
    pub warnings: Vec<String>,
    /// Oldest first; more than one when the log was restored from a backup.
    pub lives: Vec<Life>,
    /// How long it took.
    pub seconds: f64,
    /// Its pace.
    pub events_per_second: f64,
}

/// Something that is not as it was sealed or published.
#[derive(Debug, Serialize, ToSchema)]
pub struct Break {
    /// `changed`, `swapped`, `inserted`, `duplicated`, `removed`: events. `broken_block`,
    /// `bad_signature`, `unknown_key`: the chain. `cut`, `rewritten`, `unknown_life`, `forged_head`,
    /// `no_heads`: the chain and the heads that were published. `unsealed`: there is no chain.
    #[schema(example = "changed")]
    pub kind: &'static str,
    /// Where it begins.
    pub position: u64,
    /// Up to where it may reach.
    pub to: u64,
    /// A sentence about it.
    pub detail: String,
}

/// One life of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Life {
    /// Its name.
    pub incarnation: String,
    /// Its first sealed event in this log, 0 when there is none.
    pub first_position: u64,
    /// Its last one.
    pub last_position: u64,
    /// Its newest published head.
    pub published_to: u64,
    /// Its events that were published and that a restore left behind.
    pub left_behind: u64,
    /// Whether it ended with a signed restore.
    pub restored: bool,
    /// What was said when it began with a restore, and what the statement does not prove.
    pub note: Option<String>,
}

impl From<&Fault> for Break {
    fn from(fault: &Fault) -> Self {
        let Fault { kind, position, to, detail } = fault;
        Self { kind: kind.as_str(), position: *position, to: *to, detail: detail.clone() }
    }
}

impl From<&LifeReport> for Life {
    fn from(life: &LifeReport) -> Self {
        Self {
            incarnation: life.incarnation.simple().to_string(),
            first_position: life.first_position,
            last_position: life.last_position,
            published_to: life.published_to,
            left_behind: life.left_behind,
            restored: life.restored,
            note: life.note.clone(),
        }
    }
}

impl From<&VerifyReport> for VerificationResult {
    fn from(report: &VerifyReport) -> Self {
        Self {
            clean: report.clean,
            first_break: report.first_break.as_ref().map(Break::from),
            breaks: report.breaks,
            faults: report.faults.iter().map(Break::from).collect(),
            incarnation: report.incarnation.simple().to_string(),
            events: report.events,
            blocks: report.blocks,
            heads: report.heads,
            sealed_to: report.sealed_to,
            head: report.head,
            warnings: report.warnings.clone(),
            lives: report.lives.iter().map(Life::from).collect(),
            seconds: report.seconds,
            events_per_second: report.events_per_second,
        }
    }
}

impl From<VerifyProgress> for VerificationProgress {
    fn from(progress: VerifyProgress) -> Self {
        Self {
            events_done: progress.events_done,
            events_total: progress.events_total,
            seconds: progress.elapsed.as_secs_f64(),
            seconds_left: progress.left().map(|left| left.as_secs_f64()),
        }
    }
}

/// Whether the log is as it was sealed: the whole chain over the stored bytes, and the heads that were
/// published. It never waits longer than two seconds: a verification goes on behind it, and the answer
/// has the last result with its age.
#[utoipa::path(get, path = "/api/audit/verify", tag = "events", params(VerificationWanted), responses((status = 200, description = "The last verification", body = Verification)))]
pub async fn verify(call: Call) -> Result<Reply, Problem> {
    let wanted: VerificationWanted = call.query()?;
    let max_age = within("max_age", wanted.max_age, 300, 0, 31_536_000)?;
    let seen = call.app.verification.ask(&call.app, Duration::from_secs(max_age.into())).await;
    let state = match (&seen.running, &seen.finished) {
        (Some(_), _) | (None, None) => "running",
        (None, Some(finished)) if finished.report.is_err() => "failed",
        (None, Some(_)) => "finished",
    };
    let at = |at: std::time::SystemTime| OffsetDateTime::from(at).format(&Rfc3339).ok();
    let reason =
        seen.finished.as_ref().and_then(|finished| finished.report.as_ref().err().cloned());
    Reply::json(&Verification {
        state,
        reason,
        progress: seen.running.map(VerificationProgress::from),
        finished_at: seen.finished.as_ref().and_then(|finished| at(finished.at)),
        age_seconds: seen
            .finished
            .as_ref()
            .map(|finished| finished.at.elapsed().unwrap_or_default().as_secs()),
        result: seen
            .finished
            .and_then(|finished| Some(VerificationResult::from(finished.report.ok()?.as_ref()))),
    })
}
