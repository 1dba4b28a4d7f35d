//! A store in a temporary directory and actors for this crate's tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proximity_domain::user::Role;
use proximity_domain::{SessionId, UserId};
use proximity_eventstore::{Append, Lane, Options, SideWrite, Store};
use tempfile::TempDir;
use uuid::Uuid;

use crate::clock::{Clock, Micros};
use crate::{Actor, CredentialUsed, Identity};

/// The embedded store, gone with the test.
pub(crate) struct Site {
    pub store: Store,
    pub directory: TempDir,
}

impl Site {
    pub(crate) async fn open() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(Options::sqlite(directory.path())).await.unwrap();
        Self { store, directory }
    }

    /// Side rows alone.
    pub(crate) async fn write(&self, side: Vec<SideWrite>) {
        let append = Append {
            id: Uuid::now_v7(),
            lane: Lane::Outcome,
            streams: vec![],
            assertions: vec![],
            side,
            metadata: "{}".into(),
            fence: None,
            idempotency: None,
        };
        self.store.append(append).await.unwrap();
    }

    /// Everything that the log holds, as text.
    pub(crate) async fn whole_log(&self) -> String {
        let events = self.store.feed(0, 100_000).await.unwrap();
        events.iter().map(|event| format!("{event:?}\n")).collect()
    }

    /// Event types of one stream, in order.
    pub(crate) async fn history(&self, kind: &str, id: &str) -> Vec<String> {
        let events = self.store.load_stream(kind, id).await.unwrap();
        events.into_iter().map(|event| event.event_type).collect()
    }
}

fn signed_in(id: i64, role: Role) -> Actor {
    let credential = CredentialUsed::Session(SessionId(Uuid::new_v4()));
    let identity = Identity::User { id: UserId(id), role, credential };
    Actor::new(identity, Some([192, 0, 2, 7].into()), Some("request".into()))
}

pub(crate) fn a_user(id: i64) -> Actor {
    signed_in(id, Role::User)
}

pub(crate) fn an_admin(id: i64) -> Actor {
    signed_in(id, Role::Admin)
}

/// A clock that stands still until it is moved.
pub(crate) struct Stopped(AtomicI64);

impl Stopped {
    pub(crate) fn at(now: Micros) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now)))
    }

    pub(crate) fn advance(&self, micros: Micros) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for Stopped {
    fn now(&self) -> Micros {
        self.0.load(Ordering::SeqCst)
    }
}
