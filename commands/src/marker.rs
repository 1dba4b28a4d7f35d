//! The signed line in a container's description that makes it ours.
//!
//! A copy under another number, another installation's container and a forged line all fail to
//! verify, so that nothing is ever destroyed on the strength of a VMID alone.

use hmac::{Hmac, Mac as _};
use proximity_domain::{ApplicationId, ClusterName, OperationId, Vmid};
use sha2::Sha256;

use crate::keys::{DerivedKey, Keyring, Purpose};

/// Opens the marker's line.
const PREFIX: &str = "proximity/1";
/// Stands above it, for people.
const INTRODUCTION: &str = "Managed by Proximity; the next line is how it knows this container.";

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub application: ApplicationId,
    /// The operation that made the container.
    pub operation: OperationId,
}

/// Whose a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belongs {
    Ours(Marker),
    /// No marker, or one that does not verify for this number in this cluster.
    Foreign,
}

/// Writes and verifies markers of one installation.
#[derive(Clone)]
pub struct Markers {
    installation: String,
    keys: Keys,
}

/// The first one signs, all verify.
#[derive(Clone)]
enum Keys {
    Fixed(Vec<DerivedKey>),
    /// With all later rotations.
    Ring(Keyring),
}

impl Keys {
    fn all(&self) -> Vec<DerivedKey> {
        match self {
            Self::Fixed(keys) => keys.clone(),
            Self::Ring(ring) => ring.derive_all(Purpose::GuestMarker),
        }
    }
}

impl Markers {
    /// For an installation's id and its keys for [`crate::keys::Purpose::GuestMarker`].
    pub fn new(installation: String, keys: Vec<DerivedKey>) -> Self {
        Self { installation, keys: Keys::Fixed(keys) }
    }

    /// For an installation's id, with keys that may be rotated while it is in use.
    pub fn of(installation: String, ring: Keyring) -> Self {
        Self { installation, keys: Keys::Ring(ring) }
    }

    /// The description of a new container.
    pub fn describe(&self, marker: &Marker, cluster: &ClusterName, vmid: Vmid) -> String {
        let keys = self.keys.all();
        let Some(key) = keys.first() else { return String::new() };
        let claims = self.claims(marker, cluster, vmid, &key.id);
        let mac: String = sign(key, &claims)
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{INTRODUCTION}\n{claims} mac={mac}")
    }

    /// Notes with the marker below them; [`Self::unmark`] gives them back as they were.
    pub fn mark(&self, notes: &str, marker: &Marker, cluster: &ClusterName, vmid: Vmid) -> String {
        let text = self.describe(marker, cluster, vmid);
        if notes.is_empty() { text } else { format!("{notes}\n{text}") }
    }

    /// The description without our marker for this container, and with everything else.
    pub fn unmark(&self, description: &str, cluster: &ClusterName, vmid: Vmid) -> String {
        let mut kept: Vec<&str> = Vec::new();
        for line in description.split('\n') {
            let ours = line.trim().starts_with(PREFIX)
                && self.verify(line.trim(), cluster, vmid).is_some();
            if !ours {
                kept.push(line);
            } else if kept.last().is_some_and(|above| above.trim() == INTRODUCTION) {
                kept.pop();
            }
        }
        kept.join("\n")
    }

    /// The other installation that a description says it belongs to. Whether that is true cannot be
    /// told without its key.
    pub fn another(&self, description: &str) -> Option<String> {
        description
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with(PREFIX))
            .flat_map(|line| line.split(' '))
            .filter_map(|part| part.strip_prefix("installation="))
            .find(|installation| *installation != self.installation)
            .map(str::to_owned)
    }

    /// Judges a description that was read from the container `vmid` of `cluster`.
    pub fn judge(&self, description: Option<&str>, cluster: &ClusterName, vmid: Vmid) -> Belongs {
        description
            .into_iter()
            .flat_map(str::lines)
            .map(str::trim)
            .filter(|line| line.starts_with(PREFIX))
            .find_map(|line| self.verify(line, cluster, vmid))
            .map_or(Belongs::Foreign, Belongs::Ours)
    }

    fn claims(&self, marker: &Marker, cluster: &ClusterName, vmid: Vmid, key: &str) -> String {
        format!(
            "{PREFIX} installation={} cluster={cluster} vmid={vmid} app={} operation={} key={key}",
            self.installation, marker.application, marker.operation
        )
    }

    fn verify(&self, line: &str, cluster: &ClusterName, vmid: Vmid) -> Option<Marker> {
        let (claims, mac) = line.rsplit_once(" mac=")?;
        let field = |name: &str| {
            claims
                .split(' ')
                .find_map(|part| part.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
        };
        let marker = Marker {
            application: field("app")?.parse().ok()?,
            operation: field("operation")?.parse().ok()?,
        };
        let keys = self.keys.all();
        let key = keys.iter().find(|key| Some(key.id.as_str()) == field("key"))?;
        // Only the canonical spelling for this very number counts.
        let expected = self.claims(&marker, cluster, vmid, &key.id);
        if claims != expected {
            return None;
        }
        sign(key, &expected).verify_slice(&unhex(mac)?).ok()?;
        Some(marker)
    }
}

fn sign(key: &DerivedKey, text: &str) -> Hmac<Sha256> {
    // HMAC pads a shorter key with zeros up to the hash's block; done here, it cannot fail.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key.bytes());
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
    mac.update(text.as_bytes());
    mac
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() != 64 {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{MasterKeys, Purpose};

    fn keys() -> Vec<DerivedKey> {
        MasterKeys::generate().unwrap().derive_all(Purpose::GuestMarker)
    }

    fn marker() -> Marker {
        Marker {
            application: "memos-0a1b2c3d".parse().unwrap(),
            operation: OperationId(uuid::Uuid::from_u128(1)),
        }
    }

    fn lab() -> ClusterName {
        "lab".parse().unwrap()
    }

    fn vmid(number: i64) -> Vmid {
        Vmid::try_from(number).unwrap()
    }

    #[test]
    fn a_container_that_we_described_is_ours_even_between_a_persons_notes() {
        let markers = Markers::new("i1".into(), keys());
        let text = markers.describe(&marker(), &lab(), vmid(104));
        let noted = format!("my notes\n\n{text}\nmore notes\n");
        assert_eq!(markers.judge(Some(&noted), &lab(), vmid(104)), Belongs::Ours(marker()));
    }

    #[test]
    fn a_copy_under_another_number_or_in_another_cluster_is_not_ours() {
        let markers = Markers::new("i1".into(), keys());
        let text = markers.describe(&marker(), &lab(), vmid(104));
        assert_eq!(markers.judge(Some(&text), &lab(), vmid(105)), Belongs::Foreign);
        let other = "lab2".parse().unwrap();
        assert_eq!(markers.judge(Some(&text), &other, vmid(104)), Belongs::Foreign);
    }

    #[test]
    fn a_marker_of_another_installation_or_with_any_byte_changed_is_not_ours() {
        let keys = keys();
        let markers = Markers::new("i1".into(), keys.clone());
        let text = markers.describe(&marker(), &lab(), vmid(104));
        let other = Markers::new("i2".into(), keys);
        assert_eq!(other.judge(Some(&text), &lab(), vmid(104)), Belongs::Foreign);
        let line = text.lines().last().unwrap();
        for at in 0..line.len() {
            let mut forged = line.as_bytes().to_vec();
            forged[at] ^= 1;
            let forged = String::from_utf8_lossy(&forged).into_owned();
            assert_eq!(markers.judge(Some(&forged), &lab(), vmid(104)), Belongs::Foreign, "{at}");
        }
        assert_eq!(markers.judge(None, &lab(), vmid(104)), Belongs::Foreign);
    }

    #[test]
    fn notes_are_given_back_byte_for_byte() {
        let markers = Markers::new("i1".into(), keys());
        for notes in ["", "mine", "two\nlines", "\nodd ends\n\n", "Managed by Proximity", "ü ✓"]
        {
            let marked = markers.mark(notes, &marker(), &lab(), vmid(104));
            assert_eq!(markers.judge(Some(&marked), &lab(), vmid(104)), Belongs::Ours(marker()));
            assert_eq!(markers.unmark(&marked, &lab(), vmid(104)), notes);
            assert_eq!(markers.unmark(&marked, &lab(), vmid(105)), marked, "a copy's stays");
            let below = format!("{marked}\nadded later");
            let expected = if notes.is_empty() {
                "added later".into()
            } else {
                format!("{notes}\nadded later")
            };
            assert_eq!(markers.unmark(&below, &lab(), vmid(104)), expected);
        }
    }

    #[test]
    fn another_installations_container_is_told() {
        let keys = keys();
        let (one, two) = (Markers::new("i1".into(), keys.clone()), Markers::new("i2".into(), keys));
        let marked = one.mark("notes", &marker(), &lab(), vmid(104));
        assert_eq!((one.another(&marked), two.another(&marked)), (None, Some("i1".to_owned())));
        assert_eq!(two.another("notes"), None);
    }

    #[test]
    fn an_old_key_verifies_and_an_unknown_one_does_not() {
        let (old, new) = (keys(), keys());
        let text = Markers::new("i1".into(), old.clone()).describe(&marker(), &lab(), vmid(104));
        let rotated = Markers::new("i1".into(), [new.clone(), old].concat());
        assert_eq!(rotated.judge(Some(&text), &lab(), vmid(104)), Belongs::Ours(marker()));
        let forgotten = Markers::new("i1".into(), new);
        assert_eq!(forgotten.judge(Some(&text), &lab(), vmid(104)), Belongs::Foreign);
    }
}
