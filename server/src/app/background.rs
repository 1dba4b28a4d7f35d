//! What runs behind the handlers, and how it ends.

use std::sync::{Arc, Mutex, PoisonError};

use super::App;
use crate::publish::{self, Publisher};

/// Handles of everything that runs; empty before the start and after the end.
#[derive(Default)]
pub struct Background(Mutex<Option<Running>>);

struct Running {
    views: proximity_projections::Runner,
    publisher: Option<publish::Handle>,
}

impl Background {
    /// Starts everything.
    pub fn start(&self, app: &Arc<App>) {
        let running = Running {
            views: app.views.follow(),
            publisher: Publisher::start(
                app.store.clone(),
                app.views.clone(),
                &app.config.publish,
                app.published.clone(),
            ),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    /// Ends everything, the views last, since the others read them.
    pub async fn stop(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        if let Some(publisher) = running.publisher {
            publisher.stop().await;
        }
        running.views.stop().await;
    }
}
