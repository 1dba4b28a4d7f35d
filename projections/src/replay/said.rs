//! What stands beside an event: who did it, what was asked for, whose thing it is about.

use std::borrow::Cow;

use proximity_domain::UserId;

/// What is judged of an event's metadata; the rest is not the same in all versions.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow, default)]
    actor: Cow<'a, str>,
    #[serde(borrow, default)]
    command: Cow<'a, str>,
    #[serde(borrow, default)]
    owner: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    correlation: Option<Cow<'a, str>>,
}

impl<'a> Said<'a> {
    /// Reads it.
    pub fn read(metadata: &'a str) -> Result<Self, String> {
        serde_json::from_str(metadata)
            .map_err(|error| format!("its metadata cannot be read: {error}"))
    }

    /// Says who did what, in a form that is ever written.
    pub fn names_somebody(&self) -> Result<(), String> {
        if self.actor.is_empty() || self.command.is_empty() {
            return Err("its metadata does not say who did what".to_owned());
        }
        if !is_actor(&self.actor) {
            return Err(format!("its metadata names {:?}, which nobody is called", self.actor));
        }
        match self.owner.as_deref() {
            Some(owner) if !is_number(owner) => {
                Err(format!("its metadata names {owner:?} as an owner, which no user is called"))
            }
            _ => Ok(()),
        }
    }

    /// It is about this user's thing.
    pub fn is_of(&self, owner: UserId) -> Result<(), String> {
        match self.owner.as_deref() {
            Some(named) if named == owner.to_string() => Ok(()),
            Some(named) => {
                Err(format!("its metadata says user {named}'s, and it is user {owner}'s"))
            }
            None if self.says_all() => Err("its metadata does not say whose it is".to_owned()),
            None => Ok(()),
        }
    }

    /// It belongs to this operation; what other parts of the program plan may name only the append.
    pub fn belongs_to(&self, operation: &str) -> Result<(), String> {
        match self.correlation.as_deref() {
            _ if !self.says_all() => Ok(()),
            Some(named) if named == operation => Ok(()),
            Some(named) => Err(format!("its metadata says that it belongs to {named}")),
            None => Err("its metadata does not say what it belongs to".to_owned()),
        }
    }

    /// Whether it is of those who always say whose thing it is and which endeavour it belongs to.
    fn says_all(&self) -> bool {
        let actor = &*self.actor;
        actor == "system/operations"
            || ["user/", "schedule/"].iter().any(|kind| actor.starts_with(kind))
    }
}

/// `user/7`, `schedule/3`, `system/<part>` or `anonymous`.
fn is_actor(text: &str) -> bool {
    match text.split_once('/') {
        None => text == "anonymous",
        Some(("user" | "schedule", number)) => is_number(number),
        Some(("system", part)) => {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        }
        Some(_) => false,
    }
}

/// Without leading zeros: they are compared as texts.
fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_actor_has_one_of_four_forms() {
        for actor in ["user/7", "schedule/12", "system/node-watch", "anonymous"] {
            assert!(is_actor(actor), "{actor}");
        }
        for actor in ["elvis", "user", "user/", "user/07", "user/-1", "system/", "system/A", "a/1"]
        {
            assert!(!is_actor(actor), "{actor}");
        }
    }

    #[test]
    fn an_owner_is_missed_only_where_one_is_always_named() {
        let by = |actor: &str, rest: &str| {
            let text = format!(r#"{{"actor":"{actor}","command":"c"{rest}}}"#);
            let said = Said::read(&text).unwrap();
            (said.is_of(UserId(7)).is_ok(), said.belongs_to("o").is_ok())
        };
        assert_eq!(by("user/1", ""), (false, false));
        assert_eq!(by("schedule/1", ""), (false, false));
        assert_eq!(by("system/operations", ""), (false, false));
        assert_eq!(by("system/cli", ""), (true, true));
        assert_eq!(by("user/1", r#","owner":"7","correlation":"o""#), (true, true));
        assert_eq!(by("system/cli", r#","owner":"8","correlation":"p""#), (false, true));
        assert_eq!(by("user/1", r#","owner":"8","correlation":"p""#), (false, false));
    }
}
