//! Who may make each call, said once more beside the server's own table, so that a wrong line there
//! is found; and where in a call an id can stand.

use proximity_server::demo::generated_password;
use serde_json::{Value, json};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Anybody, with or without an identity.
    Anybody,
    /// Any user, also with a program's token.
    User,
    /// Any user who has signed in as a person.
    Person,
    /// Whose thing it is, and administrators.
    Owner,
    Admin,
}

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Application,
    Operation,
    /// A request that a thing was asked for with.
    Request,
    Backup,
    Schedule,
    /// A login, which nobody but its user can end, an administrator included.
    Session,
    /// A program's token; the same.
    Token,
    User,
    Host,
    /// An entry of the catalog.
    Entry,
    /// An error's code.
    Code,
}

/// How a call is made by those who may, so that the other cells find everything as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// As it is: it changes nothing that matters to another cell.
    Real,
    /// As a dry run.
    Dry,
    /// With an `If-Match` that fits nothing.
    NoMatch,
    /// With a body that is cut off: rights are looked at before it.
    CutOff,
}

/// One call.
pub struct Row {
    /// As in the document: method and path.
    pub name: &'static str,
    pub may: May,
    /// Where an id stands: `id` in the path, `?app` in the query, `/host_id` in the body.
    pub places: Vec<(&'static str, Thing)>,
    /// Fields and parameters that look like ids, and are none of ours.
    pub no_ids: &'static [&'static str],
    /// Parts of the path that are no ids.
    pub filled: Vec<(&'static str, &'static str)>,
    /// What the query says besides.
    pub query: &'static str,
    /// A body that would be accepted.
    pub body: Option<Value>,
    pub trial: Trial,
    /// Whether its owner is told of a thing that is gone.
    pub remembers: bool,
    /// What everybody gets, where that is a refusal.
    pub always: Option<u16>,
}

fn row(may: May, name: &'static str) -> Row {
    Row {
        name,
        may,
        places: Vec::new(),
        no_ids: &[],
        filled: Vec::new(),
        query: "",
        body: None,
        trial: Trial::Real,
        remembers: false,
        always: None,
    }
}

impl Row {
    fn at(mut self, place: &'static str, thing: Thing) -> Self {
        self.places.push((place, thing));
        self
    }

    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn tried(mut self, trial: Trial) -> Self {
        self.trial = trial;
        self
    }

    fn with(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    fn filled(mut self, part: &'static str, value: &'static str) -> Self {
        self.filled.push((part, value));
        self
    }

    fn no_ids(mut self, names: &'static [&'static str]) -> Self {
        self.no_ids = names;
        self
    }

    fn remembers(mut self) -> Self {
        self.remembers = true;
        self
    }

    fn always(mut self, status: u16) -> Self {
        self.always = Some(status);
        self
    }

    pub fn is_safe(&self) -> bool {
        self.name.starts_with("GET ")
    }
}

/// All of them. A call of the document that has no row here fails the test; several rows may be of
/// one call. The last one ends the sessions that the others are made with.
pub fn rows() -> Vec<Row> {
    let mut rows = public();
    rows.extend(accounts());
    rows.extend(applications());
    rows.extend(backups());
    rows.extend(installation());
    rows.push(row(May::Anybody, "POST /api/auth/logout"));
    rows
}

fn public() -> Vec<Row> {
    let anybody = |name| row(May::Anybody, name);
    let nothing = || json!({});
    let garbage = generated_password();
    vec![
        anybody("GET /healthz"),
        anybody("GET /readyz"),
        anybody("GET /metrics"),
        anybody("GET /api/health"),
        anybody("GET /api/core/health"),
        anybody("GET /api/core/system/info"),
        anybody("GET /api/openapi.json"),
        anybody("GET /api/docs"),
        anybody("GET /api/docs/page.js"),
        anybody("GET /api/docs/page.css"),
        anybody("GET /problems/{code}").at("code", Thing::Code),
        anybody("GET /api/catalog"),
        anybody("GET /api/catalog/categories"),
        anybody("GET /api/catalog/search").with("q=web"),
        anybody("GET /api/catalog/stats"),
        anybody("GET /api/catalog/category/{category}").filled("category", "web"),
        anybody("GET /api/catalog/{id}").at("id", Thing::Entry),
        anybody("POST /api/auth/login").body(nothing()),
        anybody("POST /api/auth/registration")
            .body(json!({ "username": "anybody", "password": garbage }))
            .always(403),
        anybody("POST /api/auth/token/refresh").body(json!({ "refresh": garbage })).always(401),
        anybody("POST /api/auth/token/verify").body(json!({ "token": garbage })).always(401),
    ]
}

fn accounts() -> Vec<Row> {
    let person = |name| row(May::Person, name);
    let admin = |name| row(May::Admin, name);
    let (old, new) = (generated_password(), generated_password());
    vec![
        row(May::User, "GET /api/auth/user"),
        person("PUT /api/auth/user").body(json!({ "first_name": "Eve" })).tried(Trial::CutOff),
        person("PATCH /api/auth/user").body(json!({ "last_name": "Eve" })).tried(Trial::CutOff),
        person("POST /api/auth/password/change")
            .body(json!({ "old_password": old, "new_password1": new, "new_password2": new }))
            .tried(Trial::CutOff),
        person("GET /api/auth/sessions"),
        person("DELETE /api/auth/sessions/{id}").at("id", Thing::Session),
        person("GET /api/auth/tokens"),
        person("POST /api/auth/tokens")
            .body(json!({ "name": "one more", "scopes": ["read"] }))
            .tried(Trial::CutOff),
        person("DELETE /api/auth/tokens/{id}").at("id", Thing::Token),
        admin("GET /api/users"),
        admin("POST /api/users")
            .body(json!({ "username": "one-more", "password": new, "is_staff": true }))
            .tried(Trial::CutOff),
        admin("PATCH /api/users/{id}").at("id", Thing::User).body(json!({ "disabled": false })),
        admin("POST /api/users/{id}/reset-password").at("id", Thing::User),
    ]
}

fn applications() -> Vec<Row> {
    let user = |name| row(May::User, name);
    let owner = |name| row(May::Owner, name).at("id", Thing::Application);
    let admin = |name| row(May::Admin, name);
    let operation = |may, name| row(may, name).at("id", Thing::Operation).remembers();
    vec![
        user("GET /api/apps"),
        user("POST /api/apps")
            .body(json!({ "catalog_id": "alpine", "hostname": "one-more" }))
            .at("/host_id", Thing::Host)
            .no_ids(&["catalog_id"])
            .tried(Trial::Dry),
        admin("GET /api/apps/discover").at("?host_id", Thing::Host),
        admin("POST /api/apps/adopt")
            .body(json!({ "vmid": 700, "node_name": "pve1", "hostname": "adopted" }))
            .at("/host_id", Thing::Host)
            .no_ids(&["vmid"])
            .tried(Trial::Dry),
        owner("GET /api/apps/{id}"),
        owner("GET /api/apps/{id}").with("at=2100-01-01T00:00:00Z"),
        owner("DELETE /api/apps/{id}").tried(Trial::Dry),
        owner("POST /api/apps/{id}/action").body(json!({ "action": "stop" })).tried(Trial::Dry),
        owner("POST /api/apps/{id}/action").body(json!({ "action": "delete" })).tried(Trial::Dry),
        owner("POST /api/apps/{id}/clone")
            .body(json!({ "new_hostname": "a-copy" }))
            .tried(Trial::Dry),
        owner("GET /api/apps/{id}/logs"),
        owner("GET /api/apps/{id}/stats"),
        owner("GET /api/apps/{id}/history").remembers(),
        owner("GET /api/apps/{id}/diff").with("from=1").remembers(),
        user("GET /api/audit/events").at("?app", Thing::Application).no_ids(&["actor"]).remembers(),
        row(May::Owner, "GET /api/audit/trace/{id}").at("id", Thing::Request).remembers(),
        admin("GET /api/audit/verify"),
        user("GET /api/events/stream"),
        user("GET /api/operations").at("?app", Thing::Application).remembers(),
        operation(May::Owner, "GET /api/operations/{id}"),
        operation(May::Owner, "POST /api/operations/{id}/cancel").body(json!({ "note": "why" })),
        operation(May::Admin, "POST /api/operations/{id}/resume").body(json!({ "note": "why" })),
        operation(May::Admin, "POST /api/operations/{id}/abandon").body(json!({ "note": "why" })),
    ]
}

fn backups() -> Vec<Row> {
    let user = |name| row(May::User, name);
    let of_app = |name| row(May::Owner, name).at("id", Thing::Application);
    let schedule = |name| row(May::Owner, name).at("id", Thing::Schedule);
    let nightly = || json!({ "cron": "0 2 * * *", "enabled": false });
    vec![
        of_app("GET /api/apps/{id}/backups").remembers(),
        of_app("POST /api/apps/{id}/backups").body(json!({})).tried(Trial::CutOff),
        of_app("GET /api/apps/{id}/backups/stats").remembers(),
        of_app("GET /api/apps/{id}/backups/{backup_id}").at("backup_id", Thing::Backup),
        of_app("DELETE /api/apps/{id}/backups/{backup_id}")
            .at("backup_id", Thing::Backup)
            .tried(Trial::NoMatch),
        of_app("POST /api/apps/{id}/backups/{backup_id}/restore")
            .at("backup_id", Thing::Backup)
            .body(json!({ "in_place": true }))
            .tried(Trial::Dry),
        user("GET /api/backups"),
        user("GET /api/backup-schedules"),
        user("POST /api/backup-schedules")
            .body(nightly())
            .at("/application_id", Thing::Application)
            .tried(Trial::Dry),
        schedule("GET /api/backup-schedules/{id}"),
        schedule("PUT /api/backup-schedules/{id}")
            .body(nightly())
            .at("/application_id", Thing::Application)
            .tried(Trial::NoMatch),
        schedule("DELETE /api/backup-schedules/{id}").tried(Trial::NoMatch),
    ]
}

fn installation() -> Vec<Row> {
    let user = |name| row(May::User, name);
    let admin = |name| row(May::Admin, name);
    let host = |name| row(May::Admin, name).at("id", Thing::Host);
    let network = json!({
        "default_subnet": "10.9.0.0/24", "default_gateway": "10.9.0.1",
        "default_dns_primary": "10.9.0.2", "default_bridge": "vmbr0",
    });
    let resources = json!({
        "default_cpu_cores": 1, "default_memory_mb": 512, "default_disk_gb": 4, "default_swap_mb": 0,
    });
    let password = generated_password();
    let one_more =
        json!({ "name": "one-more", "host": "127.0.0.1", "port": 1, "password": password });
    vec![
        admin("POST /api/catalog/reload"),
        user("GET /api/proxmox/hosts"),
        admin("POST /api/proxmox/hosts").body(one_more).no_ids(&["token_id"]).tried(Trial::CutOff),
        user("GET /api/proxmox/hosts/{id}").at("id", Thing::Host),
        host("PUT /api/proxmox/hosts/{id}")
            .body(json!({ "name": "renamed" }))
            .no_ids(&["token_id"])
            .tried(Trial::NoMatch),
        host("DELETE /api/proxmox/hosts/{id}").tried(Trial::NoMatch),
        host("POST /api/proxmox/hosts/{id}/test"),
        host("POST /api/proxmox/hosts/{id}/sync-nodes"),
        host("POST /api/proxmox/hosts/{id}/reconcile"),
        host("GET /api/proxmox/hosts/{id}/discrepancies"),
        user("GET /api/proxmox/nodes").at("?host_id", Thing::Host),
        admin("GET /api/core/restore"),
        admin("POST /api/core/restore/confirm"),
        admin("GET /api/audit/verify"),
        user("GET /api/core/settings/resources"),
        admin("POST /api/core/settings/resources").body(resources).tried(Trial::CutOff),
        user("GET /api/core/settings/network"),
        admin("POST /api/core/settings/network").body(network).tried(Trial::CutOff),
    ]
}
