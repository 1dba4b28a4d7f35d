//! What is listed where operations may have left volumes: each place is asked once a look, and no more of a
//! node that does not answer.

use std::collections::{BTreeMap, BTreeSet};

use proximity_domain::NodeName;

use super::look::Look;
use crate::ports::{HypervisorError, Storage, Volume};

/// A storage of a node.
pub(super) type Place = (NodeName, String);

/// What is known of a place after a look.
enum Listed {
    Volumes(Vec<Volume>),
    /// The cluster has no such node, or the node no such storage.
    Gone,
    /// What is on it cannot be told.
    Unread,
}

/// What one look was told.
#[derive(Default)]
pub(super) struct Places {
    listed: BTreeMap<Place, Listed>,
    /// By node; `None` of one that did not say.
    storages: BTreeMap<NodeName, Option<Vec<Storage>>>,
    /// Each costs as long as an answer is waited for: a storage that hangs holds up its node.
    silent: BTreeSet<NodeName>,
}

impl Places {
    /// Lists the disks there whose numbers nobody has: Proxmox counts them as virtual machines'.
    pub(super) async fn read(&mut self, look: &Look<'_>, place: &Place) {
        if self.listed.contains_key(place) {
            return;
        }
        let (node, storage) = place;
        let found = if self.silent.contains(node) {
            Listed::Unread
        } else {
            match look.hypervisor.volumes(node, storage, "images").await {
                Ok(volumes) => Listed::Volumes(volumes),
                Err(error) => {
                    tracing::info!(%node, storage, %error, "a storage was not looked at");
                    self.note(node, &error);
                    if self.is_gone(look, place).await { Listed::Gone } else { Listed::Unread }
                }
            }
        };
        self.listed.insert(place.clone(), found);
    }

    /// Asks a node which of its storages others share.
    pub(super) async fn read_storages(&mut self, look: &Look<'_>, node: &NodeName) {
        if self.storages.contains_key(node) {
            return;
        }
        let storages = if self.silent.contains(node) {
            None
        } else {
            let storages = look.hypervisor.storages(node).await;
            storages
                .inspect_err(|error| tracing::info!(%node, %error, "its storages are not known"))
                .ok()
        };
        self.storages.insert(node.clone(), storages);
    }

    /// Takes note of a node that did not answer.
    pub(super) fn note(&mut self, node: &NodeName, error: &HypervisorError) {
        if error.answered().is_none() {
            self.silent.insert(node.clone());
        }
    }

    /// Whether a node did not answer in this look, and is asked no more.
    pub(super) fn is_silent(&self, node: &NodeName) -> bool {
        self.silent.contains(node)
    }

    /// The disks that are listed there, if that can be told.
    pub(super) fn disks(&self, place: &Place) -> Option<&[Volume]> {
        match self.listed.get(place) {
            Some(Listed::Volumes(volumes)) => Some(volumes),
            Some(Listed::Gone | Listed::Unread) | None => None,
        }
    }

    /// Whether what is there cannot be told.
    pub(super) fn is_unread(&self, place: &Place) -> bool {
        matches!(self.listed.get(place), Some(Listed::Unread))
    }

    /// Whether all nodes see the same there; `None` when that cannot be told.
    pub(super) fn is_shared(&self, (node, storage): &Place) -> Option<bool> {
        let storages = self.storages.get(node)?.as_ref()?;
        storages.iter().find(|one| one.name == *storage).map(|one| one.shared)
    }

    /// Whether lists that would show it leave the node or the storage out.
    async fn is_gone(&mut self, look: &Look<'_>, (node, storage): &Place) -> bool {
        let nodes = look.hypervisor.nodes().await.unwrap_or_default();
        if !nodes.is_empty() && !nodes.iter().any(|one| one.name == *node) {
            return true;
        }
        self.read_storages(look, node).await;
        let Some(Some(storages)) = self.storages.get(node) else { return false };
        if storages.iter().any(|one| one.name == *storage) {
            return false;
        }
        // Of those that a credential may not see none is listed.
        let rights = look.hypervisor.privileges(&format!("/storage/{storage}")).await;
        let shows = |right: &str| ["Datastore.Audit", "Datastore.AllocateSpace"].contains(&right);
        rights.is_ok_and(|rights| rights.keys().any(|right| shows(right)))
    }
}
