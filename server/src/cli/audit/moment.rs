//! Moments as they are given on the command line.

use proximity_eventstore::{Position, Store};

use super::super::Failure;
use crate::past::{self, Moment};

/// A moment as in RFC 3339, in µs since 1970.
pub fn micros(text: &str) -> Result<i64, String> {
    past::micros(text)
        .ok_or_else(|| "a moment is written as in RFC 3339, e.g. 2030-01-31T12:00:00Z".to_owned())
}

/// A moment, or a position of the log.
pub fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(position) = text.parse() {
        return Ok(Moment::Position(position));
    }
    // As HTTP gives it, after the id of a life of the log.
    if let Some((_, position)) = text.rsplit_once('.')
        && position.parse::<Position>().is_ok()
        && past::micros(text).is_none()
    {
        return Err(format!("write the position alone: {position}"));
    }
    past::micros(text).map(Moment::Time).ok_or_else(|| {
        "a position of the log, or a moment as in RFC 3339, e.g. 2030-01-31T12:00:00Z".to_owned()
    })
}

/// Refuses a position that is not in the log, by the name of its option: what it would answer would be of
/// another moment.
pub async fn within(store: &Store, option: &str, position: Position) -> Result<(), Failure> {
    let head = store.head().await.map_err(anyhow::Error::from)?;
    if position > head {
        let text = format!("{option}: there is no position {position}: the log ends at {head}");
        return Err(Failure::NoSuchThing(text));
    }
    Ok(())
}

/// The same of a moment that is one.
pub async fn known(store: &Store, option: &str, moment: Option<Moment>) -> Result<(), Failure> {
    match moment {
        Some(Moment::Position(position)) => within(store, option, position).await,
        Some(Moment::Time(_)) | None => Ok(()),
    }
}
