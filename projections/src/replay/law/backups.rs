//! What can happen to backups, to schedules, and to the runs of schedules.

use proximity_domain::UserId;
use proximity_domain::backup::{Backup, Command, Event};
use proximity_domain::backup_run::{
    BackupRun, Command as RunCommand, Event as RunEvent, Planned, RunId,
};
use proximity_domain::backup_schedule::{
    BackupSchedule, Command as ScheduleCommand, Event as ScheduleEvent,
};

use super::Law;

impl Law for Backup {
    fn command(event: &Event) -> Result<Command, String> {
        Ok(match event.clone() {
            Event::Requested(requested) => Command::Request(requested),
            Event::Completed { operation, archive } => Command::Complete { operation, archive },
            Event::Failed { operation, problem, absent } => {
                Command::Fail { operation, problem, absent }
            }
            Event::OperationBegan { operation, kind } => Command::Begin { operation, kind },
            Event::OperationEnded { operation, problem } => Command::End { operation, problem },
            Event::Deleted { operation } => Command::FinishDeletion { operation },
        })
    }

    fn again(&self, command: Command) -> Result<Vec<Event>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        self.kept().is_some()
    }

    fn owner(&self, event: &Event) -> Option<UserId> {
        match event {
            Event::Requested(requested) => Some(requested.owner),
            _ => None,
        }
    }
}

impl Law for BackupSchedule {
    fn command(event: &ScheduleEvent) -> Result<ScheduleCommand, String> {
        Ok(match event.clone() {
            ScheduleEvent::Created(created) => ScheduleCommand::Create(created),
            ScheduleEvent::Changed { settings, next } => ScheduleCommand::Change { settings, next },
            ScheduleEvent::Fired { due, next } => ScheduleCommand::Fire { due, next },
            ScheduleEvent::PassedOver { due, next, reason } => {
                ScheduleCommand::PassOver { due, next, reason }
            }
            ScheduleEvent::RunEnded { due, outcomes } => ScheduleCommand::EndRun { due, outcomes },
            ScheduleEvent::Deleted { reason } => ScheduleCommand::Delete { reason },
        })
    }

    fn again(&self, command: ScheduleCommand) -> Result<Vec<ScheduleEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        self.live().is_some()
    }

    fn owner(&self, event: &ScheduleEvent) -> Option<UserId> {
        match event {
            ScheduleEvent::Created(created) => Some(created.owner),
            _ => None,
        }
    }
}

impl Law for BackupRun {
    fn command(event: &RunEvent) -> Result<RunCommand, String> {
        Ok(match event.clone() {
            RunEvent::Planned(planned) => RunCommand::Plan(planned),
            RunEvent::Deferred { application, reason, until } => {
                RunCommand::Defer { application, reason, until }
            }
            RunEvent::Began { application, backup, operation } => {
                RunCommand::Begin { application, backup, operation }
            }
            RunEvent::PruningBegan { application, backup, operation } => {
                RunCommand::BeginPruning { application, backup, operation }
            }
            RunEvent::Closed { outcome } => RunCommand::Close { outcome },
            RunEvent::Ended => RunCommand::End,
        })
    }

    fn again(&self, command: RunCommand) -> Result<Vec<RunEvent>, Self::Error> {
        self.decide(command)
    }

    fn lives(&self) -> bool {
        self.open().is_some()
    }

    fn belongs(event: &RunEvent, id: &str) -> bool {
        let run = |planned: &Planned| RunId { schedule: planned.schedule, due: planned.due };
        match event {
            RunEvent::Planned(planned) => run(planned).to_string() == id,
            _ => true,
        }
    }

    fn owner(&self, event: &RunEvent) -> Option<UserId> {
        match event {
            RunEvent::Planned(planned) => Some(planned.owner),
            _ => None,
        }
    }
}
