//! What a search of the log may name: a value that no event can have is refused, since a search that
//! finds nothing looks like a log in which nothing was done.

use proximity_domain::known;
use proximity_eventstore::Position;

/// An actor as events name it: `user/7`, `schedule/3`, `system/<part>` or `anonymous`.
pub fn actor(text: &str) -> Result<String, String> {
    let fits = match text.split_once('/') {
        None => text == "anonymous",
        Some(("user" | "schedule", number)) => is_number(number),
        Some(("system", part)) => {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        }
        Some(_) => false,
    };
    if fits {
        Ok(text.to_owned())
    } else {
        Err("an actor is user/NUMBER, schedule/NUMBER, system/NAME or anonymous".to_owned())
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

    #[test]
    fn what_no_event_can_have_is_refused() {
        assert!(request("").is_err() && request("r").is_ok());
        for good in ["user/7", "schedule/12", "system/shell", "system/node-watch", "anonymous"] {
            assert_eq!(actor(good).as_deref(), Ok(good));
        }
        for bad in ["", "nobody", "user", "user/", "user/x", "user/07", "user/-1", "system/", "a/1"]
        {
            assert!(actor(bad).is_err(), "{bad}");
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
