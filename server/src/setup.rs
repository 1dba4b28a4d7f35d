//! The first start: a single-use setup token, printed and written to a file for its owner only.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use proximity_commands::accounts::Accounts;

use crate::config::Config;

fn file(config: &Config) -> PathBuf {
    config.data.join("setup-token")
}

/// Issues a token while nobody has an account. It is not logged: logs are kept and shipped.
pub async fn offer(config: &Config, accounts: &Accounts) -> anyhow::Result<()> {
    let Some(token) = accounts.setup_token_if_first_start().await? else {
        forget(config);
        return Ok(());
    };
    let path = file(config);
    forget(config);
    let mut kept = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(kept, "{}", token.expose())?;
    let text = format!(
        "\nThis is the first start. Whoever registers with this setup token becomes the \
         administrator:\n\n    {}\n\nIt is also in {}. `proximity user add NAME --admin` does the \
         same from the shell.\n\n",
        token.expose(),
        path.display()
    );
    std::io::stderr().write_all(text.as_bytes())?;
    Ok(())
}

/// Removes the file: its token is used, or a new one takes its place.
pub fn forget(config: &Config) {
    let path = file(config);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "the used setup token's file stays");
    }
}
