//! Where a step makes a container, and what stands there before.

use std::collections::BTreeSet;

use proximity_domain::NodeName;
use proximity_domain::operation::{Site, Volumes};
use proximity_domain::plan::GuestRef;

use super::step::StepError;
use super::unlisted::unlisted;
use super::work::Work;
use crate::ports::GuestConfig;
use crate::volumes;

/// Where a step makes a container.
pub struct Place {
    guest: GuestRef,
    /// What its volumes are put on.
    storages: BTreeSet<String>,
    /// The disks of the container that it takes the place of; they go with that.
    replaced: BTreeSet<String>,
}

impl Place {
    pub(super) fn on(guest: &GuestRef, storage: &str) -> Self {
        let storages = [storage.to_owned()].into();
        Self { guest: guest.clone(), storages, replaced: BTreeSet::new() }
    }

    /// In place of the container that has the number.
    pub(super) fn over(guest: &GuestRef, storage: &str, container: &GuestConfig) -> Self {
        Self { replaced: disks(container).collect(), ..Self::on(guest, storage) }
    }

    /// A copy has its volumes where its source has them, and is made where that is now.
    pub(super) fn beside(guest: &GuestRef, node: NodeName, source: &GuestConfig) -> Self {
        let guest = GuestRef { node, ..guest.clone() };
        Self { guest, storages: storages_of(source), replaced: BTreeSet::new() }
    }

    /// What stands there, without what is replaced.
    pub(super) async fn stood(self, work: &Work<'_>) -> Result<(Volumes, Site), StepError> {
        let mut stood = Volumes::new();
        // Of a number that a container has all disks are listed, whatever the storage takes.
        let unlisted = if self.replaced.is_empty() {
            unlisted(work.hypervisor.as_ref(), &self.guest.node, &self.storages).await?
        } else {
            BTreeSet::new()
        };
        for storage in &self.storages {
            let found = work.volumes_under(&self.guest.node, storage, &self.guest).await?;
            let ids = found.into_iter().map(|volume| volume.id);
            stood.insert(storage.clone(), ids.filter(|id| !self.replaced.contains(id)).collect());
        }
        Ok((stood, Site { node: self.guest.node, replaced: self.replaced, unlisted }))
    }
}

/// The volumes that a container's configuration names, its root's first.
fn disks(container: &GuestConfig) -> impl Iterator<Item = String> {
    let root = container.rest.get("rootfs").and_then(|root| root.split(',').next());
    let root = root.map(str::to_owned);
    let others = volumes::of(container).into_iter().map(|volume| volume.id().to_owned());
    root.into_iter().chain(others)
}

/// The storages that a container has its volumes on.
pub(super) fn storages_of(container: &GuestConfig) -> BTreeSet<String> {
    disks(container).filter_map(|id| Some(id.split_once(':')?.0.to_owned())).collect()
}
