//! A checker that cannot fail proves nothing: verification finds what was planted.

use crate::on_both;
use crate::support::*;

on_both! {
    a_verification_finds_every_row_that_was_tampered_with(site) {
        let views = site.views_of(counter()).await;
        let runner = views.follow();
        for n in 0..50 {
            site.append(vec![added(&format!("c{n:02}"), n)]).await;
        }
        let head = site.store.head().await.unwrap();
        caught_up(&views, head).await;
        let clean = views.verify("counter", silent()).await.unwrap();
        assert_eq!((clean.position, clean.rows_compared, clean.rows_different), (head, 50, 0));
        for (plant, key) in [
            ("update counter set count = count + 1 where id = 'c07'", "c07"),
            ("update counter set body = '{\"count\":9}' where id = 'c08'", "c08"),
            ("delete from counter where id = 'c09'", "c09"),
            ("update counter set events = null where id = 'c10'", "c10"),
            ("insert into counter (id, count, body) values ('ghost', 1, '{}')", "ghost"),
        ] {
            site.tamper(plant).await;
            let verdict = views.verify("counter", silent()).await.unwrap();
            let found = verdict.differences.iter().find(|d| d.table == "counter" && d.key == key);
            assert!(found.is_some(), "{plant}: {:?}", verdict.differences);
        }
        let verdict = views.verify("counter", silent()).await.unwrap();
        println!("figure: {:?}: planted 5 differences, found {}", site.kind, verdict.rows_different);
        assert_eq!(verdict.rows_different, 5);
        views.rebuild(&["counter"], silent()).await.unwrap();
        assert_eq!(views.verify("counter", silent()).await.unwrap().rows_different, 0);
        runner.stop().await;
        views.close().await;
    }
}
