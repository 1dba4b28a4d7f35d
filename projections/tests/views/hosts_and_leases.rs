//! What is shown of hosts and their nodes, and which things are not free.

use proximity_domain::host::Event as Host;
use proximity_domain::lease::{Event as Lease, Holder};

use crate::on_both;
use crate::samples::*;
use crate::support::*;

on_both! {
    hosts_are_listed_default_first_and_nodes_keep_their_numbers(site) {
        let views = site.views().await;
        let runner = views.follow();
        let registered = |name: &str, cluster: &str, is_default| Host::Registered {
            connection: connection(name),
            cluster: cluster.parse().unwrap(),
            is_default,
        };
        site.append(vec![stream("host", "1", &[registered("zeta", "one", false)])]).await;
        site.append(vec![stream("host", "2", &[registered("Beta", "two", true)])]).await;
        site.append(vec![stream("host", "10", &[registered("alpha", "ten", false)])]).await;
        let observed = |nodes| Host::NodesObserved { nodes };
        site.append(vec![stream("host", "2", &[
            observed(vec![node("pve2", true), node("pve1", true)]),
            observed(vec![node("pve2", false)]),
            observed(vec![node("pve0", true), node("pve1", true), node("pve2", true)]),
        ])]).await;
        let position = site.append(vec![stream("host", "1", &[Host::Suspended { reason: "another cluster answers".into() }])]).await;
        caught_up(&views, position).await;
        let hosts = views.hosts().await.unwrap();
        let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["Beta", "alpha", "zeta"]);
        assert_eq!((hosts[0].total_nodes, hosts[0].online_nodes, hosts[0].total_cpu), (3, 3, Some(24)));
        assert_eq!((hosts[0].total_memory, hosts[0].total_storage), (Some(48 << 30), None));
        assert_eq!(hosts[0].url, "https://192.0.2.1:8006");
        assert_eq!((hosts[2].is_active, hosts[2].problem.as_deref()), (false, Some("another cluster answers")));
        let nodes = views.nodes(Some(2)).await.unwrap();
        let told: Vec<_> = nodes.iter().map(|n| (n.name.as_str(), n.id, n.status.as_str())).collect();
        assert_eq!(told, [("pve0", 200_003, "online"), ("pve1", 200_002, "online"), ("pve2", 200_001, "online")]);
        assert_eq!(views.nodes(None).await.unwrap().len(), 3);
        assert_eq!(views.nodes(Some(1)).await.unwrap(), []);
        let wire = serde_json::to_string(&hosts).unwrap();
        assert!(!wire.contains(&connection("x").credential.to_string()), "{wire}");

        let position = site.append(vec![stream("host", "2", &[Host::Removed])]).await;
        caught_up(&views, position).await;
        assert_eq!(views.host(2).await.unwrap(), None);
        assert_eq!(views.hosts().await.unwrap().len(), 2);
        assert_eq!(views.host(10).await.unwrap().unwrap().name, "alpha");
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_pool_is_told_by_what_is_not_free_in_it(site) {
        let views = site.views().await;
        let runner = views.follow();
        let holder = || Holder::Application("nginx-0badcafe".parse().unwrap());
        let held = || Lease::Acquired { holder: holder() };
        let lease = |key: &str, events: &[Lease]| stream("lease", key, events);
        let quarantined = Lease::Quarantined { holder: holder(), until: 42, reason: "a second look".into() };
        let position = site.append(vec![
            lease("port/public/8100", &[held()]),
            lease("port/public/8101", &[held(), Lease::Released { holder: holder() }]),
            lease("port/public/8102", &[held(), Lease::Released { holder: holder() }, held()]),
            lease("port/internal/9100", &[held()]),
            lease("vmid/homelab/100", &[held(), quarantined]),
            lease("vmid/homelab/101", &[Lease::FoundForeign { reason: "a stranger".into() }]),
            lease("vmid/homelab/102", &[Lease::FoundForeign { reason: "a stranger".into() }, Lease::Cleared]),
            lease("vmid/homelab-2/103", &[held()]),
            lease("vmid/homelab0/104", &[held()]),
            lease("hostname/web", &[held()]),
        ]).await;
        caught_up(&views, position).await;
        assert_eq!(views.numbers_taken("port/public").await.unwrap(), [8_100, 8_102]);
        assert_eq!(views.numbers_taken("port/internal").await.unwrap(), [9_100]);
        assert_eq!(views.numbers_taken("vmid/homelab").await.unwrap(), [100, 101], "not a longer name");
        assert_eq!(views.leases_taken("hostname").await.unwrap(), ["web"]);
        assert_eq!(views.leases_taken("address/homelab").await.unwrap(), [""; 0]);
        assert_eq!(views.count_taken("vmid").await.unwrap(), 4);
        assert_eq!(views.leases(None).await.unwrap().len(), 8);
        assert_eq!(views.leases(Some("application/nginx-0badcafe")).await.unwrap().len(), 7);
        let row = views.lease("vmid/homelab/100").await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.until, row.reason.as_deref()), ("quarantined", Some(42), Some("a second look")));
        assert_eq!(views.lease("port/public/8101").await.unwrap(), None, "free");
        assert_eq!(views.verify("leases", silent()).await.unwrap().rows_different, 0);
        runner.stop().await;
        views.close().await;
    }
}
