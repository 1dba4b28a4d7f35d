//! What waits for the writer: bounded lanes, outcomes first, then callers in fair turns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::append::{Append, AppendError, Lane, Outcome};
use crate::side::Value;

/// What an append waits for.
pub(crate) type Answer = Result<Outcome, AppendError>;

/// An append and where its answer goes; nobody listening is no reason not to store it.
pub(crate) struct Job {
    pub append: Append,
    pub answer: oneshot::Sender<Answer>,
    bytes: usize,
}

impl Job {
    /// The append, and where its answer goes.
    pub fn split(self) -> (Append, oneshot::Sender<Answer>) {
        (self.append, self.answer)
    }

    /// Answers; a caller that went away has lost only the answer.
    pub fn answer(self, answer: Answer) {
        drop(self.answer.send(answer));
    }
}

/// Something other than an append that needs the writer's connection (`C`), e.g. a claim.
pub(crate) type Errand<C> = Box<dyn FnOnce(&mut C) + Send>;

/// One turn of the writer.
pub(crate) enum Turn<C> {
    Errands(Vec<Errand<C>>),
    Batch(Vec<Job>),
}

/// Bytes of events in one batch: it keeps a batch of large appends from holding the lock for long.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes that users' appends may keep waiting in memory.
const QUEUE_BYTES: usize = 128 << 20;
/// Errands in one turn.
const ERRANDS: usize = 16;

/// How long the writer's thread looks for more before it sleeps.
const LOOK_AGAIN: Duration = Duration::from_micros(60);

pub(crate) struct Queue<C> {
    waiting: Mutex<Waiting<C>>,
    /// Wakes a writer that is a task.
    arrived: Notify,
    /// Wakes a writer that is a thread.
    arrived_blocking: Condvar,
    limit: usize,
    batch: usize,
}

struct Waiting<C> {
    errands: VecDeque<Errand<C>>,
    outcomes: VecDeque<Job>,
    users: HashMap<String, VecDeque<Job>>,
    /// Whose turn it is; each caller with something waiting stands in it once.
    turns: VecDeque<String>,
    user_jobs: usize,
    /// Of both lanes.
    bytes: usize,
    errands_had_their_turn: bool,
    closed: bool,
    batches: u64,
    appends: u64,
}

/// What passed through the writer's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Appends that wait now.
    pub waiting: usize,
    /// Batches taken since the store was opened.
    pub batches: u64,
    /// Appends in those batches, refused ones included.
    pub appends: u64,
    /// Appends refused since what they rest on had changed; most are decided anew.
    pub stale: u64,
}

impl<C> Queue<C> {
    pub fn new(limit: usize, batch: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                errands: VecDeque::new(),
                outcomes: VecDeque::new(),
                users: HashMap::new(),
                turns: VecDeque::new(),
                user_jobs: 0,
                bytes: 0,
                errands_had_their_turn: false,
                closed: false,
                batches: 0,
                appends: 0,
            }),
            arrived: Notify::new(),
            arrived_blocking: Condvar::new(),
            limit,
            batch: batch.max(1),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<C>> {
        // Nothing panics while it holds the lock; were it so, the lanes would still be whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an append in its lane, or refuses it at once when the lane is full.
    pub fn push(&self, append: Append) -> Result<oneshot::Receiver<Answer>, AppendError> {
        let (answer, answered) = oneshot::channel();
        let bytes = size(&append);
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        let busy = AppendError::Busy { retry_after: Duration::from_secs(1) };
        match append.lane.clone() {
            Lane::Outcome => {
                if waiting.outcomes.len() >= self.limit {
                    return Err(busy);
                }
                waiting.bytes += bytes;
                waiting.outcomes.push_back(Job { append, answer, bytes });
            }
            Lane::User(user) => {
                if waiting.user_jobs >= self.limit || waiting.bytes + bytes > QUEUE_BYTES {
                    return Err(busy);
                }
                waiting.user_jobs += 1;
                waiting.bytes += bytes;
                let Waiting { users, turns, .. } = &mut *waiting;
                let lane = users.entry(user).or_insert_with_key(|user| {
                    turns.push_back(user.clone());
                    VecDeque::new()
                });
                lane.push_back(Job { append, answer, bytes });
            }
        }
        drop(waiting);
        self.wake();
        Ok(answered)
    }

    /// Hands the writer something to do between two batches.
    pub fn errand(&self, errand: Errand<C>) -> Result<(), AppendError> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        if waiting.errands.len() >= self.limit {
            return Err(AppendError::Busy { retry_after: Duration::from_secs(1) });
        }
        waiting.errands.push_back(errand);
        drop(waiting);
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        self.arrived.notify_one();
        self.arrived_blocking.notify_one();
    }

    /// The next thing to do; `None` once closed and empty.
    pub async fn next(&self) -> Option<Turn<C>> {
        loop {
            // The guard must not live across the await.
            let step = self.waiting().step(self.batch);
            match step {
                Step::Do(turn) => return Some(turn),
                Step::End => return None,
                Step::Wait => self.arrived.notified().await,
            }
        }
    }

    /// As [`next`](Self::next), for a thread. It looks again for a moment before it sleeps: a caller
    /// who was just answered often has something next, and waking a thread takes longer than that.
    pub fn next_blocking(&self) -> Option<Turn<C>> {
        let mut waiting = self.waiting();
        let begun = Instant::now();
        loop {
            match waiting.step(self.batch) {
                Step::Do(turn) => return Some(turn),
                Step::End => return None,
                Step::Wait if begun.elapsed() < LOOK_AGAIN => {
                    drop(waiting);
                    std::thread::yield_now();
                    waiting = self.waiting();
                }
                Step::Wait => {
                    waiting =
                        self.arrived_blocking.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    pub fn stats(&self) -> Stats {
        let waiting = self.waiting();
        Stats {
            waiting: waiting.outcomes.len() + waiting.user_jobs,
            batches: waiting.batches,
            appends: waiting.appends,
            stale: 0,
        }
    }

    /// No more is accepted; what waits is still done.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.wake();
    }

    /// No more is accepted and what waits is dropped: the writer is gone.
    pub fn abandon(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.errands.clear();
        waiting.outcomes.clear();
        waiting.users.clear();
        waiting.turns.clear();
        waiting.user_jobs = 0;
        waiting.bytes = 0;
    }
}

enum Step<C> {
    Do(Turn<C>),
    Wait,
    End,
}

impl<C> Waiting<C> {
    /// A few errands and a batch in turn, so that neither holds the other up for long: each errand
    /// is a transaction of its own.
    fn step(&mut self, batch: usize) -> Step<C> {
        if !self.errands.is_empty() && !self.errands_had_their_turn {
            self.errands_had_their_turn = true;
            let few = self.errands.len().min(ERRANDS);
            return Step::Do(Turn::Errands(self.errands.drain(..few).collect()));
        }
        self.errands_had_their_turn = false;
        let batch = self.take(batch);
        if !batch.is_empty() {
            self.bytes -= batch.iter().map(|job| job.bytes).sum::<usize>();
            self.batches += 1;
            self.appends += batch.len() as u64;
            Step::Do(Turn::Batch(batch))
        } else if !self.errands.is_empty() {
            self.step(0)
        } else if self.closed {
            Step::End
        } else {
            Step::Wait
        }
    }

    /// Takes a batch in which no id and no idempotency key stands twice: the second of two such
    /// appends has to see the first one stored, so it waits for the next batch.
    fn take(&mut self, most: usize) -> Vec<Job> {
        let mut batch = Batch { jobs: Vec::new(), bytes: 0, ids: HashSet::new(), most };
        while let Some(job) = self.outcomes.front() {
            if !batch.has_room_for(job) {
                return batch.jobs;
            }
            if let Some(job) = self.outcomes.pop_front() {
                batch.add(job);
            }
        }
        // One from each caller in turn; a caller whose next one does not fit ends the batch, or the
        // large and the repeated would wait for ever.
        while let Some(user) = self.turns.pop_front() {
            let Some(lane) = self.users.get_mut(&user) else { continue };
            if lane.front().is_some_and(|job| !batch.has_room_for(job)) {
                self.turns.push_front(user);
                break;
            }
            if let Some(job) = lane.pop_front() {
                self.user_jobs -= 1;
                batch.add(job);
            }
            if lane.is_empty() {
                self.users.remove(&user);
            } else {
                self.turns.push_back(user);
            }
        }
        batch.jobs
    }
}

struct Batch {
    jobs: Vec<Job>,
    bytes: usize,
    ids: HashSet<Identity>,
    most: usize,
}

#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Id(uuid::Uuid),
    Key(String, String),
}

impl Batch {
    fn has_room_for(&self, job: &Job) -> bool {
        self.jobs.is_empty()
            || (self.jobs.len() < self.most
                && self.bytes + job.bytes <= BATCH_BYTES
                && identities(&job.append).all(|identity| !self.ids.contains(&identity)))
    }

    fn add(&mut self, job: Job) {
        self.bytes += job.bytes;
        self.ids.extend(identities(&job.append));
        self.jobs.push(job);
    }
}

fn identities(append: &Append) -> impl Iterator<Item = Identity> {
    let key = append.idempotency.as_ref().map(|i| Identity::Key(i.actor.clone(), i.key.clone()));
    std::iter::once(Identity::Id(append.id)).chain(key)
}

/// Bytes of an append's events and side rows, roughly.
pub(crate) fn size(append: &Append) -> usize {
    let events = append.streams.iter().flat_map(|stream| &stream.events);
    let values = append.side.iter().flat_map(|write| write.set().iter().chain(write.filter()));
    events.map(|event| event.payload.len() + append.metadata.len() + 128).sum::<usize>()
        + values
            .map(|(_, value)| match value {
                Value::Text(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                Value::Null | Value::Integer(_) | Value::Boolean(_) => 8,
            })
            .sum::<usize>()
}
