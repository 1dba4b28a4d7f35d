//! What has to be true after a start, a stop or a restart: the same container, and in the right state.

use proximity_commands::dispatch::load;
use proximity_domain::application::Application;
use proximity_simulator::LedgerContainer;

use super::cell::Saga;
use super::drive::Site;

/// What is wrong after an operation that ended so; the number of things that were left over.
pub async fn check(site: &Site, saga: Saga, end: &str, complaints: &mut Vec<String>) -> usize {
    let ledger = site.rig.simulator.ledger();
    let runs = match saga {
        Saga::Start => end == "done",
        Saga::Stop => end != "done",
        _ => true,
    };
    let status = if runs { "running" } else { "stopped" };
    let plain = |guest: &LedgerContainer| LedgerContainer {
        address: None,
        status: String::new(),
        listening: Vec::new(),
        listen_error: None,
        ..guest.clone()
    };
    let (before, now) = (&site.before.containers, &ledger.containers);
    if !before.iter().map(plain).eq(now.iter().map(plain)) {
        complaints.push(format!("the container is not as it was: {now:?}, {before:?}"));
    }
    if now.iter().any(|guest| guest.status != status) {
        complaints.push(format!("the container is not {status}: {now:?}"));
    }
    let (application, _) =
        load::<Application>(&site.rig.store, site.application.as_str()).await.unwrap();
    if !application.live().is_some_and(|live| live.running == runs && live.current.is_none()) {
        complaints.push(format!("the application is not {status} and free: {application:?}"));
    }
    let leftovers = ledger.leftovers(&site.before);
    if !leftovers.is_empty() {
        complaints.push(format!("left over: {leftovers:?}"));
    }
    leftovers.len()
}
