//! The generation before the live one: kept at each switch, brought up to date and switched back to.

use proximity_projections::{Error, State, boxed};

use crate::on_both;
use crate::support::*;

on_both! {
    a_switch_back_mends_a_bad_generation_and_loses_no_event(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let head = site.append((0..300).map(|n| added(&format!("c{n:03}"), 1)).collect()).await;
        caught_up(&views, head).await;
        let none = views.switch_back(&["counter"], silent()).await;
        assert!(matches!(none, Err(Error::NoPrevious { .. })), "{none:?}");
        views.rebuild(&[], silent()).await.unwrap();
        // The new generation turns out to be wrong, and the log has gone on.
        site.tamper("update counter set count = count + 1000000 where id = 'c001'").await;
        let head = site.append(vec![added("c003", 1), added("new", 5)]).await;
        caught_up(&views, head).await;
        let before = status(&views, "counter").await.previous.unwrap();
        assert_eq!((before.version, before.position), (1, 300));
        let back = views.switch_back(&["counter"], silent()).await.unwrap();
        assert_eq!((back[0].position, back[0].from), (302, 300));
        assert_eq!(counts(&site).await, (306, 301, 302));
        let head = site.append(vec![added("c002", 1)]).await;
        caught_up(&views, head).await;
        assert_eq!(counts(&site).await, (307, 301, 303));
        assert_eq!(views.verify("counter", silent()).await.unwrap().rows_different, 0);
        // And forth again: what was live before is only the other one now.
        views.switch_back(&["counter"], silent()).await.unwrap();
        assert!(counts(&site).await.0 > 1_000_000);
        views.drop_previous(&[]).await.unwrap();
        assert_eq!(status(&views, "counter").await.previous, None);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    only_the_program_that_built_a_generation_switches_back_to_it(site) {
        let old = site.views_of(counter()).await;
        let runner = old.follow();
        let head = site.append((0..100).map(|n| added(&format!("c{n:03}"), 1)).collect()).await;
        caught_up(&old, head).await;
        runner.stop().await;
        let new = site.views_of(vec![boxed::<Counter<2, false>>()]).await;
        let runner = new.follow();
        until("the switch", || async { status(&new, "counter").await.version == 2 }).await;
        until("this process sees it", || async { new.position() == head }).await;
        let head = site.append(vec![added("c001", 1)]).await;
        caught_up(&new, head).await;
        runner.stop().await;
        assert_eq!(counts(&site).await.0, 202);
        let refused = new.switch_back(&["counter"], silent()).await;
        assert!(matches!(refused, Err(Error::PreviousVersion { version: 1, known: 2, .. })), "{refused:?}");
        old.switch_back(&["counter"], silent()).await.unwrap();
        assert_eq!(counts(&site).await.0, 101);
        let status = status(&old, "counter").await;
        assert_eq!((status.state, status.version, status.lag), (State::Running, 1, 0));
        assert_eq!(status.previous.unwrap().version, 2);
        old.close().await;
        new.close().await;
    }
}
