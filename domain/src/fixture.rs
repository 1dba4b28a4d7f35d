//! Holds each event against the file that shows how it is stored; only tests use this.

use std::fmt::Debug;
use std::path::PathBuf;

use cqrs_es::DomainEvent;

/// The stored form in `fixtures/events/<type>.v<version>.json` must read as this event, and this
/// event must still be written as that form. A fixture is only ever added, never edited.
pub(crate) fn assert_stored_as_promised<E: DomainEvent + Debug>(event: &E) {
    let file: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "fixtures",
        "events",
        &format!("{}.v{}.json", event.event_type(), event.event_version()),
    ]
    .iter()
    .collect();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{} has no fixture: {error}", file.display()));
    let stored: serde_json::Value = serde_json::from_str(&text).expect("a fixture is JSON");
    let read: E = serde_json::from_value(stored.clone()).expect("a stored event can be read");
    assert_eq!(&read, event, "{} reads as another event", file.display());
    let written = serde_json::to_value(event).expect("an event can be written");
    assert_eq!(written, stored, "{} would be written differently now", file.display());
}
