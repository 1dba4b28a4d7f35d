//! What lists show to whom; who may call what is the matrix's.

use serde_json::Value;

use crate::harness::on_both;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_its_reader_nothing_of_others() {
    on_both(async |kind| {
        let world = World::start(kind).await;
        let id = world.deployed(&world.owner, "web-01").await;
        for (who, sees) in [(&world.owner, 1), (&world.other, 0), (&world.admin, 1)] {
            let apps = world.get(who, "/api/apps?search=WEB").await.body;
            assert_eq!(apps["total"], sees, "{}: {apps}", who.name);
            let operations = world.get(who, &format!("/api/operations?app={id}")).await.body;
            assert_eq!(operations["total"], sees, "{}: {operations}", who.name);
        }
        let nodes = world.get(&world.other, "/api/proxmox/nodes").await.body;
        assert_eq!(nodes[0]["memory_total"], Value::Null, "figures are for administrators");
        let nodes = world.get(&world.admin, "/api/proxmox/nodes").await.body;
        assert!(nodes[0]["memory_total"].as_u64().unwrap() > 0);
        world.stop().await;
    })
    .await;
}
