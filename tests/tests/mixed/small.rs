//! Twelve callers at a time: histories so small that every order of their calls can be tried.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use proximity_tests::history::{Call, Command, Linear, Outcome, Thing, linearize};
use proximity_tests::lab::Lab;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Barrier;

use super::look_up;
use super::workload::{HOST_NAMES, Person, World};

const ROUNDS: usize = 8;
const CALLERS: usize = 12;
/// Calls of each caller; all callers make each of theirs at the same moment.
const BURSTS: usize = 6;
/// Host names that the callers of one round want.
const NAMES: usize = 2;
/// The default memory that a round begins with, MB.
const MEMORY: i64 = 1_000;
/// A name that no host has during a round.
const ASIDE: &str = "aside";

/// What all rounds came to.
pub struct Found {
    total: Linear,
    planted: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{ROUNDS} histories of {CALLERS} callers at once, held against stateright's linearizability tester: \
             {} calls of {} objects, {} left out, {} anomalies; {} of {} planted faults found",
            self.total.calls,
            self.total.objects,
            self.total.left_out,
            self.total.anomalies.len(),
            self.planted,
            FAULTS.len(),
        )
    }
}

/// Makes all rounds one after the other and checks each by itself. Panics with what no order explains.
pub async fn rounds(lab: &Lab, world: &World) -> Found {
    let mut total = Linear::default();
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let hosts = begin(world).await;
        let before = world.calls().len();
        rush(world, round).await;
        let mut calls = world.calls().split_off(before);
        look_up(lab, &mut calls).await;
        let checked = check(calls.clone(), hosts.clone()).await;
        assert!(checked.anomalies.is_empty(), "round {round}: {:#?}", checked.anomalies);
        total.calls += checked.calls;
        total.objects += checked.objects;
        total.left_out += checked.left_out;
        all.push((calls, hosts));
    }
    let mut planted = 0;
    for (name, plant) in FAULTS {
        let fitting = all.iter().find_map(|(calls, hosts)| {
            let mut calls = calls.clone();
            plant(&mut calls).map(|()| (calls, hosts.clone()))
        });
        let (calls, hosts) =
            fitting.unwrap_or_else(|| panic!("{name}: no round has a place for it"));
        let found = check(calls, hosts).await.anomalies;
        assert!(!found.is_empty(), "{name} is not found");
        planted += 1;
    }
    Found { total, planted }
}

/// The search for an order takes its time, and others have theirs meanwhile.
async fn check(calls: Vec<Call>, hosts: BTreeMap<i64, String>) -> Linear {
    tokio::task::spawn_blocking(move || linearize(&calls, &hosts, MEMORY)).await.unwrap()
}

fn chance(world: &World, salt: usize) -> StdRng {
    StdRng::seed_from_u64(world.seed ^ (salt as u64) << 32)
}

fn admin(world: &World) -> &Person {
    world.people.iter().find(|person| person.is_admin).unwrap()
}

/// Puts everything that a round's callers share into a state that is known.
async fn begin(world: &World) -> BTreeMap<i64, String> {
    let mut chance = chance(world, 0);
    let person = admin(world);
    let mut names = BTreeMap::new();
    let [first, second] = world.hosts[..] else { panic!("two hosts") };
    // The second one steps aside, so that neither needs a name that the other still has.
    for (host, name) in [(second, ASIDE), (first, HOST_NAMES[0]), (second, HOST_NAMES[1])] {
        names.insert(host, name.to_owned());
        let command = Command::RenameHost { host, name: name.to_owned() };
        world.call(person, command, &mut chance, false).await;
    }
    world.call(person, Command::Memory { megabytes: MEMORY }, &mut chance, false).await;
    names
}

async fn rush(world: &World, round: usize) {
    let together = Barrier::new(CALLERS);
    let callers = (0..CALLERS).map(|caller| {
        let together = &together;
        async move {
            let mut chance = chance(world, 1 + round * CALLERS + caller);
            for _ in 0..BURSTS {
                together.wait().await;
                let person = world.people.choose(&mut chance).unwrap();
                let command = choose(world, person, round, &mut chance);
                world.call(person, command, &mut chance, true).await;
                // Operations that began can end before the next burst, or not.
                let pause = Duration::from_millis(chance.random_range(0..400));
                tokio::time::sleep(pause).await;
            }
        }
    });
    join_all(callers).await;
}

fn choose(world: &World, person: &Person, round: usize, chance: &mut StdRng) -> Command {
    let prefix = format!("small-{round}-");
    let own = (!person.is_admin && chance.random_ratio(3, 4)).then_some(person.id);
    let apps = world.apps_named(&prefix, own);
    let deploy = |chance: &mut StdRng| {
        let name = format!("{prefix}{}", chance.random_range(0..NAMES));
        let hostname = if chance.random() { name } else { format!("{}.", name.to_uppercase()) };
        Command::Deploy { hostname }
    };
    let Some(app) = apps.choose(chance).cloned() else { return deploy(chance) };
    let host = *world.hosts.choose(chance).unwrap();
    let act = |app, action| Command::Act { app, action };
    match chance.random_range(0..100) {
        0..20 => deploy(chance),
        20..40 => world.read(Thing::App(app)),
        40..46 => act(app, "start"),
        46..52 => act(app, "stop"),
        52..56 => act(app, "restart"),
        56..66 => act(app, "delete"),
        66..70 => Command::Backup { app },
        70..77 if person.is_admin => world.read(Thing::Memory),
        77..85 if person.is_admin => {
            Command::Memory { megabytes: MEMORY + chance.random_range(1..100) }
        }
        85..92 if person.is_admin => world.read(Thing::HostName(host)),
        92..100 if person.is_admin => {
            let name = (*HOST_NAMES.choose(chance).unwrap()).to_owned();
            Command::RenameHost { host, name }
        }
        _ => world.read(Thing::App(app)),
    }
}

/// Its name, and how it is planted; it has to make the history wrong whatever else is in it, and
/// returns `None` where the history has no place for it.
type Fault = (&'static str, fn(&mut [Call]) -> Option<()>);

const FAULTS: [Fault; 7] = [
    ("a host name given twice", give_twice),
    ("a host name refused although nobody has it", refuse_free),
    ("a host name refused before anybody had it", refuse_early),
    ("a default that was replaced, shown later", show_old_memory),
    ("a state that has passed, shown later", show_old_status),
    ("a stranger's command, accepted", obey_stranger),
    ("a host's name that it never had", show_wrong_name),
];

fn deployed(call: &Call) -> Option<String> {
    let Command::Deploy { hostname } = &call.command else { return None };
    Some(hostname.to_lowercase().trim_end_matches('.').to_owned())
}

fn is_refused(call: &Call, with: &str) -> bool {
    call.code() == Some(with)
}

fn is_ok(call: &Call) -> bool {
    matches!(call.outcome, Outcome::Ok { .. })
}

fn accept(call: &mut Call) {
    let id = format!("planted-{}", call.key);
    let body = serde_json::json!({ "id": id });
    let (request, operation) = ("planted".to_owned(), Some("planted".to_owned()));
    call.outcome = Outcome::Ok { position: u64::MAX, request, operation, body };
}

/// Two that were answered before anything can have been deleted are given one name.
fn give_twice(calls: &mut [Call]) -> Option<()> {
    let deletions = calls.iter().filter(|call| {
        matches!(call.command, Command::Act { action: "delete", .. }) && call.code().is_none()
    });
    let deleted = deletions.map(|call| call.invoked).min().unwrap_or(Duration::MAX);
    let is_before = |call: &Call| call.returned.is_some_and(|returned| returned < deleted);
    let holders = calls.iter().filter(|call| is_ok(call) && is_before(call));
    let held: Vec<String> = holders.filter_map(deployed).collect();
    let second = calls.iter_mut().find(|call| {
        is_refused(call, "hostname.taken")
            && is_before(call)
            && deployed(call).is_some_and(|name| held.contains(&name))
    })?;
    accept(second);
    Some(())
}

fn refuse_free(calls: &mut [Call]) -> Option<()> {
    let mut taken = calls.iter_mut().filter(|call| is_refused(call, "hostname.taken"));
    taken.next()?.command = Command::Deploy { hostname: "small-nobodys".to_owned() };
    Some(())
}

fn refuse_early(calls: &mut [Call]) -> Option<()> {
    let index = calls
        .iter()
        .position(|call| deployed(call).is_some() && is_refused(call, "hostname.taken"))?;
    let name = deployed(&calls[index]);
    let of_name = calls.iter().filter(|call| deployed(call) == name);
    let first = of_name.map(|call| call.invoked).min()?;
    calls[index].invoked = first.checked_sub(Duration::from_micros(2))?;
    calls[index].returned = Some(first.checked_sub(Duration::from_micros(1))?);
    Some(())
}

fn show_old_memory(calls: &mut [Call]) -> Option<()> {
    let is_set = |call: &&Call| matches!(call.command, Command::Memory { .. }) && is_ok(call);
    let replaced = calls.iter().filter(is_set).filter_map(|call| call.returned).min()?;
    let read = calls.iter_mut().find(|call| {
        matches!(call.command, Command::Read { thing: Thing::Memory, .. })
            && is_ok(call)
            && call.invoked > replaced
    })?;
    let Outcome::Ok { body, .. } = &mut read.outcome else { return None };
    body["default_memory_mb"] = MEMORY.into();
    Some(())
}

fn show_old_status(calls: &mut [Call]) -> Option<()> {
    let read = |call: &Call| match (&call.command, &call.outcome) {
        (Command::Read { thing: Thing::App(app), .. }, Outcome::Ok { body, .. }) => {
            Some((app.clone(), body["status"].as_str()?.to_owned()))
        }
        _ => None,
    };
    let (app, ready) = calls.iter().find_map(|call| {
        let (app, status) = read(call)?;
        (status != "deploying").then_some((app, call.returned?))
    })?;
    let later = calls
        .iter_mut()
        .find(|call| call.invoked > ready && read(call).is_some_and(|(other, _)| other == app))?;
    let Outcome::Ok { body, .. } = &mut later.outcome else { return None };
    body["status"] = "deploying".into();
    Some(())
}

fn obey_stranger(calls: &mut [Call]) -> Option<()> {
    let owners: BTreeMap<String, i64> = calls
        .iter()
        .filter_map(|call| match (&call.command, &call.outcome) {
            (Command::Deploy { .. }, Outcome::Ok { body, .. }) => {
                Some((body["id"].as_str()?.to_owned(), call.caller))
            }
            _ => None,
        })
        .collect();
    let call = calls.iter_mut().find(|call| {
        let is_strangers =
            |app: &String| owners.get(app).is_some_and(|owner| *owner != call.caller);
        matches!(&call.command, Command::Act { app, .. } if is_strangers(app))
            && is_refused(call, "not_found")
            && !call.is_admin
    })?;
    accept(call);
    Some(())
}

fn show_wrong_name(calls: &mut [Call]) -> Option<()> {
    let read = calls.iter_mut().find(|call| {
        matches!(call.command, Command::Read { thing: Thing::HostName(_), .. }) && is_ok(call)
    })?;
    let Outcome::Ok { body, .. } = &mut read.outcome else { return None };
    body["name"] = ASIDE.into();
    Some(())
}
