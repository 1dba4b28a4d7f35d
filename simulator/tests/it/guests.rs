//! Guests that really listen.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use proximity_simulator::{GuestPorts, SimulatorConfig, SimulatorHandle, Speaks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Caller, with};

const DHCP: (&str, &str) = ("net0", "name=eth0,bridge=vmbr0,ip=dhcp");

async fn listening() -> (SimulatorHandle, Caller) {
    with(SimulatorConfig {
        guest_ports: vec![GuestPorts {
            image_contains: "alpine".to_owned(),
            ports: vec![(8_080, Speaks::Http), (6_379, Speaks::Tcp)],
        }],
        ..SimulatorConfig::quick()
    })
    .await
}

async fn address(root: &Caller, vmid: u32) -> Ipv4Addr {
    let got = root.get(&format!("/nodes/pve1/lxc/{vmid}/interfaces")).await;
    let rows = got.data().as_array().unwrap();
    assert_eq!(rows[0]["name"], "lo");
    let inet = rows[1]["inet"].as_str().unwrap();
    assert_eq!(rows[1]["ip-addresses"][0]["prefix"], "10");
    inet.split('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_running_guest_answers_and_a_stopped_one_does_not() {
    let (sim, root) = listening().await;
    root.container(100, &[DHCP, ("hostname", "web-01")]).await;
    assert_eq!(root.get("/nodes/pve1/lxc/100/interfaces").await.text, r#"{"data":null}"#);
    root.start(100).await;
    let address = address(&root, 100).await;
    assert!(address.is_loopback());
    let page = root.http.get(format!("http://{address}:8080/")).send().await.unwrap();
    assert_eq!(page.headers()["x-frame-options"], "DENY");
    let text = page.text().await.unwrap();
    assert!(text.contains("web-01") && text.contains("100") && text.contains("alpine"), "{text}");
    let mut echo = TcpStream::connect((address, 6_379)).await.unwrap();
    echo.write_all(b"PING").await.unwrap();
    let mut back = [0u8; 4];
    echo.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"PING");
    let line = sim.ledger().container(100).unwrap().clone();
    assert_eq!(line.address, Some(address.to_string()));
    assert_eq!((line.listening, line.listen_error), (vec![8_080, 6_379], None));
    let stop = root.post("/nodes/pve1/lxc/100/status/stop", &[]).await;
    assert_eq!(root.exit(&stop).await, "OK");
    assert!(TcpStream::connect((address, 8_080)).await.is_err());
    assert_eq!(echo.read(&mut back).await.unwrap_or(0), 0, "open connections end, too");
    root.start(100).await;
    assert_eq!(self::address(&root, 100).await, address, "DHCP keeps its lease");
    let gone = root.delete("/nodes/pve1/lxc/100?force=1").await;
    assert_eq!(root.exit(&gone).await, "OK");
    assert!(TcpStream::connect((address, 8_080)).await.is_err());
}

#[tokio::test]
async fn addresses_are_unique_over_all_simulators_of_a_process() {
    let hosts = [listening().await, listening().await];
    let mut addresses = HashSet::new();
    for (_, root) in &hosts {
        for vmid in 100..120 {
            root.container(vmid, &[DHCP]).await;
            root.start(vmid).await;
            assert!(addresses.insert(address(root, vmid).await));
        }
    }
    assert_eq!(addresses.len(), 40);
}

#[tokio::test]
async fn a_fixed_address_is_used_on_loopback_and_only_shown_elsewhere() {
    let (sim, root) = listening().await;
    root.container(100, &[("net0", "name=eth0,bridge=vmbr0,ip=127.63.1.7/24")]).await;
    root.start(100).await;
    assert!(TcpStream::connect(("127.63.1.7", 8_080)).await.is_ok());
    root.container(101, &[("net0", "name=eth0,bridge=vmbr0,ip=10.99.0.51/24,gw=10.99.0.1")]).await;
    root.start(101).await;
    let shown = root.get("/nodes/pve1/lxc/101/interfaces").await;
    assert_eq!(shown.data()[1]["inet"], "10.99.0.51/24");
    let line = sim.ledger().container(101).unwrap().clone();
    assert_eq!(line.listening, Vec::<u16>::new());
    assert_eq!(
        line.listen_error.unwrap(),
        "10.99.0.51 is outside 127.0.0.0/8: shown, not listened on"
    );
    root.container(102, &[("net0", "name=eth0,bridge=vmbr0,ip=127.63.1.7/24")]).await;
    root.start(102).await;
    let conflict = sim.ledger().container(102).unwrap().listen_error.clone().unwrap();
    assert!(conflict.starts_with("127.63.1.7:8080: "), "{conflict}");
}

#[tokio::test]
async fn an_address_shows_only_once_dhcp_is_done() {
    let (_sim, root) = with(SimulatorConfig {
        dhcp_delay: Duration::from_millis(400),
        ..SimulatorConfig::quick()
    })
    .await;
    root.container(100, &[DHCP]).await;
    root.start(100).await;
    let early = root.get("/nodes/pve1/lxc/100/interfaces").await;
    assert!(early.data()[1].get("inet").is_none(), "{early:?}");
    assert_eq!(early.data()[1]["ip-addresses"], serde_json::json!([]));
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert!(address(&root, 100).await.is_loopback());
}
