//! `Idempotency-Key`: on every call that changes something, the same request again gets the first
//! answer again. A refusal of someone who is signed in is made final before it is given, so that no
//! earlier try of its key that is still on its way can be carried out after it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proximity_commands::Error;
use proximity_commands::answers::Found;
use proximity_commands::once::{Once, OnceKey};
use proximity_eventstore::AppendError;

use super::again;
use super::call::Call;
use super::noted::{note_action, note_repeated, note_unchanged};
use super::problem::Problem;
use super::reply::Reply;
use super::route::{Policy, Route};

/// How long the answer of a request that is being carried out elsewhere is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(25);
/// The largest answer that is kept, in bytes: those of calls that change something are small.
const LARGEST: usize = 256 * 1024;

/// The administrators' calls with a key that are being carried out. Those that append nothing until they
/// are done, or nothing at all but that they were made, have no other place to meet.
#[derive(Default)]
pub struct Turns(Mutex<HashSet<String>>);

struct Turn<'t> {
    turns: &'t Turns,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Turns {
    /// Waits until no other request of the caller's key is carried out here.
    async fn take(&self, call: &Call, key: &OnceKey) -> Result<Turn<'_>, Problem> {
        let name = format!("{}\n{}", call.actor.lane(), key.key);
        let begun = tokio::time::Instant::now();
        while !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            if begun.elapsed() >= PATIENCE {
                let detail = "another request with this Idempotency-Key is being carried out; \
                              send this one again under the same key";
                return Err(Problem::new("idempotency_key.in_progress", detail));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Turn { turns: self, name })
    }
}

/// Calls the handler, or gives the first answer again.
pub async fn answered(route: &'static Route, mut call: Call) -> Result<Reply, Problem> {
    // What only looks tells what is so now.
    let is_once = !route.verb.is_safe() && !route.only_looks();
    let Some(key) = call.once().filter(|_| is_once) else {
        let reply = carried_out(route, call.clone()).await?;
        note_unchanged(route, &call, None).await;
        return Ok(reply);
    };
    let app = call.app.clone();
    let _turn = match route.policy {
        Policy::Admin => Some(app.turns.take(&call, &key).await?),
        _ => None,
    };
    let is_first;
    (is_first, call.refusals) = match recalled(route, &call, &key).await? {
        Recalled::Answer(reply) => {
            note_repeated(route, &call, &key).await;
            return Ok(reply);
        }
        Recalled::Free(refusals) => (true, refusals),
        Recalled::WithCommand(refusals) => (false, refusals),
    };
    let once = Arc::new(Once::new(key.after(call.refusals)));
    call.actor.once = Some(once.clone());
    let outcome = carried_out(route, call.clone()).await;
    match outcome {
        Ok(reply) => {
            if is_first || call.actor.told.is_set() {
                note_unchanged(route, &call, Some(&key)).await;
            } else {
                note_repeated(route, &call, &key).await;
            }
            Ok(keep(&call, &key, reply).await)
        }
        Err(problem) if problem.status.is_client_error() && !once.is_taken() => {
            // Nobody who is not signed in can fill the table of refusals.
            if call.actor.user().is_some()
                && call.app.answers.refuse(&call.actor, &key, call.refusals).await?
            {
                return Err(problem);
            }
            // Not refused for what it asks, but because another request of this key did it just now.
            match recalled(route, &call, &key).await? {
                Recalled::Answer(reply) => {
                    note_repeated(route, &call, &key).await;
                    Ok(reply)
                }
                Recalled::WithCommand(refusals) => {
                    call.refusals = refusals;
                    let reply = carried_out(route, call.clone()).await?;
                    note_repeated(route, &call, &key).await;
                    Ok(reply)
                }
                Recalled::Free(_) => Err(problem),
            }
        }
        Err(problem) => Err(problem),
    }
}

async fn carried_out(route: &'static Route, call: Call) -> Result<Reply, Problem> {
    let reply = route.answer(call.clone()).await?;
    note_action(route, &call, &reply).await;
    Ok(reply)
}

/// How many times the call's key was refused before, for a try that stores nothing; `None` when the
/// call was carried out under it already.
pub async fn before(route: &Route, call: &Call) -> Result<Option<u32>, Problem> {
    let Some(key) = call.once() else { return Ok(Some(0)) };
    Ok(match recalled(route, call, &key).await? {
        Recalled::Answer(_) => None,
        Recalled::Free(refusals) | Recalled::WithCommand(refusals) => Some(refusals),
    })
}

/// What came of a key before.
enum Recalled {
    /// Nothing has happened under it yet but so many refusals.
    Free(u32),
    /// The command keeps its own answer, and gives it when it is asked again after so many refusals.
    WithCommand(u32),
    /// The answer to give again.
    Answer(Reply),
}

/// Looks once at what came of the key; an answer that is on its way is waited for.
async fn recalled(route: &Route, call: &Call, key: &OnceKey) -> Result<Recalled, Problem> {
    let answers = &call.app.answers;
    let mut found = answers.find(&call.actor, key).await?;
    let begun = tokio::time::Instant::now();
    while found == Found::Used && begun.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
        found = answers.find(&call.actor, key).await?;
    }
    match found {
        Found::Free(refusals) => Ok(Recalled::Free(refusals)),
        Found::WithCommand(refusals) => Ok(Recalled::WithCommand(refusals)),
        Found::Used => Err(gone()),
        Found::Answer(answer) => {
            let answer = again::given(route, call, answer).await?;
            Reply::again(answer).ok_or_else(gone).map(Recalled::Answer)
        }
    }
}

fn gone() -> Problem {
    Error::from(AppendError::KeyUsed).into()
}

/// Keeps the answer. When that fails the answer is right all the same: the key has had its effect,
/// and whoever repeats it learns that much.
async fn keep(call: &Call, key: &OnceKey, reply: Reply) -> Reply {
    let answer = reply.kept();
    if reply.bytes().len() > LARGEST {
        return reply;
    }
    match call.app.answers.keep(&call.actor, key, &answer).await {
        Ok(Some(Found::Answer(first))) => Reply::again(first).unwrap_or(reply),
        Ok(_) => reply,
        Err(error) => {
            tracing::warn!(%error, "an answer could not be kept under its idempotency key");
            reply
        }
    }
}
