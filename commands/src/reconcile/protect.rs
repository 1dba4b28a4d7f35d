//! Protection that an operation took off, and was given up before it set it again.

use proximity_domain::ApplicationId;
use proximity_domain::application::{Application, Live};

use super::Reconciler;
use super::known::{Known, KnownApplication};
use super::look::{Look, settled};
use crate::dispatch::load;
use crate::error::Error;
use crate::marker::Belongs;

impl Reconciler {
    /// Sets it again on containers that are still an application's. An adopted one had what its owner
    /// gave it.
    pub(super) async fn protect(&self, look: &Look<'_>, known: &mut Known) {
        if look.only {
            return;
        }
        let given_up = known.applications.iter_mut();
        for (id, application) in given_up.filter(|(_, known)| known.given_up && !known.adopted) {
            let Some(live) = settled(application, look) else { continue };
            match self.is_protected(look, id, application, live).await {
                Ok(is_protected) => application.given_up = !is_protected,
                Err(error) => {
                    tracing::info!(application = %id, %error, "a container was not protected now");
                }
            }
        }
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
