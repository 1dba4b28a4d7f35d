//! What the product's own check says of a log: it must accuse none that the product has written.

use std::sync::Arc;

use async_trait::async_trait;
use proximity_eventstore::{Position, Recorded};
use proximity_projections::replay::{Until, judge};
use proximity_projections::{BuildProgress, Error, Feed};
use tokio::sync::watch;

/// A log that is a list.
struct Listed(Vec<Recorded>);

#[async_trait]
impl Feed for Listed {
    async fn events(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        let begin = self.0.partition_point(|event| event.position <= after);
        Ok(self.0[begin..].iter().take(limit).cloned().collect())
    }

    async fn stream(&self, aggregate_type: &str, id: &str) -> Result<Vec<Recorded>, Error> {
        let its =
            |event: &&Recorded| event.aggregate_type == aggregate_type && event.aggregate_id == id;
        Ok(self.0.iter().filter(its).cloned().collect())
    }

    async fn head(&self) -> Result<Position, Error> {
        Ok(self.0.last().map_or(0, |last| last.position))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        watch::channel(0).1
    }

    fn incarnation(&self) -> String {
        String::new()
    }
}

/// What `audit replay --check` finds wrong with these events, a sentence each.
pub async fn accusations(events: Vec<Recorded>) -> Vec<String> {
    let silent = Arc::new(|_: BuildProgress| {});
    let report = judge(Arc::new(Listed(events)), Until::Head, silent).await.unwrap();
    let first = report.findings.first.into_iter();
    first.map(|one| format!("{:?} {}: {}", one.position, one.subject, one.problem)).collect()
}

/// The same of a log whose hosts and users were put there by a test, which takes no leases for them.
pub async fn accusations_but_of_names(events: Vec<Recorded>) -> Vec<String> {
    let mut all = accusations(events).await;
    let by_hand = |one: &str| one.starts_with("None host/") || one.starts_with("None user/");
    all.retain(|one| !(by_hand(one) && one.contains("it does not hold")));
    all
}
