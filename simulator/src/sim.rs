//! One running simulator: its world, its clock, its locks, and the tasks that work in the background.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use time::OffsetDateTime;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::auth::tickets::Tickets;
use crate::config::{SimulatorConfig, TaskTimes};
use crate::fault::{Fault, Faults};
use crate::params::Params;
use crate::reply::Refusal;
use crate::seen::Seen;
use crate::tls::Certificates;
use crate::world::World;
use crate::world::journal::Effect;
use crate::world::task::Task;

/// The simulator that handlers work on.
pub(crate) struct Sim {
    pub(crate) config: SimulatorConfig,
    pub(crate) faults: Faults,
    pub(crate) tickets: Tickets,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) seen: Seen,
    /// Calls and tasks in progress; a caller that leaves does not stop them.
    pub(crate) tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// The blocking workers of each node.
    pub(crate) workers: HashMap<String, Arc<Semaphore>>,
    /// One backup job per node at a time.
    pub(crate) dump_locks: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    world: Mutex<World>,
    clock_offset: AtomicI64,
    task_times: Mutex<TaskTimes>,
    flocks: Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>,
    /// Protected calls that run now, and the most that ever did; for tests of the worker limit.
    pub(crate) busy: AtomicUsize,
    pub(crate) busiest: AtomicUsize,
}

/// A call as handlers see it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) auth: Auth,
    pub(crate) params: Params,
    /// What strikes the first task that the call starts.
    pub(crate) task_fault: Mutex<Option<Fault>>,
}

impl Call {
    pub(crate) fn node(&self) -> &str {
        self.params.text("node")
    }

    pub(crate) fn vmid(&self) -> u32 {
        self.params.vmid("vmid")
    }
}

/// How a task can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It ends in this text, after it has cleaned up.
    Error(String),
    /// Its worker is gone; nothing is cleaned up.
    Died,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Error(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::Error(text.to_owned())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal.task_text())
    }
}

impl Sim {
    pub(crate) fn new(
        config: SimulatorConfig,
        certificates: Arc<Certificates>,
        root_password: String,
    ) -> Self {
        let names = || config.nodes.iter().map(|node| node.name.clone());
        let workers = names().map(|n| (n, Arc::new(Semaphore::new(config.workers)))).collect();
        let dump_locks = names().map(|n| (n, Arc::default())).collect();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Self {
            faults: Faults::new(config.seed),
            tickets: Tickets::new(),
            certificates,
            seen: Seen::default(),
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            workers,
            dump_locks,
            world: Mutex::new(World::new(&config, root_password, now)),
            clock_offset: AtomicI64::new(0),
            task_times: Mutex::new(config.task_times.clone()),
            flocks: Mutex::default(),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
            config,
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unix seconds of the simulated clock.
    pub(crate) fn now(&self) -> i64 {
        OffsetDateTime::now_utc().unix_timestamp() + self.clock_offset.load(Ordering::Relaxed)
    }

    pub(crate) fn set_clock_offset(&self, seconds: i64) {
        self.clock_offset.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn set_task_times(&self, times: TaskTimes) {
        *self.task_times.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// Takes a container's lock file, or gives up after the configured wait.
    pub(crate) async fn flock(&self, vmid: u32) -> Result<OwnedMutexGuard<()>, Refusal> {
        let lock = {
            let mut flocks = self.flocks.lock().unwrap_or_else(PoisonError::into_inner);
            flocks.entry(vmid).or_default().clone()
        };
        tokio::time::timeout(self.config.lock_wait, lock.lock_owned()).await.map_err(|_| {
            Refusal::die(format!(
                "can't lock file '/run/lock/lxc/pve-config-{vmid}.lock' - got timeout"
            ))
        })
    }

    /// Records an effect. The description is taken from the container as it is at this moment.
    pub(crate) fn record(
        &self,
        world: &mut World,
        by: &Auth,
        node: &str,
        what: &str,
        vmid: Option<u32>,
        volid: Option<&str>,
    ) {
        let description = vmid
            .and_then(|vmid| world.containers.get(&vmid))
            .and_then(|container| container.config.get("description").cloned());
        world.journal.push(Effect {
            seq: 0,
            at: self.now(),
            node: node.to_owned(),
            what: what.to_owned(),
            vmid,
            volid: volid.map(str::to_owned),
            by: by.id(),
            description,
        });
    }

    /// Starts a task and returns its id at once. `work` gets a context to log and to pass time with.
    pub(crate) fn start_task<F, Fut>(
        self: &Arc<Self>,
        call: &Call,
        node: &str,
        kind: &'static str,
        id: &str,
        work: F,
    ) -> String
    where
        F: FnOnce(TaskContext) -> Fut,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let fault = call.task_fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.start_task_as(&call.auth, node, kind, id, fault, work)
    }

    pub(crate) fn start_task_as<F, Fut>(
        self: &Arc<Self>,
        auth: &Auth,
        node: &str,
        kind: &'static str,
        id: &str,
        fault: Option<Fault>,
        work: F,
    ) -> String
    where
        F: FnOnce(TaskContext) -> Fut,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let context = self.register_task(auth, node, kind, id, fault);
        let upid = context.upid.clone();
        let (sim, running) = (self.clone(), work(context.clone()));
        self.tracker.spawn(async move {
            let result = tokio::select! {
                biased;
                () = context.kill.cancelled() => Err(Failure::Died),
                result = async {
                    running.await?;
                    context.after_effect().await
                } => result,
            };
            let exit = match result {
                Ok(()) => {
                    if matches!(context.fault, Some(Fault::TaskWarns)) {
                        context.warn("something is not as it should be");
                    }
                    match context.warnings.load(Ordering::Relaxed) {
                        0 => "OK".to_owned(),
                        count => format!("WARNINGS: {count}"),
                    }
                }
                Err(Failure::Error(text)) => text,
                Err(Failure::Died) => "unexpected status".to_owned(),
            };
            sim.end_task(&context.upid, exit);
        });
        upid
    }

    fn register_task(
        self: &Arc<Self>,
        auth: &Auth,
        node: &str,
        kind: &'static str,
        id: &str,
        fault: Option<Fault>,
    ) -> TaskContext {
        let now = self.now();
        let mut world = self.world();
        let jitter = world.rng.random_range(1..8);
        let (pid, pstart) = match world.nodes.get_mut(node) {
            Some(entry) => {
                entry.next_pid += jitter;
                entry.task_begun = Some(Instant::now());
                // Of two within a second the later one has more.
                let since_boot = u64::try_from((now - entry.boot).max(0)).unwrap_or(0) * 100;
                entry.last_start = since_boot.max(entry.last_start + 1);
                (entry.next_pid, entry.last_start)
            }
            None => (1, 0),
        };
        let by = auth.id();
        let upid = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{now:08X}:{kind}:{id}:{by}:");
        let times = self.task_times.lock().unwrap_or_else(PoisonError::into_inner).range(kind);
        let duration = world.rng.random_range(times.0..=times.1.max(times.0));
        let task = Task {
            upid: upid.clone(),
            node: node.to_owned(),
            kind,
            id: id.to_owned(),
            by,
            pid,
            pstart,
            start: now,
            end: None,
            exit: None,
            ended_at: None,
            log: Vec::new(),
            abort: CancellationToken::new(),
            kill: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let context = TaskContext {
            sim: self.clone(),
            upid,
            fault,
            duration: Duration::from_millis(duration),
            abort: task.abort.clone(),
            kill: task.kill.clone(),
            warnings: Arc::default(),
        };
        world.add_task(task);
        context
    }

    fn end_task(&self, upid: &str, exit: String) {
        let now = self.now();
        let mut world = self.world();
        let Some(task) = world.task_mut(upid) else { return };
        // A worker that died wrote no last line.
        match exit.as_str() {
            "OK" => task.log.push("TASK OK".to_owned()),
            "unexpected status" => {}
            text if text.starts_with("WARNINGS:") => task.log.push(format!("TASK {text}")),
            text => task.log.push(format!("TASK ERROR: {text}")),
        }
        task.exit = Some(exit);
        task.end = Some(now);
        task.ended_at = Some(Instant::now());
        task.ended.cancel();
    }
}

/// What a task's work has at hand.
#[derive(Clone)]
pub(crate) struct TaskContext {
    pub(crate) sim: Arc<Sim>,
    pub(crate) upid: String,
    fault: Option<Fault>,
    duration: Duration,
    pub(crate) abort: CancellationToken,
    kill: CancellationToken,
    warnings: Arc<AtomicUsize>,
}

impl TaskContext {
    /// Logs a warning; a task that ends well then says how many there were.
    pub(crate) fn warn(&self, line: &str) {
        self.log(format!("WARN: {line}"));
        self.warnings.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn log(&self, line: impl Into<String>) {
        if let Some(task) = self.sim.world().task_mut(&self.upid) {
            task.log.push(line.into());
        }
    }

    /// The same for work that holds the world: what was done is in the log, also of a worker that dies.
    pub(crate) fn log_in(&self, world: &mut World, lines: Vec<String>) {
        if let Some(task) = world.task_mut(&self.upid) {
            task.log.extend(lines);
        }
    }

    /// Takes a lock file inside the task, with the lines that a wait leaves in its log.
    pub(crate) async fn flock(&self, vmid: u32) -> Result<OwnedMutexGuard<()>, Failure> {
        let mut waiting = std::pin::pin!(self.sim.flock(vmid));
        let patience = Duration::from_millis(30);
        if let Ok(lock) = tokio::time::timeout(patience, &mut waiting).await {
            return Ok(lock?);
        }
        self.log("trying to acquire lock...");
        let lock = self.interruptible(waiting).await??;
        self.log(" OK");
        Ok(lock)
    }

    /// Waits for something unless the task is aborted meanwhile.
    pub(crate) async fn interruptible<T>(
        &self,
        what: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => Err("received interrupt".into()),
            value = what => Ok(value),
        }
    }

    /// The time that the work takes, and the faults that strike before it has an effect.
    pub(crate) async fn labour(&self) -> Result<(), Failure> {
        self.interruptible(tokio::time::sleep(self.duration)).await?;
        match &self.fault {
            Some(Fault::TaskNeverEnds { after_effect: false }) => {
                self.interruptible(self.sim.faults.lifted()).await
            }
            Some(Fault::TaskDies { after_effect: false }) => Err(Failure::Died),
            Some(Fault::TaskFails { text, after_effect: false }) => Err(text.as_str().into()),
            _ => Ok(()),
        }
    }

    /// The middle of work that can be left half done: what is done stays.
    pub(crate) fn midway(&self) -> Result<(), Failure> {
        match &self.fault {
            Some(Fault::TaskDiesMidway) => Err(Failure::Died),
            _ => Ok(()),
        }
    }

    /// The same of work that makes disks, when so many are made.
    pub(crate) fn made_disks(&self, count: usize) -> Result<(), Failure> {
        match &self.fault {
            Some(Fault::TaskDiesAfterDisks { disks, .. }) if *disks == count => Err(Failure::Died),
            _ => Ok(()),
        }
    }

    async fn after_effect(&self) -> Result<(), Failure> {
        match &self.fault {
            Some(Fault::TaskNeverEnds { after_effect: true }) => {
                self.interruptible(self.sim.faults.lifted()).await
            }
            Some(Fault::TaskDies { after_effect: true }) => Err(Failure::Died),
            Some(Fault::TaskFails { text, after_effect: true }) => Err(text.as_str().into()),
            _ => Ok(()),
        }
    }
}
