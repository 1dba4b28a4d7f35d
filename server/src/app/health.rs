//! How the server and what it rests on are, looked up once a second at most.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::App;
use crate::http::handlers::health::Health;
use crate::http::problem::chain;

/// For how long an answer is given again: a look costs a write.
const FRESH: Duration = Duration::from_secs(1);
/// Events that the views may be behind and still be called near.
const NEAR: u64 = 10_000;

/// The last look.
#[derive(Default)]
pub struct Cache(Mutex<Option<(Instant, Health)>>);

impl App {
    /// How this server and what it rests on are.
    pub async fn health(&self) -> Health {
        let mut last = self.health.0.lock().await;
        if let Some((when, health)) = last.as_ref()
            && when.elapsed() < FRESH
        {
            return health.clone();
        }
        let health = self.look().await;
        *last = Some((Instant::now(), health.clone()));
        health
    }

    async fn look(&self) -> Health {
        let writable = match self.store.ping_writable().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the store does not accept writes");
                false
            }
        };
        let head = *self.store.watch_head().borrow();
        let near = self.views.serves(head, NEAR).await;
        let keys = match self.commands.secrets.missing().await {
            Ok(missing) => missing.is_none(),
            Err(error) => {
                // Then the store is what is not well, and says so.
                tracing::debug!(
                    error = chain(&error),
                    "what the log says of the keys is not known"
                );
                true
            }
        };
        // A round that failed is said in the log once, and here for as long as it lasts.
        let sealed = self.store.seal_state().is_none_or(|state| state.trouble.is_none());
        let word = |well: bool| if well { "connected" } else { "unavailable" };
        Health {
            status: if writable && near && sealed && keys { "healthy" } else { "degraded" },
            service: "proximity",
            version: env!("CARGO_PKG_VERSION"),
            database: word(writable),
            cache: word(near),
            seals: if sealed { "sealed" } else { "failing" },
            keys: if keys { "held" } else { "missing" },
        }
    }
}
