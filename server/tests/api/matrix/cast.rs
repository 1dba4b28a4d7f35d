//! Everybody who may call, each with things of their own that live and things that are gone.

use std::sync::Arc;

use futures_util::future::join_all;
use proximity_commands::clock::{AheadClock, SECOND};
use proximity_server::demo::generated_password;
use proximity_simulator::{Foreign, NodeConfig, Simulator, SimulatorConfig};
use reqwest::Method;
use serde_json::{Value, json};

use super::table::Thing;
use crate::harness::Kind;
use crate::world::{Person, World};

/// Everybody who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Nobody,
    Garbage,
    /// The owner's login, an hour and more ago.
    Expired,
    LoggedOut,
    /// A user who was signed in and is disabled since.
    Disabled,
    /// A token of the owner's program, from the day before.
    ExpiredProgram,
    Other,
    Owner,
    /// Was an administrator when signing in.
    Demoted,
    /// A program with every scope, of the administrator who is none any more.
    DemotedProgram,
    /// A program of the owner's that may only read.
    Reader,
    Admin,
}

pub const EVERYBODY: [Who; 12] = [
    Who::Nobody,
    Who::Garbage,
    Who::Expired,
    Who::LoggedOut,
    Who::Disabled,
    Who::ExpiredProgram,
    Who::Other,
    Who::Owner,
    Who::Demoted,
    Who::DemotedProgram,
    Who::Reader,
    Who::Admin,
];

impl Who {
    pub fn is_known(self) -> bool {
        matches!(
            self,
            Self::Other
                | Self::Owner
                | Self::Demoted
                | Self::DemotedProgram
                | Self::Reader
                | Self::Admin
        )
    }

    pub fn is_program(self) -> bool {
        matches!(self, Self::Reader | Self::DemotedProgram)
    }
}

/// Ids of one of each kind.
#[derive(Debug, Clone, Default)]
struct Set {
    application: String,
    operation: String,
    request: String,
    backup: String,
    schedule: String,
    session: String,
    token: String,
}

/// What somebody has, and had.
#[derive(Debug, Clone, Default)]
struct Things {
    user: String,
    live: Set,
    gone: Set,
}

/// Whose things a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Own,
    Others,
    OwnGone,
    OthersGone,
    Never,
}

pub const STATES: [State; 5] =
    [State::Own, State::Others, State::OwnGone, State::OthersGone, State::Never];

pub struct Cast {
    pub world: World,
    tokens: Vec<(Who, String)>,
    owner: Things,
    other: Things,
    demoted: Things,
    disabled: Things,
    admin: Things,
    host_gone: String,
}

impl Cast {
    /// Everybody and their things, on a server whose clock was moved on by a day meanwhile.
    pub async fn gather(kind: Kind) -> Self {
        let clock = Arc::new(AheadClock::default());
        let mut world = World::start_by(kind, clock.clone()).await;
        let names = ["olga", "otto", "dora", "dan"];
        let passwords = names.map(|_| generated_password());
        let mut ids = Vec::new();
        for (name, password) in names.iter().zip(&passwords) {
            let body =
                json!({ "username": name, "password": password, "is_staff": *name == "dora" });
            let made = world.post(&world.admin, "/api/users", &body).await;
            assert_eq!(made.status, 201, "{}", made.text);
            ids.push(made.body["id"].to_string());
        }
        let expired = world.server.sign_in("olga", &passwords[0]).await;
        let expired_program = token_of(&world, &expired, &["read", "write"], 1).await.1;
        clock.skip(25 * 3_600 * SECOND);

        let password = generated_password();
        world.server.app.create_admin("chief", password.clone().into()).await.unwrap();
        world.admin = world.server.sign_in("chief", &password).await;
        let mut people = Vec::new();
        for (name, password) in names.iter().zip(&passwords) {
            people.push((world.server.sign_in(name, password).await, password.clone()));
        }
        people.push((world.admin.clone(), password));
        let me = world.get(&world.admin, "/api/auth/user").await;
        ids.push(me.body["id"].to_string());
        let made = people.iter().map(|(who, password)| things_of(&world, who, password));
        let mut things = join_all(made).await;
        for (things, id) in things.iter_mut().zip(ids) {
            things.user = id;
        }
        let [owner, other, demoted, disabled, admin] = things.try_into().unwrap();

        let logged_out = world.server.sign_in("olga", &passwords[0]).await;
        let ended = world.post(&logged_out, "/api/auth/logout", &Value::Null).await;
        assert_eq!(ended.status, 200, "{}", ended.text);
        let reader = token_of(&world, &people[0].0, &["read"], 30).await.1;
        let every = ["read", "write", "admin"];
        let demoted_program = token_of(&world, &people[2].0, &every, 30).await.1;
        for (things, change) in
            [(&demoted, json!({ "is_staff": false })), (&disabled, json!({ "disabled": true }))]
        {
            let path = format!("/api/users/{}", things.user);
            let body = Some(&change);
            let done = world.server.as_person(&world.admin, Method::PATCH, &path, body).await;
            assert_eq!(done.status, 200, "{}", done.text);
        }
        let mut admin: Things = admin;
        // Administrators act on users: those must not be any that the other calls are made by.
        admin.user = spare_user(&world, "spare-1").await;
        let tokens = vec![
            (Who::Garbage, generated_password()),
            (Who::Expired, expired.token),
            (Who::LoggedOut, logged_out.token),
            (Who::Disabled, people[3].0.token.clone()),
            (Who::ExpiredProgram, expired_program),
            (Who::Other, people[1].0.token.clone()),
            (Who::Owner, people[0].0.token.clone()),
            (Who::Demoted, people[2].0.token.clone()),
            (Who::DemotedProgram, demoted_program),
            (Who::Reader, reader),
            (Who::Admin, world.admin.token.clone()),
        ];
        let host_gone = removed_host(&world).await;
        // Somebody else's container, which an administrator could adopt.
        let stranger = Foreign { vmid: Some(700), ..Foreign::default() };
        world.simulator.plant_container(stranger).await.unwrap();
        Self { world, tokens, owner, other, demoted, disabled, admin, host_gone }
    }

    pub fn bearer(&self, who: Who) -> Option<&str> {
        self.tokens.iter().find(|(of, _)| *of == who).map(|(_, token)| token.as_str())
    }

    fn own(&self, who: Who) -> &Things {
        match who {
            Who::Other => &self.other,
            Who::Demoted | Who::DemotedProgram => &self.demoted,
            Who::Disabled => &self.disabled,
            Who::Admin => &self.admin,
            _ => &self.owner,
        }
    }

    fn others(&self, who: Who) -> &Things {
        let is_owners = std::ptr::eq(self.own(who), &raw const self.owner);
        if is_owners { &self.other } else { &self.owner }
    }

    /// The id of a thing for somebody.
    pub fn id(&self, thing: Thing, state: State, who: Who) -> String {
        let things = match state {
            State::Own | State::OwnGone => self.own(who),
            State::Others | State::OthersGone => self.others(who),
            State::Never => return never(thing),
        };
        let gone = matches!(state, State::OwnGone | State::OthersGone);
        let set = if gone { &things.gone } else { &things.live };
        match thing {
            Thing::Application => set.application.clone(),
            Thing::Operation => set.operation.clone(),
            Thing::Request => set.request.clone(),
            Thing::Backup => set.backup.clone(),
            Thing::Schedule => set.schedule.clone(),
            Thing::Session => set.session.clone(),
            Thing::Token => set.token.clone(),
            // What an administrator does to a user must not end what the other cells need.
            Thing::User if who == Who::Admin => self.admin.user.clone(),
            Thing::User => things.user.clone(),
            Thing::Host if gone => self.host_gone.clone(),
            Thing::Host => "1".to_owned(),
            Thing::Entry => "alpine".to_owned(),
            Thing::Code => "not_found".to_owned(),
        }
    }
}

/// An id of the right shape that was never given out.
fn never(thing: Thing) -> String {
    match thing {
        Thing::Application => format!("alpine-{:08x}", rand::random::<u32>()),
        Thing::Operation | Thing::Session | Thing::Token => uuid::Uuid::new_v4().to_string(),
        Thing::Request => uuid::Uuid::new_v4().simple().to_string(),
        Thing::Backup | Thing::Schedule | Thing::User | Thing::Host => {
            (1_000_000 + i64::from(rand::random::<u16>())).to_string()
        }
        Thing::Entry => format!("entry-{:08x}", rand::random::<u32>()),
        Thing::Code => format!("code_{:08x}", rand::random::<u32>()),
    }
}

/// Id and text of a new API token.
async fn token_of(world: &World, who: &Person, scopes: &[&str], days: u32) -> (String, String) {
    let body = json!({ "name": "a program", "scopes": scopes, "expires_in_days": days });
    let made = world.post(who, "/api/auth/tokens", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let field = |name: &str| made.body[name].as_str().unwrap().to_owned();
    (field("id"), field("token"))
}

async fn spare_user(world: &World, name: &str) -> String {
    let body = json!({ "username": name, "password": generated_password() });
    let made = world.post(&world.admin, "/api/users", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["id"].to_string()
}

/// Registers a host, and takes it away again.
async fn removed_host(world: &World) -> String {
    let config = SimulatorConfig {
        nodes: vec![NodeConfig::new("alone")],
        cluster: Some("gone".to_owned()),
        ..SimulatorConfig::quick()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let body = json!({
        "name": "gone", "host": "127.0.0.1", "port": simulator.address().port(),
        "password": simulator.root_password(), "fingerprint": simulator.fingerprint(),
    });
    let made = world.post(&world.admin, "/api/proxmox/hosts", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.body["id"].to_string();
    world.removed(&world.admin, &format!("/api/proxmox/hosts/{id}")).await;
    simulator.shutdown().await;
    id
}

/// Two of everything for somebody; one of them is taken away again.
async fn things_of(world: &World, who: &Person, password: &str) -> Things {
    let (kept, removed) =
        tokio::join!(set_of(world, who, password, "kept"), set_of(world, who, password, "removed"));
    for (path, id) in [
        ("/api/auth/sessions", &removed.session),
        ("/api/auth/tokens", &removed.token),
        ("/api/backup-schedules", &removed.schedule),
    ] {
        world.removed(who, &format!("{path}/{id}")).await;
    }
    let app = format!("/api/apps/{}", removed.application);
    let backup = format!("{app}/backups/{}", removed.backup);
    world.removed(who, &backup).await;
    world.until(&backup, |answer| answer.status == 404).await;
    world.removed(who, &app).await;
    world.until(&app, |answer| answer.status == 404).await;
    Things { user: String::new(), live: kept, gone: removed }
}

async fn set_of(world: &World, who: &Person, password: &str, what: &str) -> Set {
    let body = json!({ "catalog_id": "alpine", "hostname": format!("{}-{what}", who.name) });
    let answer = world.post(who, "/api/apps", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let application = answer.body["id"].as_str().unwrap().to_owned();
    let operation = answer.header("location").rsplit('/').next().unwrap().to_owned();
    let request = answer.header("x-request-id").to_owned();
    let path = format!("/api/apps/{application}");
    world.until(&path, |answer| answer.body["status"] == "running").await;
    let backup = world.backed_up(who, &application).await.to_string();
    let body = json!({ "application_id": application, "cron": "0 2 * * *", "enabled": false });
    let made = world.post(who, "/api/backup-schedules", &body).await;
    let schedule = made.body["id"].to_string();
    let spare = world.server.sign_in(&who.name, password).await;
    let sessions = world.get(&spare, "/api/auth/sessions").await;
    let all = sessions.body["sessions"].as_array().unwrap();
    let current = all.iter().find(|session| session["current"] == true).unwrap();
    let session = current["id"].as_str().unwrap().to_owned();
    let (token, _) = token_of(world, who, &["read"], 30).await;
    Set { application, operation, request, backup, schedule, session, token }
}

impl World {
    /// Deletes, and panics unless that is accepted.
    async fn removed(&self, who: &Person, path: &str) {
        let answer = self.server.as_person(who, Method::DELETE, path, None).await;
        assert!(matches!(answer.status.as_u16(), 202 | 204), "{path}: {}", answer.text);
    }
}
