//! The limits of operations: how often, how long, how many at once.

use std::time::Duration;

use rand::Rng as _;

/// All limits of the runner and its steps.
#[derive(Debug, Clone)]
pub struct SagaConfig {
    /// Tries of a step forward before it is given up.
    pub act_attempts: u32,
    /// Tries of taking a step back before the operation is stuck.
    pub undo_attempts: u32,
    /// The first pause before another try; it doubles, up to `backoff_cap`, and is drawn at random below that.
    pub backoff: Duration,
    pub backoff_cap: Duration,
    /// How often a running task, an address or a health check is looked at.
    pub poll: Duration,
    /// How long a task may run before it is asked to end.
    pub task_patience: Duration,
    /// The same of a task that moves a container's disks: a copy, a backup, a restore.
    pub disks_patience: Duration,
    /// How long a graceful stop may take before the power is cut, whole seconds.
    pub shutdown_s: u32,
    /// How long a started container may take to get an address.
    pub address_patience: Duration,
    /// How long a claim lasts without renewal. Longer than any call to Proxmox.
    pub claim: Duration,
    /// No effect is begun with less than this left of the claim: no call lasts longer.
    pub longest_call: Duration,
    /// How often operations are looked for that another server has left.
    pub sweep: Duration,
    /// Operations at once in this process.
    pub concurrency: usize,
    /// Numbers that containers are given, both ends included.
    pub vmids: (u32, u32),
    /// How long a VMID is kept from being leased again after its guest is gone.
    pub quarantine: Duration,
}

impl Default for SagaConfig {
    fn default() -> Self {
        Self {
            act_attempts: 6,
            undo_attempts: 8,
            backoff: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(20),
            poll: Duration::from_millis(500),
            task_patience: Duration::from_secs(15 * 60),
            disks_patience: Duration::from_secs(4 * 60 * 60),
            shutdown_s: 60,
            address_patience: Duration::from_secs(60),
            claim: Duration::from_secs(600),
            longest_call: Duration::from_secs(300),
            sweep: Duration::from_secs(5),
            concurrency: 32,
            vmids: (100, 999_999_999),
            quarantine: Duration::from_secs(15 * 60),
        }
    }
}

impl SagaConfig {
    /// The pause after the `attempt`-th failure: random below a bound that doubles ("full jitter").
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let bound = doubled.min(self.backoff_cap).as_millis().max(1);
        Duration::from_millis(rand::rng().random_range(0..u64::try_from(bound).unwrap_or(1)))
    }
}
