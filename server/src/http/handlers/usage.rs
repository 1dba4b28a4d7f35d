//! What applications use: the last figures on each of them, and Proxmox's own record of one.

use proximity_commands::policy::Owned;
use proximity_commands::ports::{Hypervisors as _, Span, UsageSample};
use proximity_domain::{ApplicationId, HostId, NodeName, Vmid};
use proximity_projections::App;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::unavailable;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::moment::rfc3339;

/// What an application uses; what is not known is null.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Share of the given cores, 0 to 1.
    pub cpu_usage: Option<f64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
}

/// The average of one stretch of time; what Proxmox has no sample of is null.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sample {
    /// RFC 3339.
    pub time: String,
    /// Share of the given cores, 0 to 1.
    pub cpu_usage: Option<f64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
    /// Bytes per second that came in over the network.
    pub net_in: Option<f64>,
    /// Bytes per second that went out over the network.
    pub net_out: Option<f64>,
    /// Bytes per second read from its disk.
    pub disk_read: Option<f64>,
    /// Bytes per second written to its disk.
    pub disk_write: Option<f64>,
}

/// Figures of an application.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppStats {
    /// The application.
    pub app_id: String,
    /// How far back the samples go.
    #[schema(example = "hour")]
    pub timeframe: &'static str,
    /// At the last look at its host, a minute ago at most.
    pub current: Usage,
    /// Oldest first; null while its host does not answer or it has no container.
    pub samples: Option<Vec<Sample>>,
}

/// How far back is looked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatsWanted {
    /// `hour` (the default), `day`, `week`, `month` or `year`.
    pub timeframe: Option<String>,
}

impl From<UsageSample> for Sample {
    fn from(sample: UsageSample) -> Self {
        Self {
            time: rfc3339(sample.time.saturating_mul(1_000_000)),
            cpu_usage: sample.cpu,
            memory_used: sample.memory_used,
            memory_total: sample.memory_total,
            disk_used: sample.disk_used,
            disk_total: sample.disk_total,
            net_in: sample.net_in,
            net_out: sample.net_out,
            disk_read: sample.disk_read,
            disk_write: sample.disk_write,
        }
    }
}

/// Puts the last figures on an application; without a recent look they stay null.
pub(super) fn fill(call: &Call, app: &mut App) {
    let vmid = app.vmid.and_then(|vmid| Vmid::try_from(i64::from(vmid)).ok());
    let Some(guest) =
        vmid.and_then(|vmid| call.app.commands.watch.guest(HostId(app.host_id), vmid))
    else {
        return;
    };
    app.cpu_usage = guest.cpu;
    app.memory_used = guest.memory_used;
    app.memory_total = guest.memory_total;
    app.disk_used = guest.disk_used;
    app.disk_total = guest.disk_total;
}

/// What it uses, now and before.
#[utoipa::path(get, path = "/api/apps/{id}/stats", tag = "apps", params(("id" = String, Path, description = "The application's id"), StatsWanted), responses((status = 200, description = "Its figures", body = AppStats)))]
pub async fn stats(call: Call) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    let owned: Owned<ApplicationId> = Owned::prove_text(&call.app.store, &call.actor, &id).await?;
    let wanted: StatsWanted = call.query()?;
    let name = wanted.timeframe.unwrap_or_else(|| Span::Hour.as_str().to_owned());
    let span = Span::ALL.into_iter().find(|span| span.as_str() == name).ok_or_else(|| {
        let detail = "timeframe is hour, day, week, month or year";
        Problem::field("?timeframe", "query.out_of_range", detail)
    })?;
    let found = call.app.views.app(owned.id().as_str(), false).await.map_err(unavailable)?;
    let mut app = found.ok_or_else(Problem::not_found)?;
    fill(&call, &mut app);
    let current = Usage {
        cpu_usage: app.cpu_usage,
        memory_used: app.memory_used,
        memory_total: app.memory_total,
        disk_used: app.disk_used,
        disk_total: app.disk_total,
    };
    let samples = samples(&call, &app, span).await;
    Reply::json(&AppStats { app_id: app.id, timeframe: span.as_str(), current, samples })
}

/// A host that does not answer is no reason to refuse: what is not known is null.
async fn samples(call: &Call, app: &App, span: Span) -> Option<Vec<Sample>> {
    let vmid = Vmid::try_from(i64::from(app.vmid?)).ok()?;
    let node: NodeName = app.node.parse().ok()?;
    let asked = async {
        let hypervisor = call.app.commands.directory.of(HostId(app.host_id)).await?;
        hypervisor.usage(&node, vmid, span).await
    };
    match asked.await {
        Ok(samples) => Some(samples.into_iter().map(Sample::from).collect()),
        Err(error) => {
            tracing::warn!(application = app.id, %error, "its figures cannot be read");
            None
        }
    }
}
