//! `proximity demo` and `proximity simulator`: something to try, without a Proxmox VE.

use std::net::SocketAddr;

use proximity_simulator::{Simulator, SimulatorConfig};
use serde_json::json;

use super::serve::Stop;
use super::stdout::print;
use super::{Failure, Settings};
use crate::demo::{self, Demo};

/// Runs the demonstration until it is told to stop.
pub async fn run(config: Settings, keep: bool, as_json: bool) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let demo = tokio::select! {
        demo = Demo::start(config, keep) => demo?,
        () = stop.wanted() => return Ok(()),
    };
    if as_json {
        let line = json!({
            "url": demo.url(),
            "username": demo.login.username,
            "password": demo.login.password,
            "simulator_url": demo.simulator.url(),
            "ledger_url": demo.ledger_url(),
            "data_dir": demo.data,
        });
        print(&format!("{line}\n"))?;
    } else {
        print(&instructions(&demo))?;
    }
    stop.wanted().await;
    tokio::select! {
        () = demo.stop() => {}
        () = stop.wanted() => {}
    }
    Ok(())
}

/// What to do next; each line can be pasted into a shell.
fn instructions(demo: &Demo) -> String {
    let (url, login) = (demo.url(), &demo.login);
    let credentials = json!({ "username": login.username, "password": login.password }).to_string();
    let token = format!(
        "$(curl -s {url}/api/auth/login/ -H 'Content-Type: application/json' -d '{credentials}' \
         | sed -E 's/.*\"access\":\"([^\"]+)\".*/\\1/')"
    );
    format!(
        "\nProximity is ready, with a simulated Proxmox VE beside it.\n\n\
         \x20 address    {url}\n\
         \x20 user       {}\n\
         \x20 password   {}\n\
         \x20 simulator  {}  (what exists in it: {})\n\
         \x20 data       {}\n\n\
         Deploy an application:\n\n\
         TOKEN={token}; curl -s {url}/api/apps/ -H \"Authorization: Bearer $TOKEN\" \
         -H 'Content-Type: application/json' \
         -d '{{\"catalog_id\": \"nginx\", \"hostname\": \"web-01\"}}'\n\n\
         A few seconds later, see it running and open its `url`:\n\n\
         curl -s '{url}/api/apps/?search=web-01' -H \"Authorization: Bearer $TOKEN\"\n\n\
         Ctrl-C ends it.\n",
        login.username,
        login.password,
        demo.simulator.url(),
        demo.ledger_url(),
        demo.data.display(),
    )
}

/// Runs a simulated Proxmox VE alone.
pub async fn simulator(
    listen: SocketAddr,
    control: SocketAddr,
    seed: u64,
    as_json: bool,
) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let config = SimulatorConfig { control, seed, ..demo::simulator_config(listen) };
    let simulator = Simulator::start(config).await.map_err(anyhow::Error::from)?;
    let facts = json!({
        "url": simulator.url(),
        "user": "root@pam",
        "password": simulator.root_password(),
        "fingerprint": simulator.fingerprint(),
        "control_url": simulator.control_url(),
        "ledger_url": format!("{}/ledger", simulator.control_url()),
    });
    if as_json {
        print(&format!("{facts}\n"))?;
    } else {
        print("A simulated Proxmox VE is ready; Ctrl-C ends it.\n\n")?;
        for (name, value) in facts.as_object().into_iter().flatten() {
            print(&format!("  {name:<12} {}\n", value.as_str().unwrap_or_default()))?;
        }
    }
    stop.wanted().await;
    simulator.shutdown().await;
    Ok(())
}
