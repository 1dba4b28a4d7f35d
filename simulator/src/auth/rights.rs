//! Users, tokens, roles and access lists, and the privileges that follow from them.

use std::collections::{BTreeMap, BTreeSet};

use subtle::ConstantTimeEq;

use super::Auth;

/// Every privilege there is; `Administrator` has them all.
pub(crate) const PRIVILEGES: &[&str] = &[
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Roles that always exist: name, and the privileges or prefixes of privileges.
const SPECIAL_ROLES: &[(&str, &[&str])] = &[
    ("Administrator", &[""]),
    ("NoAccess", &[]),
    (
        "PVEAuditor",
        &[
            "Datastore.Audit",
            "Mapping.Audit",
            "Pool.Audit",
            "SDN.Audit",
            "Sys.Audit",
            "VM.Audit",
            "VM.GuestAgent.Audit",
        ],
    ),
    ("PVEDatastoreAdmin", &["Datastore."]),
    ("PVEDatastoreUser", &["Datastore.AllocateSpace", "Datastore.Audit"]),
    ("PVEPoolAdmin", &["Pool."]),
    ("PVEPoolUser", &["Pool.Audit"]),
    ("PVESDNUser", &["SDN.Audit", "SDN.Use"]),
    ("PVESysAdmin", &["Sys.Audit", "Sys.Console", "Sys.Syslog"]),
    ("PVETemplateUser", &["VM.Audit", "VM.Clone"]),
    ("PVEVMAdmin", &["VM."]),
    (
        "PVEVMUser",
        &[
            "VM.Audit",
            "VM.Backup",
            "VM.Config.CDROM",
            "VM.Config.Cloudinit",
            "VM.Console",
            "VM.GuestAgent.",
            "VM.PowerMgmt",
        ],
    ),
];

/// An API token of a user.
pub(crate) struct Token {
    pub(crate) secret: String,
    pub(crate) privsep: bool,
    pub(crate) comment: Option<String>,
    /// Unix seconds; 0 never ends.
    pub(crate) expire: i64,
}

/// A user.
pub(crate) struct User {
    pub(crate) password: Option<String>,
    pub(crate) tokens: BTreeMap<String, Token>,
}

/// One line of the access list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acl {
    pub(crate) path: String,
    /// `user` or `token`.
    pub(crate) kind: &'static str,
    /// The user or full token id.
    pub(crate) id: String,
    pub(crate) role: String,
    pub(crate) propagate: bool,
}

/// Who exists, and what each may do.
pub(crate) struct Access {
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) roles: BTreeMap<String, BTreeSet<String>>,
    pub(crate) acl: BTreeSet<Acl>,
}

pub(crate) fn is_special_role(name: &str) -> bool {
    SPECIAL_ROLES.iter().any(|(role, _)| *role == name)
}

fn equal(a: &str, b: &str) -> bool {
    bool::from(a.as_bytes().ct_eq(b.as_bytes()))
}

impl Access {
    pub(crate) fn new(root_password: String) -> Self {
        let roles = SPECIAL_ROLES
            .iter()
            .map(|(name, parts)| {
                let privileges = PRIVILEGES.iter().filter(|privilege| {
                    parts.iter().any(|part| {
                        *privilege == part
                            || ((part.is_empty() || part.ends_with('.'))
                                && privilege.starts_with(part))
                    })
                });
                ((*name).to_owned(), privileges.map(|p| (*p).to_owned()).collect())
            })
            .collect();
        let root = User { password: Some(root_password), tokens: BTreeMap::new() };
        Self { users: BTreeMap::from([("root@pam".to_owned(), root)]), roles, acl: BTreeSet::new() }
    }

    /// Ids of all tokens.
    pub(crate) fn token_ids(&self) -> Vec<String> {
        let of_user = |(user, entry): (&String, &User)| {
            entry.tokens.keys().map(|token| format!("{user}!{token}")).collect::<Vec<_>>()
        };
        self.users.iter().flat_map(of_user).collect()
    }

    pub(crate) fn password_fits(&self, user: &str, password: &str) -> bool {
        self.users
            .get(user)
            .and_then(|entry| entry.password.as_deref())
            .is_some_and(|known| equal(known, password))
    }

    /// The caller behind `user@realm!token=secret` (or with a space for the `=`).
    pub(crate) fn token_auth(&self, text: &str, now: i64) -> Option<Auth> {
        let (id, secret) = text.split_once('=').or_else(|| text.split_once(' '))?;
        let (user, name) = id.split_once('!')?;
        let token = self.users.get(user)?.tokens.get(name)?;
        let alive = token.expire == 0 || token.expire > now;
        (alive && equal(&token.secret, secret))
            .then(|| Auth { user: user.to_owned(), token: Some(name.to_owned()) })
    }

    /// The privileges of a caller on a path; a container's pool lends its own.
    pub(crate) fn privileges(
        &self,
        auth: &Auth,
        path: &str,
        pool: Option<&str>,
    ) -> BTreeSet<String> {
        let mut privileges = self.on_path(auth, path);
        if let Some(pool) = pool {
            privileges.extend(self.on_path(auth, &format!("/pool/{pool}")));
        }
        privileges
    }

    fn on_path(&self, auth: &Auth, path: &str) -> BTreeSet<String> {
        let users = if auth.user == "root@pam" {
            PRIVILEGES.iter().map(|privilege| (*privilege).to_owned()).collect()
        } else {
            self.listed("user", &auth.user, path)
        };
        let Some(name) = &auth.token else { return users };
        let token = self.users.get(&auth.user).and_then(|user| user.tokens.get(name));
        match token {
            None => BTreeSet::new(),
            Some(token) if !token.privsep => users,
            // Its own rights count, and never beyond its user's.
            Some(_) => {
                let own = self.listed("token", &auth.id(), path);
                own.intersection(&users).cloned().collect()
            }
        }
    }

    /// The deepest entries on the way to `path` decide.
    fn listed(&self, kind: &str, id: &str, path: &str) -> BTreeSet<String> {
        let mut found: (usize, BTreeSet<String>) = (0, BTreeSet::new());
        for entry in self.acl.iter().filter(|entry| entry.kind == kind && entry.id == id) {
            let covers = entry.path == path
                || (entry.propagate
                    && (entry.path == "/" || path.starts_with(&format!("{}/", entry.path))));
            if !covers {
                continue;
            }
            let depth = if entry.path == "/" { 1 } else { entry.path.len() };
            let privileges = self.roles.get(&entry.role).cloned().unwrap_or_default();
            if depth > found.0 {
                found = (depth, privileges);
            } else if depth == found.0 {
                found.1.extend(privileges);
            }
        }
        found.1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn access() -> Access {
        let mut access = Access::new("irrelevant".to_owned());
        access.users.insert(
            "ann@pve".to_owned(),
            User {
                password: None,
                tokens: BTreeMap::from([(
                    "t".to_owned(),
                    Token { secret: "s".to_owned(), privsep: true, comment: None, expire: 0 },
                )]),
            },
        );
        access
    }

    fn grant(access: &mut Access, kind: &'static str, id: &str, path: &str, role: &str) {
        access.acl.insert(Acl {
            path: path.to_owned(),
            kind,
            id: id.to_owned(),
            role: role.to_owned(),
            propagate: true,
        });
    }

    #[test]
    fn a_separated_token_has_only_what_both_it_and_its_user_have() {
        let mut access = access();
        let token = Auth { user: "ann@pve".to_owned(), token: Some("t".to_owned()) };
        grant(&mut access, "user", "ann@pve", "/", "PVEVMAdmin");
        assert!(access.privileges(&token, "/vms/100", None).is_empty());
        grant(&mut access, "token", "ann@pve!t", "/vms", "PVEAuditor");
        let rights = access.privileges(&token, "/vms/100", None);
        assert!(rights.contains("VM.Audit"));
        assert!(!rights.contains("Datastore.Audit"), "its user lacks it");
    }

    #[test]
    fn a_deeper_entry_replaces_a_shallower_one_and_a_pool_adds_its_own() {
        let mut access = access();
        let ann = Auth { user: "ann@pve".to_owned(), token: None };
        grant(&mut access, "user", "ann@pve", "/", "PVEVMAdmin");
        grant(&mut access, "user", "ann@pve", "/vms/100", "NoAccess");
        grant(&mut access, "user", "ann@pve", "/pool/p", "PVEVMUser");
        assert!(access.privileges(&ann, "/vms/101", None).contains("VM.Allocate"));
        assert!(access.privileges(&ann, "/vms/100", None).is_empty());
        assert!(access.privileges(&ann, "/vms/100", Some("p")).contains("VM.PowerMgmt"));
    }
}
