//! Login, users, tokens, roles and access lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::rights::{Acl, PRIVILEGES, Token, User, is_special_role};
use crate::auth::{Auth, random_secret};
use crate::params::formats::split_list;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sim::{Call, Sim};

pub(crate) async fn nothing(_sim: Arc<Sim>, _call: Arc<Call>) -> Outcome {
    Reply::null()
}

/// A password, or a ticket that still lives, buys a fresh ticket.
pub(crate) async fn login(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("username");
    let user = match (name.contains('@'), call.params.get("realm")) {
        (true, _) => name.to_owned(),
        (false, Some(realm)) => format!("{name}@{realm}"),
        (false, None) => name.to_owned(),
    };
    let password = call.params.text("password");
    let now = sim.now();
    let by_ticket = sim.tickets.check(password, now).is_some_and(|owner| owner == user);
    let known = sim.world().access.users.contains_key(&user);
    if !(by_ticket && known || sim.world().access.password_fits(&user, password)) {
        return Err(Refusal::new(401, "authentication failure"));
    }
    let auth = Auth { user: user.clone(), token: None };
    let mut cap = serde_json::Map::new();
    for (area, path) in [
        ("access", "/access"),
        ("dc", "/"),
        ("nodes", "/nodes"),
        ("storage", "/storage"),
        ("vms", "/vms"),
        ("mapping", "/mapping"),
        ("sdn", "/sdn"),
    ] {
        let rights: serde_json::Map<String, Value> =
            sim.rights(&auth, path).into_iter().map(|right| (right, json!(1))).collect();
        cap.insert(area.to_owned(), Value::Object(rights));
    }
    let mut data = json!({
        "username": user, "ticket": sim.tickets.ticket(&user, now),
        "CSRFPreventionToken": sim.tickets.csrf(&user, now), "cap": cap,
    });
    if let Some(cluster) = &sim.config.cluster {
        data["clustername"] = json!(cluster);
    }
    Reply::data(data)
}

/// The caller's privileges: a map of paths to privileges with their propagation.
pub(crate) async fn permissions(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let asked = call.params.get("userid");
    let auth = match asked {
        None => call.auth.clone(),
        Some(id) if id == call.auth.id() || call.auth.is_root() => match id.split_once('!') {
            Some((user, token)) => Auth { user: user.to_owned(), token: Some(token.to_owned()) },
            None => Auth { user: id.to_owned(), token: None },
        },
        Some(_) => return Err(Refusal::forbidden("/access, Sys.Audit")),
    };
    let mut paths: BTreeSet<String> =
        ["/", "/access", "/nodes", "/pool", "/sdn", "/storage", "/vms"].map(str::to_owned).into();
    match call.params.get("path") {
        Some(path) => paths = BTreeSet::from([path.to_owned()]),
        None => paths.extend(
            world
                .access
                .acl
                .iter()
                .filter(|acl| acl.id == auth.id() || acl.id == auth.user)
                .map(|acl| acl.path.clone()),
        ),
    }
    let mut data = serde_json::Map::new();
    for path in paths {
        let rights: BTreeMap<String, i32> = world
            .access
            .privileges(&auth, &path, None)
            .into_iter()
            .map(|right| (right, 1))
            .collect();
        if !rights.is_empty() {
            data.insert(path, json!(rights));
        }
    }
    Reply::data(Value::Object(data))
}

pub(crate) async fn create_user(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let id = call.params.text("userid").to_owned();
    if !id.contains('@') {
        return Err(Refusal::parameter("userid", "value does not look like a valid user name"));
    }
    let mut world = sim.world();
    if world.access.users.contains_key(&id) {
        return Err(Refusal::die(format!("create user failed: user '{id}' already exists")));
    }
    let password = call.params.get("password").map(str::to_owned);
    world.access.users.insert(id, User { password, tokens: BTreeMap::new() });
    Reply::null()
}

/// A user manages his own tokens; others need `User.Modify`.
fn may_manage(sim: &Sim, call: &Call) -> Result<(), Refusal> {
    let user = call.params.text("userid");
    if call.auth.user == user || call.auth.is_root() {
        return Ok(());
    }
    sim.require(&call.auth, "/access/groups", &["User.Modify"], false)
}

fn token_json(token: &Token) -> Value {
    let mut data = json!({ "privsep": i32::from(token.privsep), "expire": token.expire });
    if let Some(comment) = &token.comment {
        data["comment"] = json!(comment);
    }
    data
}

fn no_user(user: &str) -> Refusal {
    Refusal::die(format!("no such user ('{user}')"))
}

fn no_token(user: &str, token: &str) -> Refusal {
    Refusal::die(format!("no such token '{token}' for user '{user}'"))
}

pub(crate) async fn list_tokens(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    may_manage(&sim, &call)?;
    let world = sim.world();
    let user = call.params.text("userid");
    let entry = world.access.users.get(user).ok_or_else(|| no_user(user))?;
    let rows = entry.tokens.iter().map(|(name, token)| {
        let mut row = token_json(token);
        row["tokenid"] = json!(name);
        row
    });
    Reply::data(rows.collect())
}

pub(crate) async fn show_token(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    may_manage(&sim, &call)?;
    let world = sim.world();
    let (user, name) = (call.params.text("userid"), call.params.text("tokenid"));
    let entry = world.access.users.get(user).ok_or_else(|| no_user(user))?;
    let token = entry.tokens.get(name).ok_or_else(|| no_token(user, name))?;
    Reply::data(token_json(token))
}

/// The only moment at which a token's secret is shown.
pub(crate) async fn create_token(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    may_manage(&sim, &call)?;
    let (user, name) = (call.params.text("userid"), call.params.text("tokenid"));
    let privsep = call.params.get("privsep") != Some("0");
    let expire = call.params.get("expire").and_then(|text| text.parse().ok()).unwrap_or(0);
    let comment = call.params.get("comment").map(str::to_owned);
    let secret = sim.add_token(user, name, privsep, expire, comment)?;
    Reply::data(json!({
        "full-tokenid": format!("{user}!{name}"), "value": secret,
        "info": { "privsep": if privsep { "1" } else { "0" } },
    }))
}

impl Sim {
    pub(crate) fn add_token(
        &self,
        user: &str,
        name: &str,
        privsep: bool,
        expire: i64,
        comment: Option<String>,
    ) -> Result<String, Refusal> {
        let mut world = self.world();
        let entry = world.access.users.get_mut(user).ok_or_else(|| no_user(user))?;
        if entry.tokens.contains_key(name) {
            return Err(Refusal::parameter("tokenid", "Token already exists."));
        }
        // Secrets are UUIDs, as on a real host, but from the system's randomness.
        let secret = uuid::Uuid::new_v4().to_string();
        let token = Token { secret: secret.clone(), privsep, comment, expire };
        entry.tokens.insert(name.to_owned(), token);
        Ok(secret)
    }

    pub(crate) fn add_user(&self, user: &str) -> String {
        let password = random_secret();
        let entry = User { password: Some(password.clone()), tokens: BTreeMap::new() };
        self.world().access.users.insert(user.to_owned(), entry);
        password
    }
}

pub(crate) async fn delete_token(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    may_manage(&sim, &call)?;
    let mut world = sim.world();
    let (user, name) = (call.params.text("userid"), call.params.text("tokenid"));
    let entry = world.access.users.get_mut(user).ok_or_else(|| no_user(user))?;
    entry.tokens.remove(name).ok_or_else(|| no_token(user, name))?;
    let id = format!("{user}!{name}");
    world.access.acl.retain(|acl| acl.id != id);
    Reply::null()
}

fn role_json(name: &str, privileges: &BTreeSet<String>) -> Value {
    let list: Vec<&str> = privileges.iter().map(String::as_str).collect();
    json!({ "roleid": name, "privs": list.join(","), "special": i32::from(is_special_role(name)) })
}

pub(crate) async fn list_roles(sim: Arc<Sim>, _call: Arc<Call>) -> Outcome {
    let world = sim.world();
    Reply::data(world.access.roles.iter().map(|(name, privs)| role_json(name, privs)).collect())
}

pub(crate) async fn show_role(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let world = sim.world();
    let name = call.params.text("roleid");
    let privileges = world.access.roles.get(name).ok_or_else(|| no_role(name))?;
    let map: BTreeMap<&str, i32> = privileges.iter().map(|p| (p.as_str(), 1)).collect();
    Reply::data(json!(map))
}

fn no_role(name: &str) -> Refusal {
    Refusal::die(format!("role '{name}' does not exist"))
}

fn privileges(list: Option<&str>) -> Result<BTreeSet<String>, Refusal> {
    let list: BTreeSet<String> = split_list(list.unwrap_or_default()).map(str::to_owned).collect();
    match list.iter().find(|privilege| !PRIVILEGES.contains(&privilege.as_str())) {
        Some(unknown) => Err(Refusal::parameter(
            "privs",
            format!("invalid format - invalid privilege '{unknown}'\n"),
        )),
        None => Ok(list),
    }
}

pub(crate) async fn create_role(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("roleid");
    let list = privileges(call.params.get("privs"))?;
    let mut world = sim.world();
    if world.access.roles.contains_key(name) {
        return Err(Refusal::die(format!("role '{name}' already exists")));
    }
    world.access.roles.insert(name.to_owned(), list);
    Reply::null()
}

pub(crate) async fn update_role(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("roleid");
    let list = privileges(call.params.get("privs"))?;
    let append = call.params.flag("append");
    let mut world = sim.world();
    if is_special_role(name) {
        return Err(Refusal::die(format!("auto-generated role '{name}' cannot be modified")));
    }
    let role = world.access.roles.get_mut(name).ok_or_else(|| no_role(name))?;
    if !append {
        role.clear();
    }
    role.extend(list);
    Reply::null()
}

pub(crate) async fn delete_role(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let name = call.params.text("roleid");
    if is_special_role(name) {
        return Err(Refusal::die(format!("auto-generated role '{name}' cannot be deleted")));
    }
    sim.world().access.roles.remove(name).ok_or_else(|| no_role(name))?;
    Reply::null()
}

pub(crate) async fn list_acl(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let all = sim.rights(&call.auth, "/access").contains("Sys.Audit");
    let world = sim.world();
    let rows = world
        .access
        .acl
        .iter()
        .filter(|acl| all || acl.id == call.auth.user || acl.id == call.auth.id());
    let row = |acl: &Acl| {
        json!({
            "path": acl.path, "type": acl.kind, "ugid": acl.id, "roleid": acl.role,
            "propagate": i32::from(acl.propagate),
        })
    };
    Reply::data(rows.map(row).collect())
}

pub(crate) async fn update_acl(sim: Arc<Sim>, call: Arc<Call>) -> Outcome {
    let path = call.params.text("path").to_owned();
    sim.require(&call.auth, &path, &["Permissions.Modify"], false)?;
    let propagate = call.params.get("propagate") != Some("0");
    let mut world = sim.world();
    for role in split_list(call.params.text("roles")) {
        if !world.access.roles.contains_key(role) {
            return Err(no_role(role));
        }
        for (kind, list) in [("user", "users"), ("token", "tokens")] {
            for id in split_list(call.params.get(list).unwrap_or_default()) {
                let acl = Acl {
                    path: path.clone(),
                    kind,
                    id: id.to_owned(),
                    role: role.to_owned(),
                    propagate,
                };
                if call.params.flag("delete") {
                    world.access.acl.retain(|known| {
                        (&known.path, known.kind, &known.id, &known.role)
                            != (&acl.path, acl.kind, &acl.id, &acl.role)
                    });
                } else {
                    world.access.acl.insert(acl);
                }
            }
        }
    }
    Reply::null()
}
