//! What a restored installation found different on Proxmox, and what it would go on with.

use proximity_commands::restored::Restoration;
use proximity_domain::HostId;
use proximity_domain::host::Host;
use proximity_eventstore::Store;
use proximity_projections::Views;
use proximity_projections::operations::OperationFilter;
use serde::Serialize;
use utoipa::ToSchema;

use crate::moment::rfc3339;

/// Rows of each kind that are shown.
const SHOWN: u32 = 1_000;

/// How a restoration stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct RestoreStatus {
    /// The restoration that waits for a confirmation; null when there is none.
    pub restored: Option<RestoredFrom>,
    /// What is not as the log says, and the operations that go on after the confirmation.
    pub differences: Vec<Different>,
}

/// What was restored.
#[derive(Debug, Serialize, ToSchema)]
pub struct RestoredFrom {
    /// The life of the log that began with it.
    pub incarnation: String,
    /// The life that the backup was taken from.
    pub previous: String,
    /// Of the last event in the backup.
    pub position: u64,
    /// RFC 3339.
    pub taken_at: String,
}

/// One thing to look at before confirming.
#[derive(Debug, Serialize, ToSchema)]
pub struct Different {
    /// `operation`: it was open when the backup was taken, and goes on; `application`: its container is
    /// gone, replaced or otherwise than recorded; `container`: it is there, and not as the log says.
    #[schema(example = "operation")]
    pub what: &'static str,
    /// Of the operation or application, or `host/VMID`.
    pub id: String,
    /// What it is.
    pub detail: String,
}

/// Reads it from the log and the views; the comparison itself is made by the server, each minute.
pub async fn status(store: &Store, views: &Views) -> anyhow::Result<RestoreStatus> {
    let observing = Restoration::new(store.clone()).observing().await?;
    let restored = observing.map(|restored| RestoredFrom {
        incarnation: restored.incarnation.simple().to_string(),
        previous: restored.previous.simple().to_string(),
        position: restored.position,
        taken_at: rfc3339(restored.taken_at),
    });
    let mut differences = Vec::new();
    if restored.is_none() {
        return Ok(RestoreStatus { restored, differences });
    }
    for state in ["planned", "running", "unwinding", "stuck"] {
        let filter = OperationFilter { owner: None, state: Some(state.to_owned()), app: None };
        for operation in views.operations(&filter, 1, SHOWN).await?.items {
            let row = serde_json::to_value(&operation)?;
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            differences.push(Different {
                what: "operation",
                id: text("id"),
                detail: format!("{} of {}, {state}", text("kind"), text("app")),
            });
        }
    }
    let position = Restoration::new(store.clone()).observing().await?.map_or(0, |r| r.position);
    let mut after = position;
    loop {
        let page = store.feed(after, 1_000).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        for event in page {
            let detail = match event.event_type.as_str() {
                "application.lost" => "its container is gone, or another one has its number",
                "application.observed" => {
                    "its container runs, stands or lies otherwise than recorded"
                }
                _ => continue,
            };
            let id = event.aggregate_id;
            differences.push(Different { what: "application", id, detail: detail.to_owned() });
        }
    }
    for host in views.hosts().await? {
        let id = HostId(host.id).to_string();
        let (state, _) = proximity_commands::dispatch::load::<Host>(store, &id).await?;
        for found in state.registration().iter().flat_map(|host| &host.discrepancies) {
            differences.push(Different {
                what: "container",
                id: format!("{}/{}", host.name, found.vmid),
                detail: format!("{:?} of {}", found.kind, found.application).to_lowercase(),
            });
        }
    }
    Ok(RestoreStatus { restored, differences })
}
