//! `proximity doctor`: looks at everything that a server needs, and says what is wrong.

mod keys;
mod rights;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proximity_commands::Secret;
use proximity_commands::clock::SystemClock;
use proximity_commands::ports::{HypervisorError, Hypervisors as _};
use proximity_commands::secrets::Secrets;
use proximity_domain::HostId;
use proximity_eventstore::{
    Error as StoreError, HeadsDir, Reached, Rights, Store, Trusted, reached, sqlite_faults,
    sqlite_file, unsealable, waiting,
};
use proximity_projections::{State, Status, Views};
use serde::Serialize;

use super::output::{Format, render};
use super::stdout::print;
use super::{Failure, Settings, opened};
use crate::app::commands::Commands;
use crate::app::installation::RunnerId;
use crate::app::sealing::{SigningKeys, heads_dir};
use crate::app::{existing_keys, key_file, open_catalog};
use crate::http::problem::chain;

/// A clock that differs more from the database's than this confuses deadlines and sessions.
const CLOCK: Duration = Duration::from_secs(5);

/// What is not sealed and published for longer than this, in seconds, was not left by a server that was
/// stopped and started again.
const LONG: i64 = 3_600;

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    well: bool,
    found: String,
}

/// Runs all checks, beside a running server or alone; changes nothing.
pub async fn run(config: &Settings, format: Format) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let mut note = |check, result: Result<String, String>| {
        let well = result.is_ok();
        let found = result.unwrap_or_else(|problem| problem);
        findings.push(Finding { check, well, found });
    };
    match opened(config).await {
        Err(failure) => note("store", Err(failure.to_string())),
        Ok((store, views)) => {
            let head = store.head().await.map_err(anyhow::Error::from)?;
            note("store", Ok(format!("{head} events, incarnation {}", store.incarnation())));
            let mut statuses = Vec::new();
            match &views {
                Some(views) => statuses = views.status().await.map_err(anyhow::Error::from)?,
                None => {
                    note("read model", Ok("there is none yet: a server builds them".to_owned()))
                }
            }
            for status in statuses {
                note("read model", read_model(&status));
            }
            note("clock", clock(&store).await);
            if let Some(result) = role(&store).await {
                note("database role", result);
            }
            note("seals", seals(config, &store).await);
            match existing_keys(config, &store).await {
                Err(error) => note("master key", Err(format!("{error:#}"))),
                // Without a key no credential of a host was sealed, so there is no host to ask.
                Ok(None) => {
                    note("master key", Ok("there is no key yet: a server makes one".to_owned()))
                }
                Ok(Some(ring)) => {
                    let id = ring.keys().current_id().to_owned();
                    if let Some(result) = keys::destroyed(config, &store, &ring.keys()).await {
                        note("master key", result);
                    }
                    if !Secrets::is_sealed(&store).await.map_err(anyhow::Error::from)? {
                        note("master key", Ok("nothing was sealed yet".to_owned()));
                    }
                    match Secrets::check(store.clone(), ring).await {
                        Err(error) => {
                            let text = chain(&error);
                            note("master key", Err(text));
                        }
                        Ok(secrets) => {
                            note("master key", Ok(format!("{id} opens what was sealed")));
                            for (check, result) in
                                hosts(config, &store, views.as_ref(), secrets).await?
                            {
                                note(check, result);
                            }
                        }
                    }
                }
            }
            if let Some(views) = views {
                views.close().await;
            }
            store.close().await;
        }
    }
    if let Some(result) = keys::drafts(config).await {
        note("master key", result);
    }
    if config.database_url.as_ref().map(Secret::expose).is_none() {
        note("data directory", data_directory(config));
        let views = proximity_projections::sqlite_file(&config.data);
        for file in [sqlite_file(&config.data), views].into_iter().filter(|file| file.exists()) {
            note("database file", database_file(file).await);
        }
    }
    print(&render(&findings, &["check", "well", "found"], format)?)?;
    match findings.iter().filter(|finding| !finding.well).count() {
        0 => Ok(()),
        wrong => Err(Failure::Found(format!("{wrong} of {} checks failed", findings.len()))),
    }
}

/// How a read model stands. One that is being filled is not what it should be, either: nobody is served
/// from it.
fn read_model(status: &Status) -> Result<String, String> {
    let Status { name, lag, state, problem, .. } = status;
    let problem = problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
    let text = format!("{name} is {lag} events behind{problem}");
    let is_well = status.is_whole && !matches!(state, State::Stopped | State::Superseded);
    if is_well { Ok(text) } else { Err(text) }
}

type Checked = (&'static str, Result<String, String>);

/// Whether each host answers, and what its credential lacks.
async fn hosts(
    config: &Settings,
    store: &Store,
    views: Option<&Views>,
    secrets: Secrets,
) -> Result<Vec<Checked>, Failure> {
    let catalog = open_catalog(config)?;
    // It only asks hosts, and marks no container: no installation is needed.
    let commands = Commands::new(config, store, secrets, catalog, "", SystemClock::shared());
    let hosts = match views {
        Some(views) => views.hosts().await.map_err(anyhow::Error::from)?,
        None => Vec::new(),
    };
    let mut found: Vec<Checked> = Vec::new();
    if hosts.is_empty() {
        found.push(("hosts", Ok("none is registered yet".to_owned())));
    }
    let network =
        proximity_commands::settings::network(store).await.map_err(anyhow::Error::from)?;
    for host in hosts {
        let named = |text: String| format!("{}: {text}", host.name);
        let id = HostId(host.id);
        for result in privileges(&commands, id, network.bridge()).await {
            found.push(("privilege", result.map(named).map_err(named)));
        }
        let result = reach(&commands, id).await;
        found.push(("host", result.map(named).map_err(named)));
        for text in retentions(&commands, id).await {
            found.push(("backup storage", Ok(named(text))));
        }
        for text in unlisted(&commands, id).await {
            found.push(("root disk storage", Ok(named(text))));
        }
    }
    Ok(found)
}

/// On PostgreSQL: whether the role of these settings could change what is stored.
async fn role(store: &Store) -> Option<Result<String, String>> {
    match store.rights().await {
        Err(error) => Some(Err(chain(&error))),
        Ok(rights) => {
            let Rights { role, excess } = rights?;
            Some(if excess.is_empty() {
                Ok(format!("{role} can add events, and change none"))
            } else {
                Err(format!(
                    "{role} may {} stored events: let `serve` run as a role that only has \
                     proximity_grant, see \"Two roles\" in OPERATING.md",
                    excess.join(", ")
                ))
            })
        }
    }
}

/// Whether the chain follows the log, and its heads the chain; `audit verify` looks at everything.
async fn seals(config: &Settings, store: &Store) -> Result<String, String> {
    let say = |error: StoreError| chain(&error);
    let dir = HeadsDir::new(heads_dir(config));
    let place = dir.path().display().to_string();
    if let Err(error) = std::fs::read_dir(dir.path())
        && error.kind() != ErrorKind::NotFound
    {
        return Err(format!("{place}, where the heads of the log are, cannot be read: {error}"));
    }
    let server = RunnerId::known(&config.data).map(|id| id.simple().to_string());
    let Reached { here, noted, gone } = reached(store, dir, server).await.map_err(say)?;
    // Behind the heads: a server may go on meanwhile.
    let last = store.last_seal().await.map_err(say)?;
    let sealed = last.as_ref().map_or(0, |seal| seal.last);
    let head = store.head().await.map_err(say)?;
    let (block, to) = here.as_ref().map_or((0, 0), |head| (head.block, head.position));
    let text = format!("sealed to {sealed} of {head} events, heads up to {to} in {place}");
    if to > sealed {
        return Err(format!("{text}: run `proximity audit verify`"));
    }
    if let Some((_, noted)) = noted.filter(|(noted, _)| *noted > block) {
        return Err(format!(
            "{text}, and the database says that they went up to {noted}: see \"When the heads directory is \
             not there\" in OPERATING.md"
        ));
    }
    if let Some((first, last)) = gone {
        return Err(format!(
            "{text}, and the heads of the blocks {first} to {last}, which the database says were published \
             there, are not all there: run `proximity audit verify`, and see \"When the heads directory is \
             not there\" in OPERATING.md"
        ));
    }
    let keys = known(config, store).await.map(|keys| (keys, HeadsDir::new(heads_dir(config))));
    if let Some(fault) = unsealable(store, keys).await.map_err(say)? {
        return Err(format!("{text}, and {}: run `proximity audit verify`", fault.detail));
    }
    // Where nothing was ever published, the last block waits for that, too.
    let ours = last.filter(|seal| seal.incarnation == store.incarnation());
    let before = ours.map(|seal| seal.block.saturating_sub(1));
    let waits = waiting(store, here.map(|head| head.block).or(before)).await.map_err(say)?;
    let mut waits = waits.iter().filter(|waiting| waiting.is_longer_than(LONG));
    match waits.next() {
        Some(waiting) => Err(format!(
            "{text}; {waiting}. A server that starts seals and publishes it; the log of one that runs \
             says why it does not"
        )),
        None => Ok(text),
    }
}

/// Whose blocks are ours, where all of the master key is here: what it lacks, another check tells.
async fn known(config: &Settings, store: &Store) -> Option<Trusted> {
    let file = key_file(config).read().ok()?;
    let held = Secrets::as_logged_to_verify(store, file).await.ok()?;
    SigningKeys::derive(&held).trusted(store).await.ok()
}

async fn clock(store: &Store) -> Result<String, String> {
    let head = store.head().await.map_err(|error| error.to_string())?;
    let page = store.feed(head.saturating_sub(1), 1).await.map_err(|error| error.to_string())?;
    let Some(last) = page.last() else { return Ok("nothing to compare with yet".to_owned()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let last = Duration::from_micros(u64::try_from(last.recorded_at).unwrap_or_default());
    if last > now + CLOCK {
        return Err(format!("the last event lies {:?} in the future", last.saturating_sub(now)));
    }
    Ok(format!("the last event is {:?} old", now.saturating_sub(last)))
}

/// What the host's credential lacks, one finding each; what the role leaves out is none that has to be mended.
async fn privileges(
    commands: &Commands,
    host: HostId,
    bridge: &str,
) -> Vec<Result<String, String>> {
    // One that cannot be asked is reported by the check that follows.
    let Ok(hypervisor) = commands.directory.of(host).await else { return Vec::new() };
    let rights::Missing { needed, extra, looked_at } =
        match rights::missing(&*hypervisor, bridge).await {
            Err(error) => return vec![Err(format!("its privileges cannot be read: {error}"))],
            Ok(missing) => missing,
        };
    let all = needed
        .is_empty()
        .then(|| Ok(format!("its credential has all that is needed, {looked_at} looked at")));
    all.into_iter().chain(needed.into_iter().map(Err)).chain(extra.into_iter().map(Ok)).collect()
}

async fn reach(commands: &Commands, host: HostId) -> Result<String, String> {
    let hypervisor = commands.directory.of(host).await.map_err(|error| error.to_string())?;
    let version = hypervisor.version().await.map_err(|error| error.to_string())?;
    let identity = hypervisor.identity().await.map_err(|error| error.to_string())?;
    let nodes = hypervisor.nodes().await.map_err(|error| error.to_string())?;
    if nodes.is_empty() {
        // A role without Sys.Audit sees an empty list where there are nodes.
        return Err("it lists no node: the role lacks Sys.Audit".to_owned());
    }
    for node in nodes.iter().filter(|node| node.online) {
        let storages = hypervisor.storages(&node.name).await.map_err(|error| error.to_string())?;
        if storages.is_empty() {
            return Err(format!("{} lists no storage: the role lacks Datastore.Audit", node.name));
        }
    }
    if !identity.quorate {
        return Err(format!("the cluster {} has no quorum", identity.cluster));
    }
    let online = nodes.iter().filter(|node| node.online).count();
    Ok(format!(
        "Proxmox VE {} as {}, {online} of {} nodes online",
        version.text,
        identity.cluster,
        nodes.len()
    ))
}

/// The storages whose own retention limits the number of backups: a warning, not a fault, since there
/// may be room for all that are wanted.
async fn retentions(commands: &Commands, host: HostId) -> BTreeSet<String> {
    let asked = async {
        let hypervisor = commands.directory.of(host).await?;
        let mut found = BTreeSet::new();
        for node in hypervisor.nodes().await?.iter().filter(|node| node.online) {
            for storage in hypervisor.storages(&node.name).await? {
                if !storage.content.iter().any(|kind| kind == "backup") {
                    continue;
                }
                if let Some(rules) = hypervisor.retention(&node.name, &storage.name).await? {
                    found.insert(format!(
                        "storage {} keeps only {rules} of each guest: Proxmox refuses a backup \
                         beyond that, see \"Backups of applications by schedule\" in OPERATING.md",
                        storage.name
                    ));
                }
            }
        }
        Ok::<_, HypervisorError>(found)
    };
    match asked.await {
        Ok(found) => found,
        // A host that cannot be asked is a finding of the check before.
        Err(error) => BTreeSet::from([format!("its backup storages cannot be looked at: {error}")]),
    }
}

/// The storages of root disks on which Proxmox lists no disk without its container: a warning, not a fault,
/// since it matters only for what a creation leaves that is broken off.
async fn unlisted(commands: &Commands, host: HostId) -> BTreeSet<String> {
    let asked = async {
        let hypervisor = commands.directory.of(host).await?;
        let mut found = BTreeSet::new();
        for node in hypervisor.nodes().await?.iter().filter(|node| node.online) {
            for storage in hypervisor.storages(&node.name).await? {
                let takes_disks = storage.content.iter().any(|kind| kind == "rootdir");
                if takes_disks && !storage.lists_all() {
                    found.insert(format!(
                        "storage {} does not take the content `images`, so that Proxmox does not list \
                         there what a creation leaves when it is broken off: give it that content as well",
                        storage.name
                    ));
                }
            }
        }
        Ok::<_, HypervisorError>(found)
    };
    // A host that cannot be asked is a finding of the check before.
    asked.await.unwrap_or_default()
}

/// Whether SQLite finds all of a file sound: damage to an index alone hides rows, and nothing else shows it.
async fn database_file(file: PathBuf) -> Result<String, String> {
    let name = file.display().to_string();
    let looked = tokio::task::spawn_blocking(move || sqlite_faults(&file)).await;
    match looked.map_err(|error| error.to_string())? {
        Err(error) => Err(format!("{name} cannot be looked through: {}", chain(&error))),
        Ok(faults) if faults.is_empty() => Ok(format!("{name} is sound, rows and indexes")),
        Ok(faults) => {
            let faults: Vec<&str> = faults.iter().flat_map(|fault| fault.lines()).collect();
            Err(format!(
                "{name} is damaged, see \"A damaged database file\" in OPERATING.md: {}",
                faults.join("; ")
            ))
        }
    }
}

fn data_directory(config: &Settings) -> Result<String, String> {
    let path = config.data.display();
    match config.open_to_others() {
        Err(error) => Err(format!("{path}: {error}")),
        Ok(Some(why)) => Err(why),
        Ok(None) => Ok(format!("{path} is for its owner only")),
    }
}
