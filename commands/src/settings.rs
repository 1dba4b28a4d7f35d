//! The defaults of deployments: read by everyone, changed by admins, used by each deployment.

#[cfg(test)]
mod tests;

use proximity_domain::settings::{
    Command, NETWORK, RESOURCES, ResourceDefaultsInput, Settings, default_network,
    default_resources,
};
use proximity_domain::{NetworkSettings, NetworkSettingsInput, Resources, ValueError};
use proximity_eventstore::{Position, Store};

use crate::dispatch::{Refused, Retries, Unit, load};
use crate::error::{Error, FieldError};
use crate::policy::Admin;

/// The resources that a container gets when nobody asks for others.
pub async fn resources(store: &Store) -> Result<Resources, Error> {
    let (settings, _) = load::<Settings>(store, RESOURCES).await?;
    Ok(settings.resources.unwrap_or_else(default_resources))
}

/// The network that containers join.
pub async fn network(store: &Store) -> Result<NetworkSettings, Error> {
    let (settings, _) = load::<Settings>(store, NETWORK).await?;
    Ok(settings.network.unwrap_or_else(default_network))
}

/// Changes the resource defaults; returns what is in force and where the log stands.
pub async fn change_resources(
    store: &Store,
    admin: &Admin,
    input: &ResourceDefaultsInput,
) -> Result<(Resources, Option<Position>), Error> {
    let resources = input.parse().map_err(invalid)?;
    let command = Command::ChangeResources { resources };
    Ok((resources, change(store, admin, RESOURCES, "settings.resources", command).await?))
}

/// Changes the network defaults; returns what is in force and where the log stands.
pub async fn change_network(
    store: &Store,
    admin: &Admin,
    input: &NetworkSettingsInput,
) -> Result<(NetworkSettings, Option<Position>), Error> {
    let network = NetworkSettings::parse(input).map_err(invalid)?;
    let command = Command::ChangeNetwork { network: network.clone() };
    Ok((network, change(store, admin, NETWORK, "settings.network", command).await?))
}

async fn change(
    store: &Store,
    admin: &Admin,
    stream: &str,
    name: &'static str,
    command: Command,
) -> Result<Option<Position>, Error> {
    let mut retries = Retries::default();
    loop {
        let mut unit = Unit::new(store, admin.actor().metadata(name));
        match unit.apply::<Settings>(stream, command.clone()).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Refused::Judged(never)) => match never {},
            Err(Refused::Failed(error)) => return Err(error),
        }
        match unit.commit().await {
            Ok(committed) => return Ok(Some(committed.position)),
            Err(error) => retries.again(error.into()).await?,
        }
    }
}

fn invalid(wrong: Vec<(&'static str, ValueError)>) -> Error {
    Error::Invalid(
        wrong
            .into_iter()
            .map(|(field, error)| FieldError {
                field: field.to_owned(),
                code: error.code,
                detail: error.message,
            })
            .collect(),
    )
}
