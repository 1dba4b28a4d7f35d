//! Threads that own SQLite connections and run what is sent to them; a caller that goes away
//! leaves its statement to finish and harms nobody.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use proximity_eventstore::Still;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::damage;
use crate::error::Error;

type Job = Box<dyn FnOnce(&mut Connected) + Send>;

/// An opened file.
pub(super) struct Connected {
    pub connection: Connection,
    /// Set when it is read as a file that nobody changes.
    pub still: Option<Arc<Still>>,
}

impl From<Connection> for Connected {
    fn from(connection: Connection) -> Self {
        Self { connection, still: None }
    }
}

/// One or more threads, each with a connection of its own, that take turns at one queue.
pub(super) struct Workers {
    jobs: Mutex<Option<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts a thread for each connection.
    pub fn start(name: &str, connections: Vec<Connected>) -> Result<Self, Error> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let threads = connections.into_iter().map(|connected| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || work(connected, &queue))
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), threads: Mutex::new(threads) })
    }

    /// Hands a job over without waiting for it.
    pub fn send(&self, job: impl FnOnce(&mut Connection) + Send + 'static) -> Result<(), Error> {
        self.hand_over(|connected| job(&mut connected.connection))
    }

    fn hand_over(&self, job: impl FnOnce(&mut Connected) + Send + 'static) -> Result<(), Error> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(Box::new(job)).map_err(|_| Error::Closed)
    }

    /// Runs a job and waits for its answer. What it read of a file that somebody has begun to change is an
    /// error, and says nothing of the file.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(move |connected| {
            let Connected { connection, still } = connected;
            let mut done = job(connection);
            if let Some(Err(changed)) = still.as_ref().map(|still| still.unchanged()) {
                done = Err(Error::File(changed));
            }
            if let (Err(Error::Sqlite(error)), Some(path)) = (&done, connection.path())
                && damage::is_damage(error)
            {
                damage::note(Path::new(path), error);
            }
            // A caller that is gone has no use for the answer.
            drop(answer.send(done));
        })?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Ends the threads once their queue is empty, and waits until their connections are closed: the
    /// last connection to a file removes its `-wal` by name, whosever that is by then.
    pub async fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joining = move || threads.into_iter().all(|thread| thread.join().is_ok());
        if !matches!(tokio::task::spawn_blocking(joining).await, Ok(true)) {
            tracing::error!("a thread that owned a connection to views.db panicked");
        }
    }
}

fn work(mut connected: Connected, queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(&mut connected),
            Err(_) => return,
        }
    }
}
