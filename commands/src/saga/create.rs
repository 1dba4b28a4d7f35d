//! Makes the application's container, stopped, with our marker in its description.

use std::collections::BTreeMap;

use async_trait::async_trait;
use proximity_domain::AddressMode;
use proximity_domain::operation::Finding;
use proximity_domain::plan::{DeployPlan, Source};

use super::guest::{Found, said};
use super::place::Place;
use super::step::{Step, StepError};
use super::work::Work;
use crate::marker::Marker;
use crate::ports::{GuestAddress, NewGuest, Process};

/// `create_container`.
pub(super) struct CreateContainer;

#[async_trait]
impl Step for CreateContainer {
    fn name(&self) -> &'static str {
        "create_container"
    }

    async fn makes(&self, work: &Work<'_>) -> Result<Option<Place>, StepError> {
        let plan = work.deployment()?;
        Ok(Some(Place::on(&plan.guest, &plan.disk_storage)))
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.deployment()?;
        if work.recovering {
            work.settle(plan.guest.vmid).await?;
        }
        let guest = work.new_guest(plan).await?;
        match work.find(&plan.guest).await? {
            Found::Ours { node, config } => {
                work.ensure_process(&node, guest.vmid, &guest.process, &config).await?;
                return Ok(None);
            }
            Found::Foreign => return Err(StepError::VmidTaken),
            Found::Creating => {
                return Err(StepError::retryable(
                    "the number is locked by a creation that no task works on",
                ));
            }
            Found::Nothing if work.recovering => work.ensure_no_volumes(&plan.guest).await?,
            Found::Nothing => {}
        }
        let created = work.run(work.hypervisor.create(&plan.guest.node, &guest)).await;
        let ended = match created {
            // Taken a moment after the look: by whom, the next look says.
            Err(StepError::VmidTaken) => None,
            other => other?,
        };
        match work.find(&plan.guest).await? {
            Found::Ours { node, config } => {
                work.ensure_process(&node, guest.vmid, &guest.process, &config).await?;
                Ok(None)
            }
            Found::Foreign => Err(StepError::VmidTaken),
            Found::Creating | Found::Nothing => {
                Err(StepError::retryable(format!("no container came of it: {}", said(ended))))
            }
        }
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        let guest = &work.deployment()?.guest;
        work.ensure_gone(guest).await?;
        work.ensure_no_volumes(guest).await
    }
}

impl Work<'_> {
    async fn new_guest(&self, plan: &DeployPlan) -> Result<NewGuest, StepError> {
        let archive = self.progress.findings.values().find_map(|finding| match finding {
            Finding::Archive { volume, .. } => Some(volume.clone()),
            Finding::Address(_) | Finding::Backup(_) => None,
        });
        let Some(archive) = archive else {
            return Err(StepError::permanent("no template and no image was found"));
        };
        let marker =
            Marker { application: self.application().clone(), operation: self.hold.operation };
        let network = &plan.network;
        let address = match (network.mode(), plan.holdings.address) {
            (AddressMode::Static, Some(address)) => GuestAddress::Static {
                address,
                subnet: network.subnet(),
                gateway: network.gateway(),
            },
            _ => GuestAddress::Dhcp,
        };
        let (entrypoint, is_image) = match &plan.source {
            Source::Oci { entrypoint, .. } => (entrypoint.clone(), true),
            Source::Template { .. } => (None, false),
        };
        // A container from a template runs no process of its own that could take an environment.
        let environment = if is_image {
            self.opened(&plan.environment, |_| true).await?
        } else {
            BTreeMap::new()
        };
        Ok(NewGuest {
            vmid: plan.guest.vmid,
            hostname: plan.holdings.hostname.clone(),
            archive,
            description: self.env.markers.describe(&marker, &plan.guest.cluster, plan.guest.vmid),
            disk_storage: plan.disk_storage.clone(),
            disk: plan.resources.disk,
            resources: plan.resources,
            bridge: network.bridge().to_owned(),
            address,
            dns: [Some(network.dns_primary()), network.dns_secondary()]
                .into_iter()
                .flatten()
                .collect(),
            unprivileged: plan.unprivileged,
            features: plan.features.clone(),
            protection: true,
            process: Process { entrypoint, environment },
        })
    }
}
