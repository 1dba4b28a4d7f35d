//! A search finds what a look at every event finds, in order and page by page.

use proximity_eventstore::{Recorded, Search, Store, sqlite_file};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::on_both_stores;
use crate::support::{Home, whole_log};

const EVENTS: u64 = 1_500;
const SEARCHES: usize = 300;

const TYPES: [&str; 6] = [
    "lease.acquired",
    "lease.released",
    "leaseholder.named",
    "application.requested",
    "application.lost",
    "user.registered",
];

/// Events of many kinds, written past the store, by a clock that is set back now and then.
async fn fill(home: &Home, random: &mut StdRng) {
    let mut rows = Vec::new();
    let mut at: i64 = 1_700_000_000_000_000;
    for position in 1..=EVENTS {
        at += random.random_range(0..2_000_000);
        if random.random_bool(0.01) {
            at -= random.random_range(0..100_000_000);
        }
        let name = TYPES.choose(random).unwrap();
        let kind = name.split('.').next().unwrap();
        let mut metadata = serde_json::json!({ "command": "x" });
        for (field, values) in [("actor", 4), ("owner", 5), ("request", 200), ("correlation", 40)] {
            if random.random_bool(0.9) {
                metadata[field] = format!("{field}/{}", random.random_range(0..values)).into();
            }
        }
        // One stream for each event keeps sequences simple; a few share one.
        let (kind, id, sequence) = match position {
            1..=5 => ("application", "shared".to_owned(), position),
            6..=20 => ("lease", "kept".to_owned(), position - 5),
            _ => (kind, position.to_string(), 1),
        };
        rows.push(format!(
            "({position}, '{kind}', '{id}', {sequence}, '{name}', '1', '{{}}', '{metadata}', {at})"
        ));
    }
    let sql = format!(
        "insert into events (position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, recorded_at) values {}",
        rows.join(", ")
    );
    if home.is_sqlite() {
        rusqlite::Connection::open(sqlite_file(home.dir())).unwrap().execute_batch(&sql).unwrap();
    } else {
        let pool = sqlx::PgPool::connect(&home.url()).await.unwrap();
        sqlx::raw_sql(&sql).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

fn said(event: &Recorded, field: &str) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_str(&event.metadata).unwrap();
    metadata[field].as_str().map(str::to_owned)
}

/// What should be found, by a look at each event.
fn by_hand(log: &[Recorded], search: &Search) -> Vec<u64> {
    let near: Option<Vec<String>> = search.around.as_ref().map(|(kind, id)| {
        let of = |kind: &str, id: &str| -> Vec<String> {
            let own = log.iter().filter(|e| e.aggregate_type == kind && e.aggregate_id == id);
            own.filter_map(|event| said(event, "correlation")).collect()
        };
        let mut near = of(kind, id);
        let is_near = |event: &&Recorded| {
            said(event, "correlation").is_some_and(|correlation| near.contains(&correlation))
        };
        let others = log.iter().filter(|event| {
            search.outliving.as_ref() == Some(&event.aggregate_type) && is_near(event)
        });
        let through: Vec<String> =
            others.flat_map(|event| of(&event.aggregate_type, &event.aggregate_id)).collect();
        near.extend(through);
        near
    });
    let same = |wanted: &Option<String>, event: &Recorded, field: &str| {
        wanted.is_none() || said(event, field) == *wanted
    };
    let fits =
        |event: &&Recorded| {
            let own = search.around.as_ref().is_some_and(|(kind, id)| {
                event.aggregate_type == *kind && event.aggregate_id == *id
            });
            let correlation = said(event, "correlation");
            event.position > search.after
                && search.until.is_none_or(|until| event.position <= until)
                && search.from.is_none_or(|from| event.recorded_at >= from)
                && search.to.is_none_or(|to| event.recorded_at < to)
                && same(&search.actor, event, "actor")
                && same(&search.request, event, "request")
                && same(&search.owner, event, "owner")
                && (own || same(&search.seen_by, event, "owner"))
                && search.event_type.as_ref().is_none_or(|name| event.event_type == *name)
                && search.type_prefix.as_ref().is_none_or(|name| event.event_type.starts_with(name))
                && search.stream.as_ref().is_none_or(|(kind, id)| {
                    event.aggregate_type == *kind && event.aggregate_id == *id
                })
                && search
                    .correlations
                    .as_ref()
                    .is_none_or(|some| correlation.as_ref().is_some_and(|one| some.contains(one)))
                && near.as_ref().is_none_or(|near| {
                    own || correlation.as_ref().is_some_and(|one| near.contains(one))
                })
        };
    log.iter().filter(fits).map(|event| event.position).collect()
}

fn any(random: &mut StdRng, log: &[Recorded]) -> Search {
    let mut search = Search::default();
    let maybe = |share: f64, random: &mut StdRng| random.random_bool(share);
    let time = |random: &mut StdRng| log.choose(random).unwrap().recorded_at;
    if maybe(0.3, random) {
        search.after = random.random_range(0..EVENTS);
    }
    if maybe(0.2, random) {
        search.until = Some(random.random_range(0..EVENTS + 100));
    }
    if maybe(0.4, random) {
        search.actor = Some(format!("actor/{}", random.random_range(0..5)));
    }
    if maybe(0.4, random) {
        search.owner = Some(format!("owner/{}", random.random_range(0..6)));
    }
    if maybe(0.2, random) {
        search.seen_by = Some(format!("owner/{}", random.random_range(0..6)));
    }
    if maybe(0.1, random) {
        search.request = Some(format!("request/{}", random.random_range(0..210)));
    }
    match random.random_range(0..4) {
        0 => search.of_type(TYPES.choose(random).unwrap()),
        1 => search.of_type(["lease", "application.", "user", "nothing"].choose(random).unwrap()),
        _ => {}
    }
    match random.random_range(0..8) {
        0 => {
            search.around = Some(("application".to_owned(), "shared".to_owned()));
            search.outliving = random.random_bool(0.5).then(|| "lease".to_owned());
        }
        1 => search.stream = Some(("application".to_owned(), "shared".to_owned())),
        2 => {
            let some = (0..random.random_range(0..3))
                .map(|_| format!("correlation/{}", random.random_range(0..40)));
            search.correlations = Some(some.collect());
        }
        _ => {}
    }
    if maybe(0.3, random) {
        search.from = Some(time(random));
    }
    if maybe(0.3, random) {
        search.to = Some(time(random));
    }
    search
}

async fn all(store: &Store, search: &Search, page: usize) -> Vec<u64> {
    let (mut search, mut positions) = (search.clone(), Vec::new());
    loop {
        let found = store.search(&search, page).await.unwrap();
        assert!(found.events.len() <= page);
        assert!(found.complete || found.events.len() == page, "a short page that is not the last");
        positions.extend(found.events.iter().map(|event| event.position));
        search.after = found.next;
        if found.complete {
            return positions;
        }
    }
}

/// All that is found up to the search's bounds, and where to go on.
async fn to_the_end(store: &Store, search: &Search, page: usize) -> (Vec<u64>, u64) {
    let (mut search, mut positions) = (search.clone(), Vec::new());
    loop {
        let found = store.search(&search, page).await.unwrap();
        positions.extend(found.events.iter().map(|event| event.position));
        search.after = found.next;
        if found.complete {
            return (positions, found.next);
        }
    }
}

on_both_stores! {
    async fn a_search_finds_what_a_look_at_every_event_finds(home: &Home) {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let store = home.open().await;
        fill(home, &mut random).await;
        let log = whole_log(&store, 500).await;
        assert_eq!(log.len() as u64, EVENTS);
        let mut found = 0;
        for number in 0..SEARCHES {
            let search = any(&mut random, &log);
            let wanted = by_hand(&log, &search);
            let page = *[1, 7, 100, 5_000].choose(&mut random).unwrap();
            let page = if wanted.len() > 100 { page.max(20) } else { page };
            let got = all(&store, &search, page).await;
            assert_eq!(got, wanted, "seed {seed}, search {number}: {search:?}");
            if let Some(pinned) = store.pinned(&search).await.unwrap() {
                assert_eq!(all(&store, &pinned, page).await, wanted, "pinned: {search:?}");
            } else {
                assert_eq!(wanted, Vec::<u64>::new());
            }
            found += wanted.len();
        }
        assert!(found > SEARCHES, "searches that find nothing show nothing");
        println!("figure: {SEARCHES} searches of {EVENTS} events found {found}, as a look at each event does");
        store.close().await;
    }

    async fn who_goes_on_with_later_bounds_misses_nothing(home: &Home) {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let store = home.open().await;
        fill(home, &mut random).await;
        let log = whole_log(&store, 500).await;
        for number in 0..SEARCHES {
            let mut search = any(&mut random, &log);
            (search.from, search.to) = (None, None);
            search.until = Some(random.random_range(0..EVENTS));
            let page = *[30, 100, 5_000].choose(&mut random).unwrap();
            let (mut found, next) = to_the_end(&store, &search, page).await;
            let (until, after) = (search.until.take().unwrap(), search.after);
            assert_eq!(next, until.max(after), "seed {seed}, search {number}");
            let wanted = by_hand(&log, &search);
            search.after = next;
            found.extend(to_the_end(&store, &search, page).await.0);
            assert_eq!(found, wanted, "seed {seed}, search {number}: {search:?}");
        }
        // By time: what the clock put behind an event of a later time comes once more, and nothing else.
        let mut again = 0;
        for number in 0..SEARCHES {
            let mut search = any(&mut random, &log);
            let mut times = [log.choose(&mut random).unwrap(), log.choose(&mut random).unwrap()];
            times.sort_by_key(|event| event.recorded_at);
            if search.from.is_some() {
                search.from = Some(times[0].recorded_at - random.random_range(0..200_000_000));
            }
            search.until = search.until.filter(|_| random.random_bool(0.5));
            search.to = Some(times[0].recorded_at);
            let within = by_hand(&log, &search);
            let page = *[1, 30, 5_000].choose(&mut random).unwrap();
            let page = if within.len() > 100 { page.max(20) } else { page };
            let (first, next) = to_the_end(&store, &search, page).await;
            assert_eq!(first, within, "seed {seed}, search {number}: {search:?}");
            let beyond = log.iter().find(|event| event.recorded_at >= times[0].recorded_at);
            let beyond = beyond.map_or(EVENTS + 1, |event| event.position);
            search.to = (number % 3 > 0).then_some(times[1].recorded_at + 1);
            search.until = search.until.map(|until| until + 500);
            let wanted = by_hand(&log, &search);
            let later = Search { after: next, ..search.clone() };
            let mut both = to_the_end(&store, &later, page.max(20)).await.0;
            let twice = both.iter().filter(|position| first.contains(position)).count();
            let behind = first.iter().filter(|position| **position > beyond).count();
            assert!(twice <= behind, "seed {seed}, search {number}: {twice} of {behind} again");
            both.extend(&first);
            both.sort_unstable();
            both.dedup();
            both.retain(|position| *position > search.after);
            assert_eq!(both, wanted, "seed {seed}, search {number}: {search:?}");
            again += twice;
        }
        assert!(again > 0, "seed {seed}: the clock was never set back where it matters");
        // In a time in which nothing was stored, nothing was looked through.
        let none = Search { to: Some(1), after: 7, ..Search::default() };
        assert_eq!(to_the_end(&store, &none, 100).await, (vec![], 7));
        store.close().await;
    }

    async fn a_moment_is_the_place_of_the_last_event_that_is_not_later(home: &Home) {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let store = home.open().await;
        assert_eq!(store.place(i64::MAX).await.unwrap(), 0);
        fill(home, &mut random).await;
        let log = whole_log(&store, 500).await;
        for moment in log.iter().flat_map(|event| [event.recorded_at - 1, event.recorded_at]) {
            let fits = |event: &&Recorded| event.recorded_at <= moment;
            let wanted = log.iter().rev().find(fits).map_or(0, |event| event.position);
            assert_eq!(store.place(moment).await.unwrap(), wanted, "seed {seed}: {moment}");
        }
        assert_eq!(store.place(0).await.unwrap(), 0);
        assert_eq!(store.place(i64::MAX).await.unwrap(), EVENTS);
        store.close().await;
    }
}
