//! What a demonstration starts with: an administrator, a registered host, nothing of an older world.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use proximity_commands::applications::Action;
use proximity_commands::hosts::{HostChange, HostInput};
use proximity_commands::policy::{Admin, Owned};
use proximity_commands::{Actor, Secret};
use proximity_domain::{ApplicationId, HostId};
use proximity_projections::applications::Filter;
use proximity_simulator::SimulatorHandle;
use serde::{Deserialize, Serialize};

use crate::app::App;

/// Remembers where the simulator listened, so that a kept host finds it again.
pub const ADDRESS_FILE: &str = "demo-simulator";
/// Remembers the login of a kept demonstration; readable by its owner only.
pub const LOGIN_FILE: &str = "demo-login.json";
/// The name of the host.
const HOST: &str = "demo";

/// The administrator of a demonstration.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    pub username: String,
    pub password: String,
}

/// Makes what is missing and mends what the new simulator has changed.
pub async fn seed(app: &App, simulator: &SimulatorHandle, data: &Path) -> anyhow::Result<Login> {
    let login = administrator(app, data).await?;
    let actor = Actor::system("demo");
    let admin = Admin::prove(&actor)?;
    // Rows that are a part of what there is do not tell whether the host is there.
    app.views.filled().await;
    app.seen(app.store.head().await?).await;
    let known = app.views.hosts().await?.into_iter().find(|host| host.name == HOST);
    match known {
        None => {
            app.commands.hosts.create(&admin, new_host(simulator)).await?;
        }
        Some(host) => {
            let id = HostId(host.id);
            app.commands.hosts.change(&admin, id, moved_host(simulator)).await?;
            app.commands.clusters.forget().await;
            forget_applications(app, &actor).await?;
        }
    }
    keep(&data.join(ADDRESS_FILE), simulator.address().to_string().as_bytes())?;
    let head = app.store.head().await?;
    app.seen(head).await;
    Ok(login)
}

async fn administrator(app: &App, data: &Path) -> anyhow::Result<Login> {
    let path = data.join(LOGIN_FILE);
    if let Ok(text) = std::fs::read_to_string(&path) {
        return serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; remove the folder", path.display()));
    }
    let login = Login { username: "admin".to_owned(), password: generated_password() };
    keep(&path, serde_json::to_string(&login)?.as_bytes())?;
    app.create_admin(&login.username, Secret::new(login.password.clone())).await?;
    Ok(login)
}

/// 24 random letters and digits: 142 bits.
pub fn generated_password() -> String {
    use rand::Rng as _;
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(24).map(char::from).collect()
}

fn new_host(simulator: &SimulatorHandle) -> HostInput {
    HostInput {
        name: HOST.to_owned(),
        host: simulator.address().ip().to_string(),
        port: simulator.address().port().into(),
        user: "root@pam".to_owned(),
        password: Some(Secret::new(simulator.root_password().to_owned())),
        token_id: None,
        token_secret: None,
        verify_ssl: false,
        fingerprint: Some(simulator.fingerprint()),
        ssh_port: 22,
        is_default: true,
    }
}

fn moved_host(simulator: &SimulatorHandle) -> HostChange {
    let new = new_host(simulator);
    HostChange {
        host: Some(new.host),
        port: Some(new.port),
        password: new.password,
        fingerprint: new.fingerprint,
        is_active: Some(true),
        ..HostChange::default()
    }
}

/// The simulator starts empty: applications of an earlier run have lost their containers, and are
/// deleted in the ordinary way, so that the list shows what there is.
async fn forget_applications(app: &App, actor: &Actor) -> anyhow::Result<()> {
    let head = app.store.head().await?;
    app.seen(head).await;
    loop {
        let page = app.views.apps(&Filter::default(), 1, 100).await?;
        let mut asked = 0;
        for found in &page.items {
            if found.status == "removing" || found.operation.is_some() {
                continue;
            }
            let id = found.id.parse()?;
            let owned = Owned::<ApplicationId>::prove(&app.store, actor, id).await?;
            let asked_for = app.commands.applications.act(&owned, Action::Delete, true, None).await;
            match asked_for {
                Ok(_) => asked += 1,
                Err(error) => {
                    tracing::warn!(app = found.id, %error, "an old application stays");
                }
            }
        }
        if asked == 0 || page.total <= 100 {
            return Ok(());
        }
        let head = app.store.head().await?;
        app.seen(head).await;
    }
}

fn keep(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(content)?;
    Ok(())
}
