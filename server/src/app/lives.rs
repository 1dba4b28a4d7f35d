//! Which bare positions mean the same in every life of the log, and how a stream names its own (ADR 0025).

use proximity_domain::log::{Event, STREAM};
use proximity_eventstore::{Position, Store};

use crate::http::handlers::history::Next;
use crate::http::position::Wanted;
use crate::http::problem::Problem;

/// What is known of the log's lives before this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lives {
    /// Up to here all lives are the same; `None` when there was no other.
    shared: Option<Position>,
    /// This one, as clients see it.
    incarnation: String,
}

impl Lives {
    /// Reads it from the log: a life begins with an event, or, where the database was put back by its
    /// own means, shows in the first block that was sealed.
    pub async fn of(store: &Store) -> anyhow::Result<Self> {
        let now = store.incarnation();
        let first = store.seals(0, 1).await?.first().map(|seal| seal.incarnation);
        let mut restored = None;
        for event in store.load_stream("log", STREAM).await? {
            if let Event::Restored(begun) = serde_json::from_str(&event.payload)? {
                restored = Some(begun);
                break;
            }
        }
        let shared = match restored {
            // The life that the backup was taken from was the first.
            Some(begun) if first.is_none_or(|first| first == begun.previous) => {
                Some(begun.position)
            }
            Some(_) => Some(0),
            None if first.is_some_and(|first| first != now) => Some(0),
            None => None,
        };
        Ok(Self { shared, incarnation: now.simple().to_string() })
    }

    /// The `id` of a stream's message: the position, and the life that it is of once there were several.
    pub fn id(&self, position: Position) -> String {
        match self.shared {
            None => position.to_string(),
            Some(_) => format!("{}.{position}", self.incarnation),
        }
    }

    /// The place in the log that a page ended at.
    pub fn next(&self, position: Position) -> Next {
        match self.shared {
            None => Next::Position(position),
            Some(_) => Next::OfLife(self.id(position)),
        }
    }

    /// Refuses a position of another life, and a bare one that may be of another: what that life had there
    /// is not what this one has, and whoever went on from there would miss events without a word.
    pub fn check(&self, wanted: &Wanted) -> Result<(), Problem> {
        match (&wanted.incarnation, self.shared) {
            (None, Some(shared)) if wanted.position > shared => Err(wanted.unknown(
                "this position may be of another life of the log: it was restored from a backup since; \
                 send it with its incarnation, or begin anew",
            )),
            (Some(other), _) if *other != self.incarnation => {
                Err(wanted.unknown("this position is of another life of the log"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_bare_position_counts_as_far_as_all_lives_are_the_same() {
        let lives = |shared| Lives { shared, incarnation: "b".to_owned() };
        let fits =
            |lives: &Lives, text: &str| lives.check(&Wanted::read("after", text).unwrap()).is_ok();
        let (first, second) = (lives(None), lives(Some(846)));
        assert_eq!((first.id(9), second.id(9)), ("9".to_owned(), "b.9".to_owned()));
        assert!(fits(&first, "858") && fits(&first, "0"));
        assert!(fits(&second, "846") && fits(&second, "b.858"));
        assert!(!fits(&second, "847") && !fits(&second, "858"));
        assert!(!fits(&second, "a.7") && !fits(&first, "a.7") && fits(&first, "b.858"));
        assert!(!fits(&lives(Some(0)), "1") && fits(&lives(Some(0)), "0"));
    }
}
