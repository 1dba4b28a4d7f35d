//! `proximity user`: accounts from the shell, for whoever can read the master key.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;

use proximity_commands::accounts::NewUser;
use proximity_commands::clock::SystemClock;
use proximity_commands::policy::Admin;
use proximity_commands::refusals::Refusals;
use proximity_commands::sessions::{Lifetimes, Sessions};
use proximity_commands::{Actor, Secret};
use proximity_domain::user::Role;
use serde_json::json;

use super::output::{Format, render};
use super::stdout::{print, print_once};
use super::{Failure, Settings};
use crate::app::sealing::close_sealed;
use crate::control::{self, Request};
use crate::demo::generated_password;
use crate::{app, shell, stores};

/// What can be done with accounts.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an account; without --password-stdin a password is generated and shown once
    Add {
        /// The user name
        name: String,
        /// Make an administrator
        #[arg(long)]
        admin: bool,
        /// The e-mail address
        #[arg(long)]
        email: Option<String>,
        /// Read the password from the standard input stream
        #[arg(long)]
        password_stdin: bool,
    },
}

/// Through the running server where one holds the embedded store, else directly.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    let Command::Add { name, admin, email, password_stdin } = command;
    let (password, generated) = if password_stdin {
        (read_password()?, false)
    } else {
        (Secret::new(generated_password()), true)
    };
    let request = Request::AddUser {
        username: name.clone(),
        email,
        admin,
        password: password.expose().to_owned(),
    };
    let id = match control::ask(config, &request).await? {
        Some(answer) => answer
            .map_err(|problem| Failure::Failed(anyhow::anyhow!(problem)))?
            .as_i64()
            .unwrap_or_default(),
        None => direct(config, request).await?,
    };
    if admin {
        // There is an administrator now: the token of the first start is worth nothing any more.
        crate::setup::forget(config);
    }
    let mut row = json!({ "id": id, "username": name, "admin": admin });
    let mut columns = vec!["id", "username", "admin"];
    if generated {
        row["password"] = json!(password.expose());
        columns.push("password");
    }
    let shown = render(&[row], &columns, format)?;
    if generated { print_once(&shown) } else { print(&shown) }
}

fn read_password() -> Result<Secret, Failure> {
    if std::io::stdin().is_terminal() {
        write!(std::io::stderr(), "password: ").map_err(anyhow::Error::from)?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(anyhow::Error::from)?;
        return Ok(Secret::new(line.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).map_err(anyhow::Error::from)?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Opens the store; on SQLite no server may run then, and none does, or it would have answered.
async fn direct(config: &Settings, request: Request) -> Result<i64, Failure> {
    config.ensure_data()?;
    let store =
        stores::open(config).await.map_err(|error| Failure::Unavailable(error.to_string()))?;
    let keys = app::open_keys(config, &store).await?;
    let clock = SystemClock::shared();
    let refusals = Arc::new(Refusals::new(store.clone(), clock.clone()));
    let sessions = Sessions::new(store.clone(), clock.clone(), Lifetimes::default());
    let accounts = app::accounts(config, &store, &keys.keys(), &sessions, &refusals, clock)
        .map_err(anyhow::Error::from)?;
    let made = add(&accounts, &shell::actor(), request).await;
    close_sealed(config, store).await;
    made.map_err(|error| Failure::Failed(error.into()))
}

/// Makes the account; returns its id.
pub async fn add(
    accounts: &proximity_commands::accounts::Accounts,
    by: &Actor,
    request: Request,
) -> Result<i64, proximity_commands::Error> {
    let Request::AddUser { username, email, admin, password } = request else {
        return Err(proximity_commands::Error::NotFound);
    };
    let asked =
        NewUser { username, email, password: Some(Secret::new(password)), ..NewUser::default() };
    let role = if admin { Role::Admin } else { Role::User };
    let shell = Admin::prove(by)?;
    Ok(accounts.create_user(&shell, asked, role).await?.user.id.0)
}
