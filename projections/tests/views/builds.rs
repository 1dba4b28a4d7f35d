//! Rebuilds, new versions and other lives of the log: always beside the live rows.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proximity_projections::{BuildProgress, Error, Location, Pace, Rebuild, State, Views, boxed};
use sqlx::Connection as _;
use tokio::sync::watch;

use crate::on_both;
use crate::samples::Sample;
use crate::support::*;

async fn fill(site: &Site, events: i64) -> u64 {
    let mut last = 0;
    for chunk in 0..events / 100 {
        let streams =
            (0..100).map(|n| added(&format!("c{:03}", (chunk * 7 + n) % 300), 1)).collect();
        last = site.append(streams).await;
    }
    last
}

on_both! {
    a_rebuild_beside_a_live_runner_equals_the_live_rows(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let before = fill(&site, 12_000).await;
        let seen: Arc<Mutex<Vec<BuildProgress>>> = Arc::default();
        let on_progress = { let seen = Arc::clone(&seen); Arc::new(move |p| seen.lock().unwrap().push(p)) };
        let started = Instant::now();
        // Writers go on while it is rebuilt.
        let writing = { let store = site.store.clone(); tokio::spawn(async move {
            for _ in 0..200 { append(&store, vec![added("late", 1)]).await; }
        }) };
        views.rebuild(&["counter"], on_progress).await.unwrap();
        let took = started.elapsed();
        writing.await.unwrap();
        let head = site.store.head().await.unwrap();
        caught_up(&views, head).await;
        assert_eq!(counts(&site).await, (12_200, 301, 12_200));
        let verdict = views.verify("counter", silent()).await.unwrap();
        assert_eq!(verdict.differences, []);
        assert_eq!(verdict.rows_compared, 301);
        let seen = seen.lock().unwrap().clone();
        let last = seen.last().unwrap();
        println!("figure: {:?}: rebuilt {} events in {took:?} beside a live runner, {:.0} events/s folded; rows different: {}",
            site.kind, last.events_done, last.rate(), verdict.rows_different);
        assert!(last.events_done >= before && last.events_done == last.events_total);
        assert!(seen.windows(2).all(|two| two[0].events_done < two[1].events_done));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_rebuild_that_leaves_a_core_to_others_ends_while_they_write(site) {
        let views = site.views().await;
        let runner = views.follow();
        let deployed = |number: u32| {
            let sample = Sample::new(number);
            let mut streams = sample.deployment();
            streams.extend(sample.success());
            streams
        };
        for number in 0..400 {
            site.append(deployed(number)).await;
        }
        let writing = { let store = site.store.clone(); tokio::spawn(async move {
            for number in 400..500 { append(&store, deployed(number)).await; }
        }) };
        // Its own writes and the runner's take turns at the tables, and at the core that is left to them.
        let options = Rebuild { pace: Pace::Beside, checkpoint: 500, ..Rebuild::default() };
        let rebuilding = views.rebuild_as(&[], options, silent());
        tokio::time::timeout(Duration::from_secs(60), rebuilding).await.expect("it ends").unwrap();
        writing.await.unwrap();
        caught_up(&views, site.store.head().await.unwrap()).await;
        for status in views.status().await.unwrap() {
            let verdict = views.verify(&status.name, silent()).await.unwrap();
            assert_eq!(verdict.differences, [], "{}", status.name);
        }
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_rebuild_whose_log_is_cut_or_ends_early_is_an_error_and_changes_nothing(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let head = fill(&site, 3_000).await;
        caught_up(&views, head).await;
        runner.stop().await;
        // Something that a rebuild would repair, to see that none took place.
        site.tamper("update counter set count = count + 1000000 where id = 'c001'").await;
        let tampered = counts(&site).await;
        for case in ["cut", "short"] {
            let mut fault = Fault::new(site.feed());
            fault.small_pages = Some(500);
            match case {
                "cut" => fault.cut_after = Some(1_500),
                _ => fault.end_after = Some(1_500),
            }
            let fault = Arc::new(fault);
            let cut = Views::open_with(&site.location, Arc::<Fault>::clone(&fault), counter()).await.unwrap();
            let error = cut.rebuild(&[], silent()).await.expect_err("a short rebuild is no success");
            println!("figure: {:?}: rebuild {case} after {} of {head} events: {error}", site.kind, fault.read.load(Ordering::Relaxed));
            match case {
                "cut" => assert!(matches!(error, Error::Feed(_))),
                _ => assert!(matches!(error, Error::Short { reached: 1_500, .. })),
            }
            assert_eq!(counts(&site).await, tampered);
            let verdict = cut.verify("counter", silent()).await;
            assert!(verdict.is_err(), "nor is a short verification");
            cut.close().await;
        }
        views.rebuild(&[], silent()).await.unwrap();
        assert_eq!(counts(&site).await, (3_000, 300, 3_000));
        views.close().await;
    }
}

/// The database ends every connection of the views while a rebuild is at work.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_whose_own_connection_is_cut_is_an_error_and_changes_nothing() {
    let site = Site::new(Kind::Postgres).await;
    let head = fill(&site, 3_000).await;
    let Location::Postgres { url, .. } = site.location.clone() else { unreachable!() };
    let (open, gate) = watch::channel(true);
    let mut fault = Fault::new(site.feed());
    fault.small_pages = Some(500);
    fault.open = gate;
    let views = Views::open_with(&site.location, Arc::new(fault), counter()).await.unwrap();
    views.rebuild(&[], silent()).await.unwrap();
    let live = counts(&site).await;
    // The gate holds the rebuild up after its tables are made; a lock then holds up its writing.
    open.send_replace(false);
    let rebuilding = {
        let views = views.clone();
        tokio::spawn(async move { views.rebuild(&[], silent()).await })
    };
    until_state(&views, "counter", State::Building).await;
    let mut locker = sqlx::PgConnection::connect(&url).await.unwrap();
    let lock = "begin; lock table views.counter__next in exclusive mode";
    sqlx::raw_sql(lock).execute(&mut locker).await.unwrap();
    open.send_replace(true);
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where application_name = 'proximity-views' and wait_event_type = 'Lock' \
                and datname = current_database()";
    let mut killed: i64 = 0;
    while killed == 0 {
        killed = sqlx::query_scalar(kill).fetch_one(&mut locker).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    locker.close().await.unwrap();
    let error = rebuilding.await.unwrap().expect_err("a cut rebuild is no success");
    println!("Postgres: rebuild whose connection was ended while it wrote {head} events: {error}");
    assert!(matches!(error, Error::Postgres(_)), "{error:?}");
    assert_eq!(status(&views, "counter").await.state, State::Running, "it is cleared away");
    assert_eq!(counts(&site).await, live);
    views.close().await;
    site.end().await;
}

on_both! {
    a_new_version_is_built_beside_the_live_one_and_switched_in_one_step(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let head = fill(&site, 1_000).await;
        caught_up(&views, head).await;
        // An earlier version had this table too.
        site.tamper("create table counted (id integer)").await;
        runner.stop().await;
        views.close().await;

        let (open, gate) = watch::channel(false);
        let mut fault = Fault::new(site.feed());
        fault.open = gate;
        let projections = vec![boxed::<Counter<2, false>>()];
        let views = Views::open_with(&site.location, Arc::new(fault), projections).await.unwrap();
        let runner = views.follow();
        let building = until_state(&views, "counter", State::Building).await;
        assert_eq!(building.version, 1, "the live rows are the old ones");
        let verified = views.verify("counter", silent()).await.unwrap_err();
        assert!(matches!(verified, Error::Outdated { .. }), "{verified}");
        assert_eq!(counts(&site).await, (1_000, 163, 1_000), "and can be read meanwhile");
        assert!(!views.wait_for(head + 1, Duration::from_secs(20)).await);
        open.send_replace(true);
        until("the switch", || async { status(&views, "counter").await.version == 2 }).await;
        until("this process sees it", || async { views.position() == head }).await;
        let position = site.append(vec![added("c001", 1)]).await;
        caught_up(&views, position).await;
        // It went where the old rows are, and its name is free.
        site.tamper("insert into counted__previous values (1)").await;
        site.tamper("create table counted (id integer)").await;
        // Version 2 counts twice as fast.
        assert_eq!(counts(&site).await, (2_002, 163, 1_001));
        assert_eq!(status(&views, "counter").await.state, State::Running);
        assert_eq!(views.verify("counter", silent()).await.unwrap().rows_different, 0);

        // The old program leaves the new rows alone.
        let old = site.views_of(counter()).await;
        let old_runner = old.follow();
        let position = site.append(vec![added("c001", 1)]).await;
        caught_up(&views, position).await;
        assert_eq!(status(&old, "counter").await.state, State::Superseded);
        assert!(matches!(old.rebuild(&[], silent()).await, Err(Error::Superseded { .. })));
        assert!(matches!(old.verify("counter", silent()).await, Err(Error::Superseded { .. })));
        old_runner.stop().await;
        old.close().await;
        assert_eq!(counts(&site).await, (2_004, 163, 1_002));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    two_replicas_that_start_a_new_version_build_it_once(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let head = fill(&site, 2_000).await;
        caught_up(&views, head).await;
        runner.stop().await;
        views.close().await;
        let new = || vec![boxed::<Counter<2, false>>()];
        let (one, two) = (site.views_of(new()).await, site.views_of(new()).await);
        let (first, second) = (one.follow(), two.follow());
        until("both see the new rows", || async {
            one.position() >= head && two.position() >= head
        })
        .await;
        let position = site.append(vec![added("c001", 1)]).await;
        caught_up(&one, position).await;
        caught_up(&two, position).await;
        assert_eq!(counts(&site).await, (4_002, 233, 2_001));
        first.stop().await;
        second.stop().await;
        one.close().await;
        two.close().await;
    }
}

on_both! {
    rows_of_another_life_of_the_log_are_built_anew(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let head = fill(&site, 1_000).await;
        caught_up(&views, head).await;
        runner.stop().await;
        views.close().await;
        // Another log, with fewer events than the rows remember.
        let other = Site::new(Kind::Sqlite).await;
        let position = other.append(vec![added("x", 5)]).await;
        let views = Views::open_with(&site.location, other.feed(), counter()).await.unwrap();
        let runner = views.follow();
        until("the switch", || async { views.position() == position }).await;
        assert_eq!(counts(&site).await, (5, 1, 1));
        assert_eq!(status(&views, "counter").await.lag, 0);
        runner.stop().await;
        views.close().await;
        other.end().await;
    }
}

on_both! {
    one_build_at_a_time_and_only_of_what_exists(site) {
        fill(&site, 1_000).await;
        let (open, gate) = watch::channel(false);
        let mut fault = Fault::new(site.feed());
        fault.open = gate;
        let views = Views::open_with(&site.location, Arc::new(fault), counter()).await.unwrap();
        let first = { let views = views.clone(); tokio::spawn(async move { views.rebuild(&["counter"], silent()).await }) };
        until_state(&views, "counter", State::Building).await;
        assert!(matches!(views.rebuild(&["counter"], silent()).await, Err(Error::Building { .. })));
        assert!(matches!(views.rebuild(&["nothing"], silent()).await, Err(Error::NoSuchProjection { .. })));
        open.send_replace(true);
        first.await.unwrap().unwrap();
        assert_eq!(counts(&site).await, (1_000, 163, 1_000));
        views.close().await;
    }
}
