//! How long and how much the client waits for, and how many calls it makes at once.

use std::time::Duration;

/// The client's limits; the defaults fit Proxmox VE's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Name look-up, TCP and TLS together.
    pub connect: Duration,
    /// One reading call with all its repetitions. Above 3 s, since Proxmox delays each 401 by that;
    /// with its workers busy a list took 9.6 s.
    pub read: Duration,
    /// A writing call once it is sent. At least 60 s: Proxmox itself waits for locks and other nodes.
    pub write: Duration,
    /// How long a writing call waits for its turn and a log-in; after that it is not sent at all.
    pub write_wait: Duration,
    /// Calls at once to one host. Proxmox has three workers, and each is busy for the whole of a call.
    pub concurrency: usize,
    /// Attempts of a reading call whose connection breaks.
    pub read_attempts: u32,
    /// The largest reply that is read, in bytes.
    pub body: usize,
    /// The age at which a ticket is exchanged for a new one.
    pub ticket_renew: Duration,
    /// The age at which a ticket is taken for ended (Proxmox: 2 h).
    pub ticket_end: Duration,
    /// After a refused log-in, how long the credential is not tried again.
    pub refusal_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(30),
            write: Duration::from_secs(65),
            write_wait: Duration::from_secs(30),
            concurrency: 3,
            read_attempts: 3,
            body: 16 * 1024 * 1024,
            ticket_renew: Duration::from_secs(60 * 60),
            ticket_end: Duration::from_secs(115 * 60),
            refusal_pause: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// No writing call takes longer than this, and none is sent later than `write` before its end: an
    /// operation's claim that outlives this outlives the effect.
    pub fn longest_write(&self) -> Duration {
        self.write_wait + self.write
    }
}
