//! Keeps what is in memory, secrets among it, out of core files and from other processes' eyes.

use anyhow::Context as _;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From now on this process leaves no core file, and only root may look into its memory.
pub fn begin() -> anyhow::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("core files cannot be forbidden")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("this process cannot be closed to others")
}
