//! What an image's container runs: told to a new one, and to a restored one what its restore left out.

use std::collections::BTreeMap;

use proximity_domain::application::{Application, Event, Origin, Requested};
use proximity_domain::operation::Event as OperationEvent;
use proximity_domain::plan::{Plan, RestorePlan, Source};
use proximity_domain::{ApplicationId, EnvValue, NodeName, Vmid};

use super::guest::Found;
use super::step::StepError;
use super::work::Work;
use crate::dispatch::load;
use crate::error::Error;
use crate::ports::{GuestConfig, Process};
use crate::secret_uses::By;

/// Copies of copies that are followed back to what was deployed.
const COPIES: usize = 64;

impl Work<'_> {
    /// An image's container is told its process once it is there: its creation takes the image's.
    pub(super) async fn ensure_process(
        &self,
        node: &NodeName,
        vmid: Vmid,
        process: &Process,
        config: &GuestConfig,
    ) -> Result<(), StepError> {
        if process.is_empty() {
            return Ok(());
        }
        self.before_effect().await?;
        Ok(self.hypervisor.set_process(node, vmid, process, config).await?)
    }

    /// Gives a restored container the process that it had when the archive was made: a restore by an
    /// API token leaves raw lines out, and the environment consists of them (ADR 0027). Where the
    /// archive says nothing, since it is of a container that was restored so itself, what the
    /// application was deployed with stands in.
    pub(super) async fn ensure_restored_process(
        &self,
        plan: &RestorePlan,
    ) -> Result<(), StepError> {
        let mut process = self.hypervisor.archived(&plan.guest.node, &plan.archive).await?.process;
        if let Some((requested, entrypoint)) = self.deployed_from_an_image().await? {
            process.entrypoint = process.entrypoint.or(entrypoint);
            let missing = |name: &str| !process.environment.contains_key(name);
            let mut ours = self.opened(&requested.environment, missing).await?;
            // Taken by earlier versions; Proxmox never had more than their first line.
            ours.retain(|_, value| !value.chars().any(|c| c.is_control() && c != '\t'));
            process.environment.extend(ours);
        }
        match self.find(&plan.guest).await? {
            Found::Ours { node, config } => {
                self.ensure_process(&node, plan.guest.vmid, &process, &config).await
            }
            Found::Nothing | Found::Foreign | Found::Creating => {
                Err(StepError::retryable("the restored container is not to be seen any more"))
            }
        }
    }

    /// These variables in clear, of those whose names are `wanted`.
    pub(super) async fn opened(
        &self,
        environment: &BTreeMap<String, EnvValue>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, String>, StepError> {
        let by = By::operation(self.hold.operation, self.progress.owner);
        let mut opened = BTreeMap::new();
        for (name, value) in environment.iter().filter(|(name, _)| wanted(name)) {
            let text = match value {
                EnvValue::Plain(text) => text.clone(),
                EnvValue::Secret(id) => {
                    let secret = self.env.secrets.open(*id, self.application(), &by).await;
                    secret.map_err(StepError::Store)?.expose().to_owned()
                }
            };
            opened.insert(name.clone(), text);
        }
        Ok(opened)
    }

    /// What the application was asked for with, and the entrypoint that it was given; `None` when it
    /// came from a template or was there already.
    async fn deployed_from_an_image(
        &self,
    ) -> Result<Option<(Requested, Option<String>)>, StepError> {
        let (state, _) = load::<Application>(&self.env.store, self.application().as_str())
            .await
            .map_err(StepError::Store)?;
        let Some(live) = state.live() else { return Ok(None) };
        let mut first = live.requested.clone();
        for _ in 0..COPIES {
            match &first.origin {
                Origin::Adopted => return Ok(None),
                // Its stream stays when it is removed.
                Origin::Cloned { from } => match self.asked_for(from).await? {
                    Some(requested) => first = requested,
                    None => return Ok(None),
                },
                Origin::Deployed => {
                    let plan = self.planned(&first.operation.to_string()).await?;
                    let Some(Plan::Deploy(plan)) = plan else { return Ok(None) };
                    return Ok(match plan.source {
                        Source::Oci { entrypoint, .. } => {
                            Some((live.requested.clone(), entrypoint))
                        }
                        Source::Template { .. } => None,
                    });
                }
            }
        }
        Ok(None)
    }

    /// What an application was asked for with, also when it is gone.
    async fn asked_for(&self, id: &ApplicationId) -> Result<Option<Requested>, StepError> {
        match self.first("application", id.as_str()).await? {
            Some(Event::Requested(requested)) => Ok(Some(*requested)),
            _ => Ok(None),
        }
    }

    /// The plan of an operation, also when it is over.
    async fn planned(&self, operation: &str) -> Result<Option<Plan>, StepError> {
        match self.first("operation", operation).await? {
            Some(OperationEvent::Planned { plan, .. }) => Ok(Some(plan)),
            _ => Ok(None),
        }
    }

    /// The first event of a stream.
    async fn first<E: serde::de::DeserializeOwned>(
        &self,
        kind: &str,
        id: &str,
    ) -> Result<Option<E>, StepError> {
        let unread = "a stream cannot be read";
        let stream = self.env.store.load_stream(kind, id).await;
        let stream = stream.map_err(|error| StepError::Store(Error::internal(unread, error)))?;
        let Some(first) = stream.first() else { return Ok(None) };
        serde_json::from_str(&first.payload)
            .map(Some)
            .map_err(|error| StepError::Store(Error::internal(unread, error)))
    }
}
