//! Runners that follow the log: side by side, stopped, started again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proximity_eventstore::Error as StoreError;
use proximity_projections::{Error, Location, State, Views, boxed, discard_damaged};

use crate::on_both;
use crate::support::*;

on_both! {
    two_runners_beside_one_another_lose_nothing_and_count_nothing_twice(site) {
        let (one, two) = (site.views_of(counter()).await, site.views_of(counter()).await);
        let (first, second) = (one.follow(), two.follow());
        let started = Instant::now();
        let writers: Vec<_> = (0..20)
            .map(|writer| {
                let store = site.store.clone();
                tokio::spawn(async move {
                    for turn in 0..50 {
                        let id = format!("c{}", (writer + turn) % 10);
                        append(&store, vec![added(&id, 1)]).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let head = site.store.head().await.unwrap();
        assert_eq!(head, 1_000);
        caught_up(&one, head).await;
        caught_up(&two, head).await;
        let counted = counts(&site).await;
        println!(
            "figure: {:?}: 2 runners, 20 writers, 1,000 appends acknowledged: counted {} in {} rows from {} events, {:?}",
            site.kind, counted.0, counted.1, counted.2, started.elapsed()
        );
        assert_eq!(counted, (1_000, 10, 1_000));
        first.stop().await;
        second.stop().await;
        let verdict = one.verify("counter", silent()).await.unwrap();
        assert_eq!((verdict.rows_different, verdict.rows_compared), (0, 10));
        one.close().await;
        two.close().await;
    }
}

on_both! {
    a_runner_goes_on_where_the_last_one_ended(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        let position = site.append(vec![added("a", 1), added("b", 2)]).await;
        caught_up(&views, position).await;
        runner.stop().await;
        views.close().await;
        site.append(vec![added("a", 3)]).await;
        let position = site.append(vec![added("c", 5)]).await;
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        caught_up(&views, position).await;
        assert_eq!(counts(&site).await, (11, 3, 4));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_projection_that_meets_an_event_it_cannot_apply_stops_and_the_others_go_on(site) {
        let projections = vec![boxed::<Counter<1, false>>(), boxed::<proximity_projections::Leases>()];
        let views = site.views_of(projections).await;
        let runner = views.follow();
        let good = site.append(vec![added("a", 1)]).await;
        caught_up(&views, good).await;
        let bad = site.append(vec![reset("a")]).await;
        let after = site.append(vec![added("a", 1)]).await;
        let stopped = until_state(&views, "counter", State::Stopped).await;
        until("the leases go on", || async { status(&views, "leases").await.position == after }).await;
        assert_eq!(stopped.position, bad - 1, "it stays before the event");
        assert!(stopped.problem.unwrap().contains("nobody said what a reset is"));
        assert_eq!(counts(&site).await.0, 1, "what came before is kept, what came after is not");
        until("it is seen as lagging", || async { status(&views, "counter").await.lag == 2 }).await;
        let asked = Instant::now();
        assert!(!views.wait_for(after, Duration::from_secs(20)).await);
        assert!(asked.elapsed() < Duration::from_secs(5), "nobody waits for a stopped projection");
        assert!(views.wait_for(good, Duration::ZERO).await, "what it holds, it holds");
        let rebuilt = views.rebuild(&["counter"], silent()).await;
        assert!(matches!(rebuilt, Err(Error::Stopped { position, .. }) if position == bad));
        runner.stop().await;
        views.close().await;

        // A program that knows the event goes on from there.
        let views = site.views_of(vec![boxed::<Counter<1, true>>()]).await;
        let runner = views.follow();
        caught_up(&views, after).await;
        let healed = status(&views, "counter").await;
        assert_eq!((healed.state, healed.problem), (State::Running, None));
        assert_eq!(counts(&site).await, (1, 1, 1));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    an_event_of_an_unknown_version_or_shape_stops_a_projection_too(site) {
        let views = site.views().await;
        let runner = views.follow();
        let held = r#"{"acquired":{"holder":{"application":"nginx-0badcafe"}}}"#;
        site.append(vec![raw("lease", "port/public/8100", "lease.acquired", held)]).await;
        let unknown = raw("lease", "port/public/8101", "lease.pawned", r#"{"pawned":{}}"#);
        let position = site.append(vec![unknown]).await;
        let stopped = until_state(&views, "leases", State::Stopped).await;
        assert_eq!(stopped.position, position - 1);
        assert!(stopped.problem.unwrap().contains("lease.pawned"));
        let mut later = raw("host", "1", "host.removed", "\"removed\"");
        later.events[0].event_version = "2".to_owned();
        site.append(vec![later]).await;
        let stopped = until_state(&views, "hosts", State::Stopped).await;
        assert!(stopped.problem.unwrap().contains("version 2"));
        assert_eq!(views.leases_taken("port/public").await.unwrap(), ["8100"]);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    waiting_ends_with_the_time_or_when_nothing_follows(site) {
        let views = site.views_of(counter()).await;
        assert!(!views.wait_for(1, Duration::from_secs(20)).await, "nothing follows the log");
        let runner = views.follow();
        let position = site.append(vec![added("a", 1)]).await;
        caught_up(&views, position).await;
        let asked = Instant::now();
        assert!(!views.wait_for(position + 1, Duration::from_millis(50)).await);
        assert!(asked.elapsed() >= Duration::from_millis(50));
        assert_eq!(views.position(), position);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_log_that_cannot_be_read_is_shown_and_followed_again_when_it_can(site) {
        let mut fault = Fault::new(site.feed());
        fault.cut_after = Some(2);
        fault.small_pages = Some(2);
        let fault = Arc::new(fault);
        let views = Views::open_with(&site.location, fault, counter()).await.unwrap();
        for _ in 0..4 {
            site.append(vec![added("a", 1)]).await;
        }
        let runner = views.follow();
        until("the trouble is seen", || async {
            status(&views, "counter").await.problem.is_some_and(|p| p.contains("reset by peer"))
        })
        .await;
        assert_eq!(status(&views, "counter").await.position, 2);
        runner.stop().await;
        views.close().await;
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        caught_up(&views, 4).await;
        assert_eq!(counts(&site).await, (4, 1, 4));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    rows_that_were_begun_anew_are_a_part_until_they_are_whole_whoever_opens_them(site) {
        let position = site.append((0..40).map(|n| added(&format!("a{n}"), 1)).collect()).await;
        let mut fault = Fault::new(site.feed());
        fault.cut_after = Some(20);
        fault.small_pages = Some(10);
        let views = Views::open_with(&site.location, Arc::new(fault), counter()).await.unwrap();
        let runner = views.follow();
        until("a half is there", || async { status(&views, "counter").await.position == 20 }).await;
        assert!(views.is_filling());
        // Killed, started again, and another server beside it.
        runner.stop().await;
        views.close().await;
        for _ in 0..2 {
            let views = site.views_of(counter()).await;
            assert!(views.is_filling() && !views.serves(position, 100).await);
            views.close().await;
        }
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        caught_up(&views, position).await;
        assert!(!views.is_filling() && views.serves(position, 100).await);
        runner.stop().await;
        views.close().await;
        let views = site.views_of(counter()).await;
        assert!(!views.is_filling(), "once whole, always whole");
        views.close().await;
    }
}

on_both! {
    a_runner_that_breaks_off_begins_anew_and_one_that_was_stopped_serves_no_more(site) {
        let position = site.append(vec![added("a", 1)]).await;
        let mut fault = Fault::new(site.feed());
        fault.panics = 1.into();
        let fault = Arc::new(fault);
        let views = Views::open_with(&site.location, fault.clone(), counter()).await.unwrap();
        let runner = views.follow();
        let serves = || async { views.serves(position, 0).await };
        until("it broke off once and went on", serves).await;
        assert_eq!(fault.panics.load(Ordering::Relaxed), 0);
        runner.stop().await;
        assert!(!views.serves(position, 0).await, "nothing follows the log");
        views.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_db_may_be_deleted_or_damaged_while_nothing_runs() {
    let site = Site::new(Kind::Sqlite).await;
    let position = site.append(vec![added("a", 4)]).await;
    // Before anybody follows the log, there is nothing to read.
    let views = site.views_of(counter()).await;
    assert!(views.is_filling() && !views.serves(position, 10).await);
    views.close().await;
    for damage in ["deleted", "damaged"] {
        let file = site.dir().join("views.db");
        for end in ["", "-wal", "-shm"] {
            let path = site.dir().join(format!("views.db{end}"));
            if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
        if damage == "damaged" {
            std::fs::write(&file, vec![b'x'; 8_192]).unwrap();
        }
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        caught_up(&views, position).await;
        assert_eq!(counts(&site).await, (4, 1, 1), "{damage}");
        assert!(!views.is_filling() && views.serves(position, 10).await);
        runner.stop().await;
        views.close().await;
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_found_later_is_noted_and_mended_by_the_next_start() {
    let site = Site::new(Kind::Sqlite).await;
    let many = (0..4_000).map(|number| added(&format!("a{number}"), 1)).collect();
    let position = site.append(many).await;
    let views = site.views_of(counter()).await;
    let runner = views.follow();
    caught_up(&views, position).await;
    let whole = counts(&site).await;
    runner.stop().await;
    views.close().await;
    // Every page but the first few, which hold what is read at the start.
    let file = site.dir().join("views.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let damaged = bytes.len() / 2;
    assert!(damaged > 6 * 16_384, "the rows take many pages");
    bytes[damaged..].fill(b'x');
    std::fs::write(&file, bytes).unwrap();

    let views = site.views_of(counter()).await;
    let runner = views.follow();
    let found = views.verify("counter", silent()).await;
    assert!(found.is_err(), "{found:?}");
    assert!(!views.serves(position, 10).await);
    runner.stop().await;
    views.close().await;
    // Others may have the file open: only a server that has the log to itself throws it away.
    let views = site.views_of(counter()).await;
    assert!(!views.serves(position, 10).await);
    views.close().await;

    discard_damaged(&site.location).unwrap();
    let views = site.views_of(counter()).await;
    let runner = views.follow();
    caught_up(&views, position).await;
    assert_eq!(counts(&site).await, whole);
    assert!(views.serves(position, 10).await);
    runner.stop().await;
    views.close().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_views_that_a_server_began_to_write_while_they_were_read() {
    let site = Site::new(Kind::Sqlite).await;
    let position = site.append(vec![added("a", 4)]).await;
    let views = site.views().await;
    let runner = views.follow();
    caught_up(&views, position).await;
    runner.stop().await;
    views.close().await;
    // What a server writes stays beside the file at first, and is in it once the server has stopped.
    for what in ["runs", "stopped"] {
        let copy = tempfile::tempdir().unwrap();
        let file = copy.path().join("views.db");
        std::fs::copy(site.dir().join("views.db"), &file).unwrap();
        // Where no index of the write-ahead log can be made, the file alone is read.
        let index = copy.path().join("views.db-shm");
        std::os::unix::fs::symlink("/nowhere/at/all", &index).unwrap();
        let location = Location::Sqlite { dir: copy.path().to_owned() };
        let views = Views::open_read_only(&location, site.feed()).await.unwrap().unwrap();
        assert!(!views.status().await.unwrap().is_empty());
        std::fs::remove_file(&index).unwrap();
        let server = rusqlite::Connection::open(&file).unwrap();
        server.execute_batch("create table written_meanwhile (n)").unwrap();
        let server = (what == "runs").then_some(server);
        let read = views.status().await.map(drop);
        let verified = views.verify("applications", silent()).await.map(drop);
        for refused in [read, verified] {
            let Err(Error::File(changed)) = refused else { panic!("{what}: {refused:?}") };
            assert!(matches!(changed, StoreError::ChangedMeanwhile { .. }), "{what}: {changed}");
        }
        assert!(!views.is_damaged(), "a page that was changed is not a damaged one");
        views.close().await;
        drop(server);
    }
    site.end().await;
}
