//! What a search of the log may name: a value that no event can have is refused, since a search that
//! finds nothing looks like a log in which nothing was done.

use proximity_domain::known;

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

/// Without leading zeros: they are compared as texts.
fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_event_can_have_is_refused() {
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
