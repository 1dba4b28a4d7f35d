//! Waits until the application answers: a deployment is done then, and not when its container runs.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proximity_domain::operation::Finding;
use proximity_domain::plan::{Health, Plan, Probe};

use super::step::{Step, StepError};
use super::work::Work;

/// `wait_healthy`.
pub(super) struct WaitHealthy;

#[async_trait]
impl Step for WaitHealthy {
    fn name(&self) -> &'static str {
        "wait_healthy"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let guest = work.guest()?.clone();
        let health = work.health()?.clone();
        let node = work.ours(&guest).await?;
        let started = Instant::now();
        let patience = Duration::from_secs(u64::from(health.within_s));
        let mut last = String::from("it has no address yet");
        loop {
            if !work.runs(&node, guest.vmid).await? {
                return Err(StepError::retryable("the container does not stay up"));
            }
            let addresses = work.hypervisor.addresses(&node, guest.vmid).await?;
            for address in preferred(addresses) {
                match work.knock(&health.probe, address).await {
                    Ok(()) => return Ok(Some(Finding::Address(address))),
                    Err(why) => last = why,
                }
            }
            if started.elapsed() >= patience.max(work.env.config.address_patience) {
                return Err(StepError::permanent(format!(
                    "the application did not answer within {} s: {last}",
                    health.within_s
                )));
            }
            work.pause(work.env.config.poll).await?;
        }
    }

    /// A look has nothing to take back.
    async fn undo(&self, _work: &Work<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

impl Work<'_> {
    fn health(&self) -> Result<&Health, StepError> {
        match &self.progress.plan {
            Plan::Deploy(plan) => Ok(&plan.health),
            Plan::Start(plan) | Plan::Restart(plan) => Ok(&plan.health),
            Plan::Clone(plan) => Ok(&plan.health),
            Plan::Restore(plan) => Ok(&plan.health),
            Plan::Stop(_)
            | Plan::Delete(_)
            | Plan::Adopt(_)
            | Plan::Backup(_)
            | Plan::BackupDelete(_) => {
                Err(StepError::permanent("nothing is waited for after this operation"))
            }
        }
    }

    async fn knock(&self, probe: &Probe, address: IpAddr) -> Result<(), String> {
        match probe {
            Probe::Running => Ok(()),
            Probe::Tcp { port } => self.env.prober.tcp(SocketAddr::new(address, port.get())).await,
            Probe::Http { port, path, expect } => {
                let at = SocketAddr::new(address, port.get());
                let status = self.env.prober.http(at, path).await?;
                let good = expect.map_or(status < 400, |expect| status == expect);
                if good { Ok(()) } else { Err(format!("it answers with status {status}")) }
            }
        }
    }
}

/// IPv4 first, since published ports are forwarded to the first address that answers.
fn preferred(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.retain(|address| match address {
        IpAddr::V4(_) => true,
        // Link-local addresses need a scope that Proxmox does not tell.
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    });
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}
