//! How read models are said to stand when their rows are not what they should be.

use std::time::Duration;

use proximity_projections::{Error, State};

use crate::on_both;
use crate::samples::Sample;
use crate::support::{Site, caught_up, silent, status};

/// Some events, and rows that hold them all; nothing follows the log any more.
async fn filled(site: &Site) -> u64 {
    let views = site.views().await;
    let runner = views.follow();
    let position = site.append(Sample::new(1).deployment()).await;
    caught_up(&views, position).await;
    runner.stop().await;
    views.close().await;
    position
}

on_both! {
    rows_beyond_the_end_of_the_log_are_said_to_be_ahead_of_it(site) {
        let head = filled(&site).await;
        site.tamper("update checkpoints set position = position + 14").await;
        let views = site.views().await;
        let ahead = status(&views, "hosts").await;
        assert!(!ahead.is_whole, "{ahead:?}");
        assert_eq!(ahead.position, head + 14);
        let problem = ahead.problem.unwrap();
        assert!(problem.contains(&format!("go up to {}, the log to {head}", head + 14)), "{problem}");
        let error = views.verify("hosts", silent()).await.unwrap_err();
        assert!(matches!(error, Error::Ahead { .. }), "{error}");
        views.rebuild(&[], silent()).await.unwrap();
        let mended = status(&views, "hosts").await;
        assert_eq!((mended.is_whole, mended.position, mended.problem), (true, head, None));
        views.close().await;
    }
}

on_both! {
    rows_that_are_begun_anew_are_said_to_be_filled_until_they_are_whole(site) {
        let head = filled(&site).await;
        let views = site.views().await;
        let whole = status(&views, "hosts").await;
        assert_eq!((whole.is_whole, whole.problem), (true, None));
        let (incarnation, to) = (site.feed().incarnation(), head + 1);
        let sql = format!("delete from filling; insert into filling values ('{incarnation}', {to})");
        site.tamper(&sql).await;
        let filling = status(&views, "hosts").await;
        assert_eq!((filling.is_whole, filling.state), (false, State::Running));
        let problem = filling.problem.unwrap();
        assert!(problem.contains(&format!("being filled, {head} of {to} events")), "{problem}");
        views.close().await;
    }
}

on_both! {
    a_build_without_a_sign_of_life_is_said_to_be_silent(site) {
        filled(&site).await;
        let views = site.views().await;
        for (age, is_silent) in [(Duration::ZERO, false), (Duration::from_secs(60), true)] {
            let sql = format!(
                "delete from checkpoints where slot = 'next'; insert into checkpoints select name, 'next', version, 'x', incarnation, \
                 0, null, updated_at - {} from checkpoints where slot = 'live'",
                age.as_micros()
            );
            site.tamper(&sql).await;
            let building = status(&views, "hosts").await;
            assert_eq!((building.state, building.is_whole), (State::Building, true));
            let problem = building.problem.unwrap();
            let told = "`proximity projections rebuild hosts` does";
            assert_eq!(problem.ends_with(told), is_silent, "{problem}");
        }
        site.tamper("delete from checkpoints where slot = 'next'").await;
        views.close().await;
    }
}
