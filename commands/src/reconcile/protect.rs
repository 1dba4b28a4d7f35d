//! Protection that an operation took off, and was given up before it set it again.

use proximity_domain::application::{Application, Command, Live};
use proximity_domain::{ApplicationId, OperationId};

use super::known::{Known, KnownApplication};
use super::look::{Look, settled};
use super::{Findings, Reconciler};
use crate::actor::Actor;
use crate::dispatch::{Unit, load};
use crate::error::Error;
use crate::marker::Belongs;

impl Reconciler {
    /// Sets it again, once, on containers that are still an application's. An adopted one had what its
    /// owner gave it. That it is set is stored: who takes it off after that does it on purpose.
    pub(super) async fn protect(
        &self,
        look: &Look<'_>,
        known: &mut Known,
        actor: &Actor,
        findings: &mut Findings,
    ) {
        if look.only {
            return;
        }
        for (id, application) in known.applications.iter_mut().filter(|(_, known)| !known.adopted) {
            let Some(operation) = application.given_up else { continue };
            let Some(live) = settled(application, look) else { continue };
            let noted = match self.is_protected(look, id, application, live).await {
                Ok(true) => self.note(id, application, operation, actor, findings).await,
                other => other,
            };
            match noted {
                Ok(true) => {
                    application.given_up = None;
                    // What follows is decided from the log as it was read, and this.
                    application.sequence += 1;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::info!(application = %id, %error, "a container was not protected now");
                }
            }
        }
    }

    /// Stores that it is, unless the application has gone on since. `false`: the next look sees to it.
    async fn note(
        &self,
        id: &ApplicationId,
        known: &KnownApplication,
        operation: OperationId,
        actor: &Actor,
        findings: &mut Findings,
    ) -> Result<bool, Error> {
        let mut unit = Unit::new(&self.store, actor.metadata("application.protect"));
        unit.owned_by(known.owner);
        let noted = Command::NoteProtected { operation };
        let applied = unit.apply::<Application>(id.as_str(), noted).await;
        let events = applied.map_err(|refused| refused.or_else(Error::from))?;
        let unmoved = unit.sequence::<Application>(id.as_str()) == Some(known.sequence);
        Ok(events > 0 && unmoved && self.store(unit, findings).await?)
    }

    /// Protects its container where that is still to be done. `false`: the next look sees to it.
    async fn is_protected(
        &self,
        look: &Look<'_>,
        id: &ApplicationId,
        known: &KnownApplication,
        live: &Live,
    ) -> Result<bool, Error> {
        let guest = &live.requested.guest;
        let listed = look.guests.get(&guest.vmid);
        let Some(listed) = listed.filter(|listed| listed.is_container) else { return Ok(false) };
        let Some(config) = look.hypervisor.config(&listed.node, guest.vmid).await? else {
            return Ok(false);
        };
        let belongs = self.markers.judge(config.description.as_deref(), &look.cluster, guest.vmid);
        let is_its_own = matches!(belongs, Belongs::Ours(marker) if marker.application == *id);
        if !is_its_own || config.lock.is_some() {
            return Ok(false);
        }
        if config.protection {
            return Ok(true);
        }
        // An operation that has begun since takes it off for a reason.
        let (_, sequence) = load::<Application>(&self.store, id.as_str()).await?;
        if sequence != known.sequence {
            return Ok(false);
        }
        look.hypervisor.set_protection(&listed.node, guest.vmid, true, &config.digest).await?;
        Ok(true)
    }
}
