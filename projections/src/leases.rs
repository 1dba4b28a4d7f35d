//! The read model of leases: what is not free, so that pools can be drawn from.

use proximity_domain::lease::{Event, Holder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cell::{Cell, Column, Kind, Table};
use crate::error::Error;
use crate::projection::{At, Cannot, Projection};
use crate::views::Views;

/// The projection `leases`; a thing that is free has no row.
pub struct Leases;

/// One thing that is not free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseRow {
    /// The thing itself, e.g. `port/public/8100`.
    pub key: String,
    /// `held`, `quarantined` or `foreign`.
    pub state: String,
    /// E.g. `application/nginx-0badcafe`; null for what is foreign.
    pub holder: Option<String>,
    /// Microseconds since 1970 before which it is not leased again.
    pub until: Option<i64>,
    /// Why it is quarantined or foreign.
    pub reason: Option<String>,
}

impl Projection for Leases {
    const NAME: &'static str = "leases";
    const VERSION: i32 = 1;
    const STREAM: &'static str = "lease";
    const TABLE: Table = Table {
        name: "leases",
        key: Column::text("id"),
        columns: &[Column::text("state"), Column::text("holder"), Column::text("body")],
        indexes: &["holder"],
    };

    type Event = Event;
    type Row = LeaseRow;

    fn apply(row: &mut Option<LeaseRow>, event: Event, at: At<'_>) -> Result<(), Cannot> {
        let taken = |state: &str, holder: Option<&Holder>, until, reason| {
            let key = at.id.to_owned();
            let holder = holder.map(holder_text);
            Some(LeaseRow { key, state: state.to_owned(), holder, until, reason })
        };
        *row = match event {
            Event::Acquired { holder } => taken("held", Some(&holder), None, None),
            Event::Quarantined { holder, until, reason } => {
                taken("quarantined", Some(&holder), Some(until), Some(reason))
            }
            Event::FoundForeign { reason } => taken("foreign", None, None, Some(reason)),
            Event::Released { holder: _ } | Event::Cleared => None,
        };
        Ok(())
    }

    fn columns(row: &LeaseRow) -> Vec<Cell> {
        vec![row.state.as_str().into(), row.holder.as_deref().into()]
    }
}

fn holder_text(holder: &Holder) -> String {
    match holder {
        Holder::Application(id) => format!("application/{id}"),
        Holder::Operation(id) => format!("operation/{id}"),
        Holder::User(id) => format!("user/{id}"),
        Holder::Host(id) => format!("host/{id}"),
    }
}

/// The keys that start with `prefix/`: in byte order `0` comes right after `/`.
const WITHIN: &str = "id >= $1 and id < $2";

fn bounds(prefix: &str) -> Vec<Cell> {
    let prefix = prefix.trim_end_matches('/');
    vec![format!("{prefix}/").into(), format!("{prefix}0").into()]
}

impl Views {
    /// The last parts of the keys under a prefix that are not free, sorted as text: for
    /// `port/public` the ports, for `vmid/<cluster>` the numbers.
    pub async fn leases_taken(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let sql = format!("select id from leases where {WITHIN} order by id");
        let rows = self.select(&sql, bounds(prefix), &[Kind::Text]).await?;
        let cut = prefix.trim_end_matches('/').len() + 1;
        let keys = rows.into_iter().filter_map(|mut row| row.pop()?.text());
        Ok(keys.map(|key| key.get(cut..).unwrap_or_default().to_owned()).collect())
    }

    /// The numbers under a prefix that are not free; keys that end in no number are left out.
    pub async fn numbers_taken(&self, prefix: &str) -> Result<Vec<u32>, Error> {
        let taken = self.leases_taken(prefix).await?;
        Ok(taken.iter().filter_map(|key| key.parse().ok()).collect())
    }

    /// How many keys under a prefix are not free.
    pub async fn count_taken(&self, prefix: &str) -> Result<u64, Error> {
        let sql = format!("select count(*) from leases where {WITHIN}");
        let rows = self.select(&sql, bounds(prefix), &[Kind::Integer]).await?;
        let count = rows.first().and_then(|row| row.first()).and_then(Cell::integer);
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }

    /// Everything that is not free, by key; `holder` (e.g. `application/nginx-0badcafe`) narrows it.
    pub async fn leases(&self, holder: Option<&str>) -> Result<Vec<LeaseRow>, Error> {
        let (filter, cells) = match holder {
            Some(holder) => ("where holder = $1", vec![Cell::from(holder)]),
            None => ("", Vec::new()),
        };
        let sql = format!("select body from leases {filter} order by id");
        self.bodies(&sql, cells, "leases").await
    }

    /// One thing that is not free, by its key.
    pub async fn lease(&self, key: &str) -> Result<Option<LeaseRow>, Error> {
        let sql = "select body from leases where id = $1";
        Ok(self.bodies(sql, vec![key.into()], "leases").await?.pop())
    }
}
