//! The way from the shell into a running server: a Unix socket that only its owner can open.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proximity_commands::policy::Admin;
use proximity_commands::{Actor, Shell};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli;
use crate::cli::noted::Act;
use crate::config::Config;
use crate::http::problem::chain;
use crate::shell;

/// Bytes of a request or an answer.
const MOST: u64 = 64 * 1024;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the shell waits for what takes as long as there is much of it.
const LONG_PATIENCE: Duration = Duration::from_secs(3_600);

/// What the shell can ask for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    AddUser {
        username: String,
        email: Option<String>,
        admin: bool,
        password: String,
    },
    /// Replace the master key; answers what that came to.
    RotateKeys,
    /// Forget a replaced key for good.
    DestroyKey {
        generation: String,
    },
    /// Let a restored installation act again.
    ConfirmRestore,
    /// Write down what the shell does beside the server.
    Note {
        act: Act,
        to: String,
    },
}

/// A request and who makes it. Whoever may open the socket may write the database as well, so that he is
/// believed who he is.
#[derive(Serialize, Deserialize)]
struct Asked<R> {
    by: Shell,
    request: R,
}

/// What the server answers: JSON, or the refusal as a sentence.
type Answer = Result<Value, String>;

fn path(config: &Config) -> PathBuf {
    config.data.join("control.sock")
}

/// Listens until it is stopped. The data directory is its owner's only; so is the socket.
pub async fn listen(app: Arc<App>, stopping: CancellationToken) {
    let path = path(&app.config);
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "commands of the shell cannot reach this server"
            );
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = answer(&app, stream).await {
                    tracing::warn!(error = format!("{error:#}"), "a command of the shell failed");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a command of the shell was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::debug!(%error, "the control socket's file stays");
    }
}

fn bind(path: &PathBuf) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(app: &Arc<App>, mut stream: UnixStream) -> anyhow::Result<()> {
    let mut text = Vec::new();
    tokio::time::timeout(PATIENCE, (&mut stream).take(MOST).read_to_end(&mut text)).await??;
    // Somebody only asked whether a server listens.
    if text.is_empty() {
        return Ok(());
    }
    let Asked { by, request } = serde_json::from_slice::<Asked<Request>>(&text)?;
    let serving = app.clone();
    let done = app.detached(async move { carry_out(&serving, by, request).await }).await?;
    // With its causes: whoever may open the socket may read the log as well.
    let answer: Answer = done.map_err(|error| chain(&error));
    let bytes = serde_json::to_vec(&answer)?;
    tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await??;
    Ok(())
}

async fn carry_out(
    app: &App,
    by: Shell,
    request: Request,
) -> Result<Value, proximity_commands::Error> {
    let shell = Actor::shell(by);
    let secrets = &app.commands.secrets;
    match request {
        Request::RotateKeys => {
            let rotated = secrets.rotate(&shell, Duration::ZERO).await?;
            Ok(json!(rotated))
        }
        Request::DestroyKey { generation } => {
            secrets.destroy(&shell, &generation).await?;
            Ok(Value::Null)
        }
        Request::ConfirmRestore => {
            Ok(json!(app.restoration.confirm(&Admin::prove(&shell)?).await?))
        }
        Request::Note { act, to } => {
            act.store(&app.store, &shell, &to).await?;
            Ok(Value::Null)
        }
        add @ Request::AddUser { .. } => {
            Ok(json!(cli::user::add(&app.accounts, &shell, add).await?))
        }
    }
}

/// Whether a server holds the embedded store.
pub async fn is_served(config: &Config) -> bool {
    UnixStream::connect(path(config)).await.is_ok()
}

/// Asks the server that holds the embedded store; `None` when there is none.
pub async fn ask(config: &Config, request: &Request) -> anyhow::Result<Option<Answer>> {
    if config.database_url.is_some() {
        return Ok(None);
    }
    let Ok(mut stream) = UnixStream::connect(path(config)).await else { return Ok(None) };
    stream.write_all(&serde_json::to_vec(&Asked { by: shell::here().clone(), request })?).await?;
    stream.shutdown().await?;
    let mut text = Vec::new();
    let patience = match request {
        Request::AddUser { .. } | Request::ConfirmRestore | Request::Note { .. } => PATIENCE,
        Request::RotateKeys | Request::DestroyKey { .. } => LONG_PATIENCE,
    };
    tokio::time::timeout(patience, stream.take(MOST).read_to_end(&mut text))
        .await
        .context("the server does not answer")??;
    Ok(Some(serde_json::from_slice(&text).context("the server's answer cannot be read")?))
}
