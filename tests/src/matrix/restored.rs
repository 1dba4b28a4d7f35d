//! What has to be true after a restore: one container, the right one, and the archive still there.

use std::collections::BTreeMap;

use proximity_commands::dispatch::load;
use proximity_domain::application::Application;
use proximity_domain::backup::{Backup, Outcome};
use proximity_domain::lease::Lease;
use proximity_simulator::LedgerContainer;

use super::cell::Saga;
use super::check::same_but_for_the_address;
use super::drive::Site;
use crate::backups::BACKUP;

/// What is wrong after a restore that ended so; the number of things that were left over.
pub async fn check(site: &Site, saga: Saga, end: &str, complaints: &mut Vec<String>) -> usize {
    let ledger = site.rig.simulator.ledger();
    let done = end == "done";
    let swapped = done && saga == Saga::Restore;
    let (wanted, given_back) = if swapped { (105, 104) } else { (104, 105) };
    let leftovers = ledger.leftovers(&site.empty);
    // One container, its disk, and the archive that it came from.
    let leaked = leftovers.len().saturating_sub(3);
    if leftovers.len() != 3 || ledger.backups.len() != 1 || ledger.containers.len() != 1 {
        complaints.push(format!("one application's things are not these: {leftovers:?}"));
    }
    let (before, now) = (site.before.container(104), ledger.container(wanted));
    if done {
        let is_good = now.zip(before).is_some_and(|(now, before)| {
            now.status == "running"
                && now.lock.is_none()
                && now.config["description"].contains(&site.operation.to_string())
                && now.config["description"].contains(site.application.as_str())
                && rest(now) == rest(before)
        });
        if !is_good {
            complaints.push(format!("the restored container is {now:?}, and was {before:?}"));
        }
    } else if !same_but_for_the_address(&site.before.containers, &ledger.containers) {
        complaints.push(format!("the container is not as it was: {now:?}"));
    }
    let (application, _) =
        load::<Application>(&site.rig.store, site.application.as_str()).await.unwrap();
    if !application.live().is_some_and(|live| {
        live.running && live.current.is_none() && live.requested.guest.vmid.get() == wanted
    }) {
        complaints.push(format!("the application is not running and free: {application:?}"));
    }
    let (backup, _) = load::<Backup>(&site.rig.store, &BACKUP.to_string()).await.unwrap();
    if !backup
        .kept()
        .is_some_and(|kept| kept.current.is_none() && matches!(kept.outcome, Outcome::Completed(_)))
    {
        complaints.push(format!("the backup is not as it was: {backup:?}"));
    }
    if saga == Saga::Restore {
        let key = format!("vmid/lab/{given_back}");
        let (lease, _) = load::<Lease>(&site.rig.store, &key).await.unwrap();
        if !matches!(lease, Lease::Quarantined { .. } | Lease::Foreign) {
            complaints.push(format!("{key} is not in quarantine: {lease:?}"));
        }
    }
    leaked
}

/// All of a configuration that a restore has to bring back: its marker and its disk are new.
fn rest(guest: &LedgerContainer) -> BTreeMap<&String, &String> {
    let own = ["description", "rootfs", "digest"];
    guest.config.iter().filter(|(key, _)| !own.contains(&key.as_str())).collect()
}
