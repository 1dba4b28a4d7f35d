//! What people ask for beside operations, on the rig's own store: a look at the host, an operation resumed
//! or given up.

use std::time::Duration;

use proximity_commands::Actor;
use proximity_commands::dispatch::Unit;
use proximity_commands::operations::Operations;
use proximity_commands::policy::Admin;
use proximity_commands::reconcile::Reconciler;
use proximity_domain::operation::{Command as Op, Operation};
use proximity_domain::{OperationId, UserId};

use super::Rig;

impl Rig {
    /// Looks at the host when it is asked to.
    pub fn reconciler(&self) -> Reconciler {
        let (hypervisors, markers) = (self.env.hypervisors.clone(), self.env.markers.clone());
        let clock = self.env.clock.clone();
        Reconciler::new(self.store.clone(), hypervisors, markers, clock, Duration::from_secs(60))
    }

    /// As an administrator who has cleaned up does.
    pub async fn resume(&self, operation: OperationId, note: &str) {
        let resumed = self.operations().resume(&admin(), operation, note.to_owned()).await;
        resumed.unwrap();
    }

    /// As its owner who does not want it any more does.
    pub async fn cancel(&self, operation: OperationId, reason: &str) {
        // Its own steps are appended meanwhile, and one of both has to be tried again.
        for _ in 0..100 {
            let mut unit =
                Unit::new(&self.store, Actor::system("rig").metadata("operation.cancel"));
            unit.load::<Operation>(&operation.to_string()).await.unwrap();
            let cancel = Op::Cancel { by: UserId(1), reason: reason.to_owned() };
            unit.apply::<Operation>(&operation.to_string(), cancel).await.unwrap();
            if unit.commit().await.is_ok() {
                return;
            }
        }
        panic!("operation {operation} cannot be cancelled");
    }

    /// As an administrator who does not want it ended does.
    pub async fn abandon(&self, operation: OperationId, note: &str) {
        self.abandon_for(operation, note, Duration::from_secs(900)).await;
    }

    /// The same where its number is kept from everyone for so long.
    pub async fn abandon_for(&self, operation: OperationId, note: &str, quarantine: Duration) {
        let operations = Operations { quarantine, ..self.operations() };
        operations.abandon(&admin(), operation, note.to_owned()).await.unwrap();
    }

    fn operations(&self) -> Operations {
        Operations {
            store: self.store.clone(),
            clock: self.env.clock.clone(),
            quarantine: Duration::from_secs(900),
        }
    }
}

fn admin() -> Admin {
    Admin::prove(&Actor::system("test")).unwrap()
}
