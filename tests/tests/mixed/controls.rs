//! Positive controls: something is planted in a real history or log, and the rule it breaks finds it.

use proximity_eventstore::Recorded;
use proximity_tests::checker;
use proximity_tests::history::{Call, Command, Outcome, Thing, judge};
use serde_json::Value;

use super::{Guests, Planted};

/// Its name, how it is planted, and a part of the sentence that finds it.
type Fault = (&'static str, fn(&mut Planted), &'static str);

/// Plants one fault after the other; returns how many were planted. Panics with the one not found.
pub fn all(log: &[Recorded], calls: &[Call], guests: &Guests, from: u64) -> usize {
    let faults: [Fault; 12] = [
        ("an accepted call that is not stored", lose, "was accepted and is not stored"),
        ("an append made twice", repeat, "nobody asked for this"),
        ("a refused call that is stored", refuse, "was refused and is stored"),
        (
            "a first try carried out after its repeat was refused",
            refuse_repeat,
            "was refused and is stored",
        ),
        (
            "a call said to be carried out that is not stored",
            vanish,
            "carried out and is not stored",
        ),
        ("a refusal without a reason", refuse_without_reason, "was right at no moment"),
        ("a host name given away twice", give_twice, "was accepted, and Refuse"),
        ("a call that overtook an earlier one", overtake, "was acknowledged before it was sent"),
        ("a state that never was, shown to a reader", misread, "was right at no moment"),
        ("an old state, shown to a later reader", reread, "was right at no moment"),
        ("an operation that began while another ran", interleave, "began while"),
        ("a position told too early", tell_early, "was told position"),
    ];
    for (name, plant, sentence) in faults {
        let mut planted = Planted { log: log.to_vec(), calls: calls.to_vec() };
        plant(&mut planted);
        let found = judge(&planted.log, &planted.calls, from).anomalies;
        let is_found = found.iter().any(|anomaly| anomaly.contains(sentence));
        assert!(is_found, "{name} is not found: {found:#?}");
    }
    let structure: [Fault; 3] = [
        ("a missing position", gap, "stands at"),
        ("a stream with a gap", stream_gap, "has a gap at"),
        ("a lease that two hold at a time", give_twice, "held it"),
    ];
    for (name, plant, sentence) in structure {
        let mut planted = Planted { log: log.to_vec(), calls: calls.to_vec() };
        plant(&mut planted);
        let found = checker::check(&planted.log, guests).anomalies;
        let is_found = found.iter().any(|anomaly| anomaly.contains(sentence));
        assert!(is_found, "{name} is not found: {found:#?}");
    }
    faults.len() + structure.len()
}

/// The request under which a call was accepted, and the last position of its append.
fn accepted(call: &Call) -> Option<(&str, u64)> {
    match &call.outcome {
        Outcome::Ok { position, request, operation: Some(_), .. } if !call.repeated => {
            Some((request, *position))
        }
        _ => None,
    }
}

fn of_request<'p>(log: &'p [Recorded], request: &str) -> impl Iterator<Item = &'p Recorded> {
    let needle = format!("\"{request}\"");
    log.iter().filter(move |event| event.metadata.contains(&needle))
}

/// The request and last position of an accepted call of this kind.
fn one(planted: &Planted, wanted: fn(&Command) -> bool) -> (usize, String, u64) {
    let index =
        planted.calls.iter().rposition(|call| wanted(&call.command) && accepted(call).is_some());
    let index = index.expect("such a call was accepted");
    let (request, position) = accepted(&planted.calls[index]).unwrap();
    (index, request.to_owned(), position)
}

fn is_deploy(command: &Command) -> bool {
    matches!(command, Command::Deploy { .. })
}

fn lose(planted: &mut Planted) {
    let (_, request, _) = one(planted, is_deploy);
    planted.log.retain(|event| !event.metadata.contains(&request));
}

fn repeat(planted: &mut Planted) {
    let (_, request, _) = one(planted, is_deploy);
    let again: Vec<_> = of_request(&planted.log, &request).cloned().collect();
    let head = planted.log.last().unwrap().position;
    planted.log.extend((1..).zip(again).map(|(after, event)| Recorded {
        position: head + after,
        metadata: event.metadata.replace(&request, "another"),
        ..event
    }));
}

fn refuse(planted: &mut Planted) {
    let (index, request, _) = one(planted, is_deploy);
    planted.calls[index].outcome = Outcome::Fail { code: "hostname.taken".to_owned(), request };
}

fn refuse_repeat(planted: &mut Planted) {
    let (index, _, _) = one(planted, is_deploy);
    let call = &mut planted.calls[index];
    call.repeated = true;
    let (code, request) = ("hostname.taken".to_owned(), "the repeat's own".to_owned());
    call.outcome = Outcome::Fail { code, request };
}

fn vanish(planted: &mut Planted) {
    let (index, request, _) = one(planted, is_deploy);
    planted.calls[index].outcome = Outcome::Gone;
    planted.calls[index].kept = None;
    planted.log.retain(|event| !event.metadata.contains(&request));
}

fn refuse_without_reason(planted: &mut Planted) {
    let taken = planted.calls.iter_mut().find(|call| {
        is_deploy(&call.command)
            && matches!(&call.outcome, Outcome::Fail { code, .. } if code == "hostname.taken")
    });
    let hostname = "nobody-ever-asked".to_owned();
    taken.expect("a name was refused").command = Command::Deploy { hostname };
}

/// The last application whose name nobody else ever had gets that of the first such one.
fn give_twice(planted: &mut Planted) {
    let hostname = |call: &Call| match &call.command {
        Command::Deploy { hostname } if accepted(call).is_some() => Some(hostname.to_lowercase()),
        _ => None,
    };
    let is_one_owners = |name: &String| {
        let key = format!("hostname/{}", name.trim_end_matches('.'));
        planted.log.iter().filter(|event| event.aggregate_id == key).count() == 1
    };
    let mut names = planted.calls.iter().map(|call| hostname(call).filter(is_one_owners));
    let kept = names.clone().flatten().next().expect("an application keeps its name");
    let index = names.rposition(|name| name.is_some_and(|name| name != kept));
    let index = index.expect("another application keeps its name");
    let other = hostname(&planted.calls[index]).unwrap();
    let (other, kept) = (plain(other), plain(kept));
    let Command::Deploy { hostname } = &mut planted.calls[index].command else { unreachable!() };
    hostname.clone_from(&kept);
    for event in &mut planted.log {
        if event.aggregate_id == format!("hostname/{other}") {
            event.aggregate_id = format!("hostname/{kept}");
        }
        event.payload = event.payload.replace(&format!("\"{other}\""), &format!("\"{kept}\""));
    }
}

/// A host name without the dot that may end it.
fn plain(name: String) -> String {
    name.trim_end_matches('.').to_owned()
}

/// The later of two appends is said to have been sent and answered before the earlier was sent.
fn overtake(planted: &mut Planted) {
    let (first, second) = (
        planted.calls.iter().position(|call| accepted(call).is_some()).unwrap(),
        planted.calls.iter().rposition(|call| accepted(call).is_some()).unwrap(),
    );
    planted.calls[second].invoked = planted.calls[first].invoked / 4;
    planted.calls[second].returned = Some(planted.calls[first].invoked / 2);
}

fn shown(planted: &mut Planted) -> &mut Call {
    planted
        .calls
        .iter_mut()
        .rfind(|call| {
            // One that was there before the callers began, so that its beginnings are long past.
            let is_old = |body: &Value| {
                body["hostname"].as_str().is_some_and(|name| name.starts_with("base-"))
            };
            let is_running = matches!(&call.outcome, Outcome::Ok { body, .. }
                if body["status"] == "running" && is_old(body));
            matches!(call.command, Command::Read { thing: Thing::App(_), .. }) && is_running
        })
        .expect("an old application was read while it ran")
}

fn misread(planted: &mut Planted) {
    let Outcome::Ok { body, .. } = &mut shown(planted).outcome else { unreachable!() };
    body["status"] = "adopting".into();
}

/// It was `deploying` once, long before the position from which on it was read.
fn reread(planted: &mut Planted) {
    let Outcome::Ok { body, .. } = &mut shown(planted).outcome else { unreachable!() };
    body["status"] = "deploying".into();
}

/// What ends an operation is taken out, so that the next one on that application begins too early.
fn interleave(planted: &mut Planted) {
    let began = |event: &&Recorded| event.event_type == "application.operation_began";
    let app = planted.log.iter().rfind(began).unwrap().aggregate_id.clone();
    let ends = ["deployed", "clone_ready", "started", "stopped", "restarted", "operation_ended"];
    planted.log.retain(|event| {
        let end = event.event_type.trim_start_matches("application.");
        event.aggregate_id != app || !ends.contains(&end)
    });
}

fn tell_early(planted: &mut Planted) {
    let (index, _, _) = one(planted, is_deploy);
    let Outcome::Ok { position, .. } = &mut planted.calls[index].outcome else { unreachable!() };
    *position -= 1;
}

fn gap(planted: &mut Planted) {
    let middle = planted.log.len() / 2;
    planted.log.remove(middle);
}

fn stream_gap(planted: &mut Planted) {
    let event = planted.log.iter_mut().rfind(|event| event.sequence > 1).unwrap();
    event.sequence += 1;
}
