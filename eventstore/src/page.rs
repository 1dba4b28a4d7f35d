//! A page of the log in one piece of memory: what read models are folded from.
//!
//! A log of a million events is read for each rebuild; a handful of allocations for each of them, made
//! on one thread and freed on another, would take a good part of its time.

use std::ops::Range;

use crate::append::{Position, Recorded};

/// One stored event, borrowed; its metadata, which no read model is made of, is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'p> {
    pub position: Position,
    pub aggregate_type: &'p str,
    pub aggregate_id: &'p str,
    pub sequence: u64,
    pub event_type: &'p str,
    pub event_version: &'p str,
    /// JSON text as stored.
    pub payload: &'p str,
    /// Microseconds since 1970, the database host's clock.
    pub recorded_at: i64,
}

impl Recorded {
    /// The same without its metadata.
    pub fn stored(&self) -> Stored<'_> {
        Stored {
            position: self.position,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            sequence: self.sequence,
            event_type: &self.event_type,
            event_version: &self.event_version,
            payload: &self.payload,
            recorded_at: self.recorded_at,
        }
    }
}

/// Events in order, without a gap.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Each type of stream that occurs; there are few.
    types: Vec<String>,
    /// All other texts, one after the other.
    text: String,
    places: Vec<Place>,
}

/// Where an event's texts begin and end.
#[derive(Debug, Clone)]
struct Place {
    position: Position,
    sequence: u64,
    recorded_at: i64,
    aggregate_type: usize,
    start: usize,
    ends: [usize; 4],
}

impl Page {
    /// Adds an event at the end.
    pub fn push(&mut self, event: Stored<'_>) {
        let known = self.types.iter().position(|known| known == event.aggregate_type);
        let aggregate_type = known.unwrap_or_else(|| {
            self.types.push(event.aggregate_type.to_owned());
            self.types.len() - 1
        });
        let start = self.text.len();
        let texts = [event.aggregate_id, event.event_type, event.event_version, event.payload];
        let ends = texts.map(|text| {
            self.text.push_str(text);
            self.text.len()
        });
        let Stored { position, sequence, recorded_at, .. } = event;
        self.places.push(Place { position, sequence, recorded_at, aggregate_type, start, ends });
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Position of the last event.
    pub fn last(&self) -> Option<Position> {
        self.places.last().map(|place| place.position)
    }

    /// The events, in order.
    pub fn iter(&self) -> impl Iterator<Item = Stored<'_>> {
        self.places.iter().map(|place| self.stored(place))
    }

    /// The events after a position of streams of a type, in order; the others cost next to nothing.
    pub fn of(&self, aggregate_type: &str, after: Position) -> impl Iterator<Item = Stored<'_>> {
        self.places_of(aggregate_type, after).map(|place| self.stored(place))
    }

    /// The stream and the sequence of each of those, for whoever needs no more.
    pub fn streams(
        &self,
        aggregate_type: &str,
        after: Position,
    ) -> impl Iterator<Item = (&str, u64)> {
        self.places_of(aggregate_type, after)
            .map(|place| (self.text_in(place.start..place.ends[0]), place.sequence))
    }

    fn places_of(&self, aggregate_type: &str, after: Position) -> impl Iterator<Item = &Place> {
        let wanted = self.types.iter().position(|known| known == aggregate_type);
        let its =
            move |place: &&Place| Some(place.aggregate_type) == wanted && place.position > after;
        self.places.iter().filter(its)
    }

    fn text_in(&self, range: Range<usize>) -> &str {
        self.text.get(range).unwrap_or_default()
    }

    /// Drops the events after a position.
    pub fn truncate(&mut self, to: Position) {
        self.places.truncate(self.places.partition_point(|place| place.position <= to));
        self.text.truncate(self.places.last().map_or(0, |last| last.ends[3]));
    }

    fn stored(&self, place: &Place) -> Stored<'_> {
        let [id, event_type, version, payload] = place.ends;
        Stored {
            position: place.position,
            aggregate_type: self.types.get(place.aggregate_type).map_or("", String::as_str),
            aggregate_id: self.text_in(place.start..id),
            sequence: place.sequence,
            event_type: self.text_in(id..event_type),
            event_version: self.text_in(event_type..version),
            payload: self.text_in(version..payload),
            recorded_at: place.recorded_at,
        }
    }
}

impl<'r> FromIterator<&'r Recorded> for Page {
    fn from_iter<I: IntoIterator<Item = &'r Recorded>>(events: I) -> Self {
        let mut page = Self::default();
        for event in events {
            page.push(event.stored());
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: Position, payload: &str) -> Recorded {
        Recorded {
            position,
            aggregate_type: if position == 5 { "application" } else { "lease" }.to_owned(),
            aggregate_id: format!("hostname/ü{position}"),
            sequence: position + 7,
            event_type: String::new(),
            event_version: "1".to_owned(),
            payload: payload.to_owned(),
            metadata: "{}".to_owned(),
            recorded_at: -3,
        }
    }

    #[test]
    fn a_page_gives_back_what_was_put_in() {
        let events = [event(4, "{}"), event(5, ""), event(6, r#"{"a":"é"}"#)];
        let page: Page = events.iter().collect();
        assert!(page.iter().eq(events.iter().map(Recorded::stored)));
        assert_eq!((page.len(), page.last()), (3, Some(6)));
        assert!(page.of("lease", 0).eq([events[0].stored(), events[2].stored()]));
        assert!(page.of("lease", 4).eq([events[2].stored()]));
        assert_eq!(page.of("host", 0).next(), None);
        assert!(page.streams("lease", 4).eq([("hostname/ü6", 13)]));
    }

    #[test]
    fn a_page_that_was_cut_off_can_be_added_to() {
        let events = [event(4, "{}"), event(5, "{\"b\":1}"), event(6, "{}")];
        let mut page: Page = events.iter().collect();
        page.truncate(9);
        assert_eq!(page.len(), 3);
        page.truncate(4);
        page.push(events[1].stored());
        assert!(page.iter().eq(events[..2].iter().map(Recorded::stored)));
        page.truncate(3);
        assert!(page.is_empty());
        page.push(events[2].stored());
        assert!(page.iter().eq([events[2].stored()]));
    }
}
