//! What can happen to hosts, settings, key generations and the log itself.

use proximity_domain::host::{Command, Event, Host};
use proximity_domain::keys::{self, Command as KeysCommand, Event as KeysEvent, Keys};
use proximity_domain::log::{self, Command as LogCommand, Event as LogEvent, Log};
use proximity_domain::settings::{
    self, Command as SettingsCommand, Event as SettingsEvent, Settings,
};
use proximity_eventstore::Recorded;

use super::Law;

impl Law for Host {
    fn command(event: &Event) -> Result<Command, String> {
        Ok(match event.clone() {
            Event::Registered { connection, cluster, is_default } => {
                Command::Register { connection, cluster, is_default }
            }
            Event::Changed { connection, is_active, is_default } => {
                Command::Change { connection, is_active, is_default }
            }
            Event::NodesObserved { nodes } => Command::ObserveNodes { nodes },
            Event::DiscrepanciesObserved { discrepancies } => {
                Command::ReportDiscrepancies { discrepancies }
            }
            Event::Suspended { reason } => Command::Suspend { reason },
            Event::Removed => Command::Remove,
        })
    }

    fn again(&self, command: Command) -> Result<Vec<Event>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        self.registration().is_some()
    }
}

impl Law for Settings {
    fn command(event: &SettingsEvent) -> Result<SettingsCommand, String> {
        Ok(match event.clone() {
            SettingsEvent::ResourcesChanged { resources } => {
                SettingsCommand::ChangeResources { resources }
            }
            SettingsEvent::NetworkChanged { network } => SettingsCommand::ChangeNetwork { network },
        })
    }

    fn again(&self, command: SettingsCommand) -> Result<Vec<SettingsEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        true
    }

    fn belongs(event: &SettingsEvent, id: &str) -> bool {
        match event {
            SettingsEvent::ResourcesChanged { .. } => id == settings::RESOURCES,
            SettingsEvent::NetworkChanged { .. } => id == settings::NETWORK,
        }
    }
}

impl Law for Keys {
    fn command(event: &KeysEvent) -> Result<KeysCommand, String> {
        Ok(match event.clone() {
            KeysEvent::RotationBegan { generation, replaced } => {
                KeysCommand::BeginRotation { generation, replaced }
            }
            KeysEvent::Rotated { generation, replaced, secrets } => {
                KeysCommand::FinishRotation { generation, replaced, secrets }
            }
            KeysEvent::Destroyed { generation } => KeysCommand::Destroy { generation },
        })
    }

    fn again(&self, command: KeysCommand) -> Result<Vec<KeysEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        true
    }

    fn belongs(_event: &KeysEvent, id: &str) -> bool {
        id == keys::STREAM
    }
}

/// A restoration is written by what restores, whatever was before; a confirmation is decided.
pub(in crate::replay) fn of_log(
    log: &Log,
    said: &LogEvent,
    event: &Recorded,
) -> Result<(), String> {
    let name = &event.event_type;
    if event.aggregate_id != log::STREAM {
        return Err(format!("{name} does not belong in this stream"));
    }
    match said {
        LogEvent::Restored(restored) if restored.position + 1 == event.position => Ok(()),
        LogEvent::Restored(restored) => {
            Err(format!("{name} says that the event before it is {}", restored.position))
        }
        LogEvent::RestoreConfirmed { .. } => match log.decide(LogCommand::ConfirmRestore) {
            Ok(decided) if decided.as_slice() == std::slice::from_ref(said) => Ok(()),
            Ok(_) => Err(format!("{name} could not happen then: it confirms another restoration")),
            Err(why) => Err(format!("{name} could not happen then: {why}")),
        },
    }
}
