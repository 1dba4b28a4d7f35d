//! Who may do what: every operation of the served document × everybody × whose thing it is.

mod cast;
mod cells;
mod lacking;
mod planted;
mod repeats;
mod table;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proximity_domain::refusal::STREAM;
use proximity_simulator::Ledger;

use self::cast::{Cast, EVERYBODY, State, Who};
use self::cells::{Cell, Expected};
use self::planted::Plant;
use self::table::{May, Row, rows};
use crate::contract;
use crate::harness::{Answer, Kind, on_both};

/// What the cells came to.
#[derive(Default)]
struct Outcome {
    cells: usize,
    /// Cells whose caller has no right to what was asked for.
    refused: usize,
    wrong: Vec<String>,
    /// How long the answer took for what is somebody else's, and for what never was.
    foreign: Vec<Duration>,
    never: Vec<Duration>,
}

/// Runs cells against one listener.
struct Run<'a> {
    cast: &'a Cast,
    to: String,
    plant: Option<Plant>,
    never: HashMap<String, Answer>,
    /// The log up to here is known.
    head: u64,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(cast: &'a Cast, to: &str) -> Self {
        Self {
            cast,
            to: to.to_owned(),
            plant: None,
            never: HashMap::new(),
            head: 0,
            outcome: Outcome::default(),
        }
    }

    /// All cells of the rows: refusals first, so that whoever may finds everything still there.
    async fn all(mut self, rows: &[Row]) -> Outcome {
        let cells: Vec<Cell<'_>> = rows.iter().flat_map(cells::of).collect();
        let (allowed, refused): (Vec<_>, Vec<_>) =
            cells.into_iter().partition(|cell| cell.expected() == Expected::Allowed);
        self.head = self.cast.world.server.app.store.head().await.unwrap();
        for cell in refused.iter().chain(&allowed) {
            self.cell(cell).await;
        }
        self.outcome
    }

    async fn cell(&mut self, cell: &Cell<'_>) {
        let (ledger, effects) = self.simulated();
        let (undocumented, answer, took) = self.ask(cell).await;
        let mut wrong = self.judge(cell, &answer).await.or(undocumented);
        let added = self.added_to_log().await;
        if cell.changes_nothing() {
            let is_same = self.simulated() == (ledger, effects);
            wrong = added
                .or_else(|| (!is_same).then(|| "the simulator has changed".to_owned()))
                .or(wrong);
        }
        self.outcome.cells += 1;
        let expected = cell.expected();
        self.outcome.refused += usize::from(expected != Expected::Allowed);
        if let Some(wrong) = wrong {
            let told = format!("{cell}: {wrong}: {} {}", answer.status, answer.text);
            self.outcome.wrong.push(told);
        }
        if cell.row.may == May::Owner && cell.is_in_path() && cell.who == Who::Other {
            match cell.state() {
                Some(State::Others) => self.outcome.foreign.push(took),
                Some(State::Never) => self.outcome.never.push(took),
                _ => {}
            }
        }
    }

    /// What is wrong with an answer by the document, the answer, and how long it took.
    async fn ask(&self, cell: &Cell<'_>) -> (Option<String>, Answer, Duration) {
        let (method, path, headers, body) = cell.call(self.cast);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = match body {
            _ if cell.is_cut_off() => Some(b"{".to_vec()),
            body => body.map(|body| body.to_string().into_bytes()),
        };
        let (started, verb) = (Instant::now(), method.to_string());
        let server = &self.cast.world.server;
        let mut answer = server.send(&self.to, method, &path, &headers, body.as_deref()).await;
        let took = started.elapsed();
        match &self.plant {
            Some(plant) => plant.grow(self.cast, cell, &mut answer).await,
            None if self.to == server.url => {
                return (contract::complaint(&verb, &path, &answer), answer, took);
            }
            None => {}
        }
        (None, answer, took)
    }

    /// What is wrong with an answer.
    async fn judge(&mut self, cell: &Cell<'_>, answer: &Answer) -> Option<String> {
        let status = answer.status.as_u16();
        if status >= 500 {
            return Some("a defect".to_owned());
        }
        let code = answer.body["code"].as_str().unwrap_or_default();
        match cell.expected() {
            Expected::Allowed => {
                return matches!(status, 401 | 403 | 404).then(|| "refused".to_owned());
            }
            Expected::Always(wanted) => {
                return (status != wanted).then(|| format!("not {wanted}"));
            }
            Expected::Refused(wanted, reason) if (status, code) != (wanted, reason) => {
                return Some(format!("not {wanted} {reason}"));
            }
            Expected::Never if cell.is_in_path() && (status, code) != (404, "not_found") => {
                return Some("not 404".to_owned());
            }
            Expected::Never if !cell.row.is_safe() && status < 400 => {
                return Some("accepted".to_owned());
            }
            Expected::Never | Expected::Refused(..) | Expected::Hidden => {}
        }
        let never = cell.never()?;
        if cell.state() == Some(State::Never) {
            return None;
        }
        // A refusal must not depend on the id either: neither body nor headers, byte for byte.
        let name = never.to_string();
        if !self.never.contains_key(&name) {
            let (_, answer, _) = self.ask(&never).await;
            self.never.insert(name.clone(), answer);
        }
        let (one, other) = (bare(answer), bare(&self.never[&name]));
        // What everybody may see is no secret: its number may stand in the sentence.
        let is_shared = cell.is_shared() && cell.expected() == Expected::Hidden;
        let same = if is_shared { one.0 == other.0 } else { one == other };
        (!same).then(|| format!("differs from an id that never was, which gets {other:?}"))
    }

    /// Everything that exists in the simulator, and how many effects it has seen.
    fn simulated(&self) -> (Ledger, usize) {
        let simulator = &self.cast.world.simulator;
        (simulator.ledger(), simulator.journal().len())
    }

    /// What the log has more than before, but for noted refusals and what the server sees by itself.
    async fn added_to_log(&mut self) -> Option<String> {
        let added = self.cast.world.server.app.store.feed(self.head, 1_000).await.unwrap();
        self.head = added.last().map_or(self.head, |event| event.position);
        // Uses of secrets, and calls that changed nothing, are written down by the minute, beside whatever
        // is asked then.
        let by_itself = ["host.nodes_observed", "secret_use.counted", "call.changed_nothing"];
        let ours = |event: &proximity_eventstore::Recorded| {
            event.aggregate_type != STREAM && !by_itself.contains(&event.event_type.as_str())
        };
        let event = added.into_iter().find(ours)?;
        Some(format!("{} is in the log", event.event_type))
    }
}

/// An answer but for what differs between any two: the request's id, the time, the log's head, the
/// random cookie of a browser that has none, and whether the connection goes on.
fn bare(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let id = answer.header("x-request-id");
    let differing = ["x-request-id", "date", "proximity-position", "connection"];
    let cookie = answer.cookie("csrftoken").unwrap_or_default();
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !differing.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .map(|(name, value)| match name.as_str() {
            "set-cookie" if !cookie.is_empty() => (name, value.replace(&cookie, "<random>")),
            _ => (name, value),
        })
        .collect();
    headers.sort();
    (answer.status.as_u16(), answer.text.replace(id, "<request>"), headers)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_whom_it_must_and_nobody_else() {
    on_both(async |kind| {
        let started = Instant::now();
        let cast = Cast::gather(kind).await;
        let url = cast.world.server.url.clone();
        let document = cast.world.server.get("/api/openapi.json").await.body;
        let rows = rows();
        let uncovered = cells::uncovered(&document, &rows);
        assert!(uncovered.is_empty(), "{uncovered:#?}");
        let verbs = |path: &serde_json::Value| path.as_object().unwrap().len();
        let operations: usize = document["paths"].as_object().unwrap().values().map(verbs).sum();
        if kind == Kind::Sqlite {
            let (planted, found) = planted::try_all(&cast, &document, &rows).await;
            println!("figure: authorization matrix: {found} of {planted} planted faults found");
            assert_eq!(found, planted);
        }
        let gathered = started.elapsed();
        let outcome = Run::new(&cast, &url).all(&rows).await;
        println!("{kind:?}: gathered in {gathered:?}, all in {:?}", started.elapsed());
        let Outcome { cells, refused, wrong, foreign, never } = outcome;
        println!(
            "figure: authorization matrix on {kind:?}: {operations} operations of {operations}, \
             {} callers, {cells} cells, {refused} of them refused without a trace, {} wrong",
            EVERYBODY.len(),
            wrong.len(),
        );
        println!(
            "figure: authorization matrix on {kind:?}: median answer {:?} for what is another's, \
             {:?} for what never was",
            median(foreign),
            median(never)
        );
        assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
        cast.world.stop().await;
    })
    .await;
}
