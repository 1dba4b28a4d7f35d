//! What a container is made from: a template or an image archive on the node's storage.
//!
//! Both are a cache that deployments share. A lease lets one of them download a file at a time;
//! nothing is taken back.

use std::cmp::Ordering;

use async_trait::async_trait;
use proximity_domain::LeaseKey;
use proximity_domain::lease::{self, Holder, Lease};
use proximity_domain::operation::Finding;
use proximity_domain::plan::Source;

use super::guest::said;
use super::step::{Step, StepError};
use super::work::{Work, metadata};
use crate::dispatch::{Refused, Retries};
use crate::ports::HypervisorError;
use crate::ports::Upid;

/// The newest template of a system and version, downloaded when the node has none.
pub(super) struct EnsureTemplate;

#[async_trait]
impl Step for EnsureTemplate {
    fn name(&self) -> &'static str {
        "ensure_template"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.deployment()?;
        let Source::Template { os, version } = &plan.source else {
            return Err(StepError::permanent("the plan names no template"));
        };
        let (node, storage) = (&plan.guest.node, plan.template_storage.as_str());
        let wanted = |file: &str| is_plain(file, os, version);
        if let Some(volume) = work.newest(storage, wanted).await? {
            // A stop in the middle of the download may have left us the turn.
            work.give_back_turn().await?;
            return Ok(Some(Finding::Archive { volume, digest: None }));
        }
        let newest = work
            .hypervisor
            .appliances(node)
            .await?
            .into_iter()
            .filter(|appliance| wanted(&appliance.template))
            .max_by(|a, b| by_version(&a.template, &b.template));
        let Some(newest) = newest else {
            return Err(StepError::permanent(format!(
                "node {node} neither has a plain template of {os} {version} nor lists one to download"
            )));
        };
        let file = newest.template.clone();
        let download = work.hypervisor.download_appliance(node, storage, &file);
        let volume = work.fetch(storage, &file, download).await?;
        Ok(Some(Finding::Archive { volume, digest: newest.sha512 }))
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        work.give_back_turn().await
    }
}

/// The archive of an OCI image, pulled when the node has none (Proxmox VE 9.1 and later).
pub(super) struct EnsureOciImage;

#[async_trait]
impl Step for EnsureOciImage {
    fn name(&self) -> &'static str {
        "ensure_oci_image"
    }

    async fn act(&self, work: &Work<'_>) -> Result<Option<Finding>, StepError> {
        let plan = work.deployment()?;
        let Source::Oci { image, .. } = &plan.source else {
            return Err(StepError::permanent("the plan names no image"));
        };
        let (node, storage) = (&plan.guest.node, plan.template_storage.as_str());
        let name = archive_name(image);
        let file = format!("{name}.tar");
        if let Some(volume) = work.newest(storage, |there| there == file).await? {
            // A stop in the middle of the download may have left us the turn.
            work.give_back_turn().await?;
            return Ok(Some(Finding::Archive { volume, digest: None }));
        }
        let pull = work.hypervisor.pull_oci_image(node, storage, image, &name);
        let volume = work.fetch(storage, &file, pull).await?;
        Ok(Some(Finding::Archive { volume, digest: None }))
    }

    async fn undo(&self, work: &Work<'_>) -> Result<(), StepError> {
        work.give_back_turn().await
    }
}

impl Work<'_> {
    /// The newest template volume whose file name is wanted.
    async fn newest(
        &self,
        storage: &str,
        wanted: impl Fn(&str) -> bool + Send,
    ) -> Result<Option<String>, StepError> {
        let node = &self.deployment()?.guest.node;
        let volumes = self.hypervisor.volumes(node, storage, "vztmpl").await?;
        let file = |id: &str| id.rsplit('/').next().unwrap_or(id).to_owned();
        Ok(volumes
            .into_iter()
            .map(|volume| volume.id)
            .filter(|id| wanted(&file(id)))
            .max_by(|a, b| by_version(&file(a), &file(b))))
    }

    /// Downloads a file, alone: others that want it wait, and then find it there.
    async fn fetch(
        &self,
        storage: &str,
        file: &str,
        download: impl Future<Output = Result<Upid, HypervisorError>> + Send,
    ) -> Result<String, StepError> {
        let key = self.turn()?;
        let holder = Holder::Operation(self.hold.operation);
        self.lease(&key, lease::Command::Acquire { holder: holder.clone() }).await?;
        if let Some(upid) = self.task.as_ref().filter(|_| self.recovering) {
            self.wait(upid).await?;
        }
        let fetched = match self.newest(storage, |there| there == file).await? {
            Some(volume) => Ok(volume),
            None => match self.run(download).await {
                Ok(ended) => match self.newest(storage, |there| there == file).await? {
                    Some(volume) => Ok(volume),
                    None => {
                        Err(StepError::retryable(format!("{file} did not arrive: {}", said(ended))))
                    }
                },
                Err(error) => Err(error),
            },
        };
        // Kept while the outcome is open; given back as soon as there is one, good or bad.
        if !matches!(fetched, Err(StepError::LetGo(_) | StepError::Store(_))) {
            self.lease(&key, lease::Command::Release { holder }).await?;
        }
        fetched
    }

    /// Whatever a broken-off download still holds. Asks nobody, so that it works without the node.
    async fn give_back_turn(&self) -> Result<(), StepError> {
        let holder = Holder::Operation(self.hold.operation);
        self.lease(&self.turn()?, lease::Command::Release { holder }).await
    }

    /// The lease that lets one deployment download at a time: named by what the plan asks for, since
    /// which file that is only the node can tell.
    fn turn(&self) -> Result<String, StepError> {
        let plan = self.deployment()?;
        let wanted = match &plan.source {
            Source::Oci { image, .. } => archive_name(image),
            Source::Template { os, version } => format!("{os}-{version}"),
        };
        let (node, storage) = (plan.guest.node.clone(), plan.template_storage.clone());
        Ok(LeaseKey::Template(node, storage, wanted).to_string())
    }

    async fn lease(&self, key: &str, command: lease::Command) -> Result<(), StepError> {
        let mut retries = Retries::default();
        loop {
            let mut meta = metadata(self.progress, self.hold, "operation.template");
            meta.causation = Some(format!("operation/{}", self.hold.operation));
            let mut unit = self.env.outcome(meta, Some(self.hold.fence()));
            match unit.apply::<Lease>(key, command.clone()).await {
                // So already, or another's, which is not ours to give back.
                Ok(0) | Err(Refused::Judged(lease::Error::NotHolder)) => return Ok(()),
                Ok(_) => {}
                Err(Refused::Judged(_)) => {
                    let why = "another deployment is downloading the same file";
                    return Err(StepError::retryable(why));
                }
                Err(Refused::Failed(error)) => return Err(StepError::Store(error)),
            }
            match unit.commit().await {
                Ok(_) => return Ok(()),
                Err(error) => retries.again(error.into()).await.map_err(StepError::Store)?,
            }
        }
    }
}

/// What the names of Proxmox's plain systems go on with after their version. Other names are of other
/// things on the same system, such as TurnKey's `debian-12-turnkey-wordpress_18.2-1_amd64.tar.gz`.
const PLAIN: [&str; 6] = ["standard", "default", "cloud", "stream-default", "openrc", "systemd"];

/// Whether a file is the system and nothing but it: `debian-12-standard_12.12-1_amd64.tar.zst`.
fn is_plain(file: &str, os: &str, version: &str) -> bool {
    let rest = file.strip_prefix(os).and_then(|rest| rest.strip_prefix('-'));
    let rest = rest.and_then(|rest| rest.strip_prefix(version)?.strip_prefix('-'));
    let variant = rest.and_then(|rest| rest.split_once('_')).map(|(variant, _)| variant);
    variant.is_some_and(|variant| PLAIN.contains(&variant))
}

/// The archive's name for an image: `docker.io/library/nginx:1.29` becomes `docker.io_library_nginx_1.29`.
pub(super) fn archive_name(image: &str) -> String {
    image
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
        .collect()
}

/// Orders file names as people number them: runs of digits count as numbers.
fn by_version(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> Vec<(u64, &str)> {
        let mut rest = text;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(letters);
            let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            let (number, tail) = tail.split_at(digits);
            parts.push((0, word));
            parts.push((number.parse().unwrap_or(u64::MAX), ""));
            rest = tail;
        }
        parts
    }
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_has_the_highest_numbers() {
        let older = "alpine-3.22-default_20240617_amd64.tar.xz";
        let newer = "alpine-3.22-default_20250617_amd64.tar.xz";
        assert_eq!(by_version(older, newer), Ordering::Less);
        let (nine, twelve) =
            ("debian-12-standard_12.9-1_amd64", "debian-12-standard_12.12-1_amd64");
        assert_eq!(by_version(nine, twelve), Ordering::Less);
    }

    #[test]
    fn only_the_plain_system_is_a_template_of_it() {
        for (file, os, version) in [
            ("alpine-3.22-default_20250617_amd64.tar.xz", "alpine", "3.22"),
            ("debian-12-standard_12.12-1_amd64.tar.zst", "debian", "12"),
            ("ubuntu-24.04-standard_24.04-2_amd64.tar.zst", "ubuntu", "24.04"),
            ("centos-9-stream-default_20240828_amd64.tar.xz", "centos", "9"),
            ("centos-9-stream-default_20240828_amd64.tar.xz", "centos", "9-stream"),
            ("gentoo-current-openrc_20250508_amd64.tar.xz", "gentoo", "current"),
        ] {
            assert!(is_plain(file, os, version), "{file}");
        }
        for file in [
            "debian-12-turnkey-wordpress_18.2-1_amd64.tar.gz",
            "debian-12-turnkey-core_18.1-1_amd64.tar.gz",
            "debian-12-standard-and-more_1_amd64.tar.zst",
            "debian-12-standard.tar.zst",
            "debian-12",
            "debian-13-standard_13.1-2_amd64.tar.zst",
            "my-debian-12-standard_12.12-1_amd64.tar.zst",
        ] {
            assert!(!is_plain(file, "debian", "12"), "{file}");
        }
    }

    #[test]
    fn an_image_has_a_file_name_of_its_own() {
        assert_eq!(archive_name("docker.io/library/nginx:1.29"), "docker.io_library_nginx_1.29");
        assert_ne!(archive_name("ghcr.io/a/b:1"), archive_name("docker.io/a/b:1"));
    }
}
