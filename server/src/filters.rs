//! What a search of the log may name: a value that no event can have is refused, since a search that
//! finds nothing looks like a log in which nothing was done.

use proximity_domain::known;
use proximity_eventstore::Position;

/// The parts of the program that act by themselves, and the operator's shell.
const PARTS: &[&str] = &[
    "cli",
    "demo",
    "keys",
    "node-watch",
    "operations",
    "quarantine",
    "reconciler",
    "refusals",
    "secrets",
    "setup",
    "start",
];

/// An actor as events name it: `user/7`, `schedule/3`, `system/<part>` or `anonymous`.
pub fn actor(text: &str) -> Result<String, String> {
    let fits = match text.split_once('/') {
        None => text == "anonymous",
        Some(("user" | "schedule", number)) => is_number(number),
        Some(("system", part)) => PARTS.contains(&part),
        Some(_) => false,
    };
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "an actor is user/NUMBER, schedule/NUMBER, anonymous, or system/ with one of {}",
            PARTS.join(", ")
        ))
    }
}

/// A user's id.
pub fn owner(text: &str) -> Result<String, String> {
    if is_number(text) {
        Ok(text.to_owned())
    } else {
        Err("an owner is a user's id: a whole number from 1, without leading zeros".to_owned())
    }
}

/// An event's name, or what comes before its dot.
pub fn event_type(text: &str) -> Result<String, String> {
    let fits = |name: &str| match text.trim_end_matches('.').split_once('.') {
        Some(_) => name == text,
        None => name.split_once('.').is_some_and(|(kind, _)| kind == text.trim_end_matches('.')),
    };
    if known::EVENTS.iter().any(|(name, _)| fits(name)) {
        Ok(text.to_owned())
    } else {
        Err("no event has this type; one is named like lease.acquired, or lease".to_owned())
    }
}

/// A request's id.
pub fn request(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a request has an id".to_owned()) } else { Ok(text.to_owned()) }
}

/// Whether events can lie within the positions: `after` may be `until`, where a page can have ended.
pub fn positions(after: Position, until: Option<Position>) -> Result<(), String> {
    match until {
        Some(until) if until < after => {
            Err(format!("no event is after position {after} and up to {until}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether events can lie within the moments, the first of which is in it and the second is not.
pub fn moments(from: Option<i64>, to: Option<i64>) -> Result<(), String> {
    match (from, to) {
        (Some(from), Some(to)) if to <= from => Err("to is not later than from".to_owned()),
        _ => Ok(()),
    }
}

/// Without leading zeros: they are compared as texts.
fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn bounds_between_which_nothing_can_lie_are_refused() {
        for (after, until) in [(0, None), (0, Some(1)), (3, Some(3)), (7, None)] {
            assert_eq!(positions(after, until), Ok(()));
        }
        assert!(positions(10, Some(3)).is_err());
        for (from, to) in [(None, None), (Some(5), None), (None, Some(5)), (Some(5), Some(6))] {
            assert_eq!(moments(from, to), Ok(()));
        }
        assert!(moments(Some(6), Some(5)).is_err() && moments(Some(5), Some(5)).is_err());
    }

    /// Reads the sources for those that act: a new one belongs in the list.
    #[test]
    fn every_part_of_the_program_that_acts_is_known_by_its_name() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let acts = regex::Regex::new(r#"(?:Actor::system|Identity::System)\("([^"]*)"\)"#).unwrap();
        let claim = regex::Regex::new(r#"const CLAIM: &str = "([^"]*)";"#).unwrap();
        let mut found = std::collections::BTreeSet::new();
        let mut folders = ["commands", "server"].map(|krate| root.join(krate).join("src")).to_vec();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let is_test =
                    path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
                if is_test {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let reconciles = path.ends_with("src/reconcile.rs");
                let pattern = if reconciles { &claim } else { &acts };
                found.extend(pattern.captures_iter(&text).map(|one| one[1].to_owned()));
            }
        }
        // It only looks, and nothing is stored for it.
        assert!(found.remove("idempotency"));
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), PARTS);
    }

    #[test]
    fn what_no_event_can_have_is_refused() {
        assert!(request("").is_err() && request("r").is_ok());
        for good in ["user/7", "schedule/12", "system/cli", "system/node-watch", "anonymous"] {
            assert_eq!(actor(good).as_deref(), Ok(good));
        }
        for bad in ["", "nobody", "user", "user/", "user/x", "user/07", "user/-1", "system/", "a/1"]
        {
            assert!(actor(bad).is_err(), "{bad}");
        }
        for bad in ["system/x", "system/shell", "system/CLI", "system/cli "] {
            assert!(actor(bad).is_err_and(|why| why.contains("node-watch")), "{bad}");
        }
        assert!(owner("7").is_ok());
        for bad in ["", "abc", "0", "07", "+7", "user/7", "99999999999999999999"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
        for good in ["lease.acquired", "lease", "lease.", "refusal.counted", "user"] {
            assert!(event_type(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "lease.", "lea", "lease.acq", "lease.acquired.", "nothing.at_all"] {
            assert_eq!(event_type(bad).is_err(), bad != "lease.", "{bad}");
        }
    }
}
