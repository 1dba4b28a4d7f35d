//! What one append, one reader and one claim may expect.

use std::time::Duration;

use proximity_eventstore::{
    Append, AppendError, Appended, Assertion, Error, Expected, Fence, Guard, Idempotency, Outcome,
    Row, SideWrite, Store, Value, tables,
};
use uuid::Uuid;

use crate::on_both_stores;
use crate::support::{append, assert_whole, event, one, to_stream, whole_log};

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn user(id: &str, name: &str) -> Row {
    vec![
        ("id", text(id)),
        ("username", text(name)),
        ("username_shown", text(name)),
        ("email", Value::Null),
        ("email_shown", Value::Null),
        ("password_hash", text("h")),
        ("role", text("user")),
        ("disabled", Value::Boolean(false)),
        ("first_name", text("")),
        ("last_name", text("")),
        ("created_at", Value::Integer(1)),
        ("updated_at", Value::Integer(1)),
    ]
}

fn insert_user(id: &str, name: &str) -> Append {
    Append {
        side: vec![SideWrite::Insert { table: &tables::USERS, row: user(id, name) }],
        ..one(id, Expected::At(0))
    }
}

on_both_stores! {
    async fn an_append_to_many_streams_is_all_or_nothing(home: &Home) {
        let store = home.open().await;
        let first = Append {
            streams: vec![to_stream("a", Expected::At(0), 2), to_stream("b", Expected::At(0), 3)],
            ..append()
        };
        assert_eq!(
            store.append(first).await.unwrap(),
            Outcome::Stored(Appended { first: 1, last: 5 })
        );
        let stale = Append {
            streams: vec![to_stream("c", Expected::At(0), 1), to_stream("b", Expected::At(2), 1)],
            ..append()
        };
        let refused = store.append(stale).await.unwrap_err();
        assert!(
            matches!(&refused, AppendError::Conflict { aggregate_id, expected: 2, actual: 3, .. } if aggregate_id == "b"),
            "{refused}"
        );
        assert_eq!(store.load_stream("thing", "c").await.unwrap(), []);
        assert_eq!(store.head().await.unwrap(), 5);
        assert_eq!(store.load_stream("thing", "b").await.unwrap().len(), 3);
        assert_whole(&whole_log(&store, 2).await);
        store.close().await;
    }

    async fn a_stream_named_twice_in_one_append_is_extended_twice(home: &Home) {
        let store = home.open().await;
        let twice = Append {
            streams: vec![to_stream("a", Expected::At(0), 2), to_stream("a", Expected::At(2), 1), to_stream("a", Expected::Any, 1)],
            ..append()
        };
        store.append(twice).await.unwrap();
        assert_whole(&whole_log(&store, 10).await);
        assert_eq!(store.head().await.unwrap(), 4);
    }

    async fn an_assertion_that_no_longer_holds_refuses_the_append(home: &Home) {
        let store = home.open().await;
        store.append(one("host", Expected::At(0))).await.unwrap();
        let on_host = |sequence| Append {
            assertions: vec![Assertion {
                aggregate_type: "thing".to_owned(),
                aggregate_id: "host".to_owned(),
                sequence,
            }],
            ..one(&Uuid::new_v4().to_string(), Expected::At(0))
        };
        store.append(on_host(1)).await.unwrap();
        store.append(one("host", Expected::At(1))).await.unwrap();
        let refused = store.append(on_host(1)).await.unwrap_err();
        assert!(
            matches!(refused, AppendError::AssertionFailed { expected: 1, actual: 2, .. }),
            "{refused}"
        );
        assert_eq!(store.head().await.unwrap(), 3);
    }

    async fn the_same_append_twice_is_stored_once(home: &Home) {
        let store = home.open().await;
        let append = Append { streams: vec![to_stream("a", Expected::Any, 2)], ..append() };
        let first = store.append(append.clone()).await.unwrap();
        store.append(one("b", Expected::At(0))).await.unwrap();
        assert_eq!(store.append(append).await.unwrap(), first);
        assert_eq!(store.head().await.unwrap(), 3);
    }

    async fn an_idempotency_key_answers_again_and_refuses_another_request(home: &Home) {
        let store = home.open().await;
        let keyed = |fingerprint: &str| Append {
            idempotency: Some(Idempotency {
                actor: "u1".to_owned(),
                key: "POST /apps k1".to_owned(),
                fingerprint: fingerprint.to_owned(),
                answer: Some("{\"id\":1}".to_owned()),
            }),
            ..one(&Uuid::new_v4().to_string(), Expected::At(0))
        };
        store.append(keyed("f1")).await.unwrap();
        assert_eq!(
            store.append(keyed("f1")).await.unwrap(),
            Outcome::Replayed { position: 1, answer: Some("{\"id\":1}".to_owned()) }
        );
        assert!(matches!(store.append(keyed("f2")).await.unwrap_err(), AppendError::KeyReused));
        assert_eq!(store.head().await.unwrap(), 1);
        let kept = store.idempotent("u1", "POST /apps k1").await.unwrap().unwrap();
        assert_eq!((kept.position, kept.fingerprint.as_str()), (1, "f1"));
        assert_eq!(store.idempotent("u2", "POST /apps k1").await.unwrap(), None);
    }

    async fn a_violated_unique_constraint_is_named_alike_and_stores_nothing(home: &Home) {
        let store = home.open().await;
        store.append(insert_user("u1", "ada")).await.unwrap();
        let refused = store.append(insert_user("u2", "ada")).await.unwrap_err();
        assert!(
            matches!(&refused, AppendError::SideConflict { constraint } if constraint == "users_username_key"),
            "{refused}"
        );
        let mut same_id = insert_user("u1", "grace");
        same_id.streams.clear();
        let refused = store.append(same_id).await.unwrap_err();
        assert!(
            matches!(&refused, AppendError::SideConflict { constraint } if constraint == "users_pkey"),
            "{refused}"
        );
        assert_eq!(store.head().await.unwrap(), 1);
        assert_eq!(store.rows(&tables::USERS, vec![], 10).await.unwrap(), [user("u1", "ada")]);
    }

    async fn side_rows_are_inserted_changed_guarded_and_deleted_with_their_append(home: &Home) {
        let store = home.open().await;
        store.append(insert_user("u1", "ada")).await.unwrap();
        let side = |write| Append { side: vec![write], ..append() };
        let update = |from: bool, to: bool| SideWrite::Update {
            table: &tables::USERS,
            set: vec![("disabled", Value::Boolean(to)), ("email", text("a@b"))],
            filter: vec![("id", text("u1")), ("disabled", Value::Boolean(from)), ("email_shown", Value::Null)],
            guard: Guard::Rows(1),
        };
        store.append(side(update(false, true))).await.unwrap();
        let refused = store.append(side(update(false, true))).await.unwrap_err();
        assert!(matches!(refused, AppendError::SideStale { table: "users" }), "{refused}");
        let row = &store.rows(&tables::USERS, vec![("email", text("a@b"))], 10).await.unwrap()[0];
        assert_eq!(row[7], ("disabled", Value::Boolean(true)));

        let secret = |ciphertext: &[u8]| SideWrite::Upsert {
            table: &tables::KEY_SENTINEL,
            row: vec![
                ("id", text("s")),
                ("key_id", text("k")),
                ("ciphertext", Value::Bytes(ciphertext.to_owned())),
            ],
        };
        store.append(side(secret(b"one\0"))).await.unwrap();
        store.append(side(secret(b"two\xff"))).await.unwrap();
        let rows = store.rows(&tables::KEY_SENTINEL, vec![], 10).await.unwrap();
        assert_eq!(rows[0][2], ("ciphertext", Value::Bytes(b"two\xff".to_vec())));

        let delete = SideWrite::Delete {
            table: &tables::USERS,
            filter: vec![("id", text("u1"))],
            guard: Guard::Rows(1),
        };
        store.append(side(delete.clone())).await.unwrap();
        assert!(matches!(store.append(side(delete)).await, Err(AppendError::SideStale { .. })));
        assert_eq!(store.rows(&tables::USERS, vec![], 10).await.unwrap(), Vec::<Row>::new());
    }

    async fn an_undeclared_column_is_refused(home: &Home) {
        let store = home.open().await;
        let append = Append {
            side: vec![SideWrite::Insert {
                table: &tables::INSTALLATION,
                row: vec![("key", text("k")), ("valeu", text("v"))],
            }],
            ..append()
        };
        assert!(matches!(store.append(append).await, Err(AppendError::Invalid { .. })));
    }

    async fn a_stale_claim_fences_its_holder_off(home: &Home) {
        let store = home.open().await;
        let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
        let long = Duration::from_secs(60);
        let first = store.claim("op", a, long).await.unwrap().unwrap();
        assert_eq!(first.epoch, 1);
        assert_eq!(store.claim("op", b, long).await.unwrap(), None);
        let fenced = |epoch| Append {
            fence: Some(Fence { claim: "op".to_owned(), epoch }),
            ..one("op", Expected::Any)
        };
        store.append(fenced(first.epoch)).await.unwrap();
        assert!(store.renew("op", a, first.epoch, Duration::ZERO).await.unwrap());
        let second = store.claim("op", b, long).await.unwrap().unwrap();
        assert_eq!(second.epoch, 2);
        let refused = store.append(fenced(first.epoch)).await.unwrap_err();
        assert!(matches!(&refused, AppendError::Fenced { claim } if claim == "op"), "{refused}");
        assert!(!store.renew("op", a, first.epoch, long).await.unwrap());
        assert!(!store.release("op", a, first.epoch).await.unwrap());
        assert!(store.release("op", b, second.epoch).await.unwrap());
        let third = store.claim("op", a, long).await.unwrap().unwrap();
        assert_eq!(third.epoch, 3, "a released epoch is never used again");
        assert_eq!(store.claim("op", a, long).await.unwrap().unwrap().epoch, 4);
        assert!(matches!(
            store.append(Append { fence: Some(Fence { claim: "none".to_owned(), epoch: 1 }), ..append() }).await,
            Err(AppendError::Fenced { .. })
        ));
    }

    async fn failed_logins_are_counted_and_pruned(home: &Home) {
        let store = home.open().await;
        for expected in 1..=3 {
            assert_eq!(store.count_login_failure("ada", "10.0.0.1", 100).await.unwrap(), expected);
        }
        store.count_login_failure("bob", "10.0.0.1", 200).await.unwrap();
        assert_eq!(store.login_failures_of_account("ada", 100).await.unwrap(), 3);
        assert_eq!(store.login_failures_of_source("10.0.0.1", 100).await.unwrap(), 4);
        assert_eq!(store.login_failures_of_source("10.0.0.1", 101).await.unwrap(), 1);
        assert_eq!(store.prune(&tables::LOGIN_ATTEMPTS, "window_start", 200).await.unwrap(), 1);
        assert_eq!(store.login_failures_of_source("10.0.0.1", 0).await.unwrap(), 1);
    }

    async fn the_head_is_watched_and_the_database_is_writable(home: &Home) {
        let store = home.open().await;
        store.ping_writable().await.unwrap();
        let mut head = store.watch_head();
        assert_eq!(*head.borrow_and_update(), 0);
        store.append(one("a", Expected::At(0))).await.unwrap();
        assert_eq!(*head.wait_for(|position| *position >= 1).await.unwrap(), 1);
        let incarnation = store.incarnation();
        store.close().await;
        let store = home.open().await;
        assert_eq!(store.incarnation(), incarnation);
        assert_eq!(*store.watch_head().borrow(), 1);
    }

    async fn a_closed_store_has_stored_what_was_waiting_and_refuses_more(home: &Home) {
        let store = home.open().await;
        let waiting: Vec<_> = (0..100)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.append(one(&n.to_string(), Expected::At(0))).await })
            })
            .collect();
        tokio::task::yield_now().await;
        store.clone().close().await;
        let mut stored = 0;
        for append in waiting {
            match append.await.unwrap() {
                Ok(_) => stored += 1,
                Err(AppendError::Closed) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(store.append(append()).await, Err(AppendError::Closed)));
        assert_eq!(store.head().await.unwrap(), stored);
    }

    async fn a_reader_beside_a_running_server_sees_its_events_and_writes_none(home: &Home) {
        let store = home.open().await;
        let reader = Store::open_read_only(home.options()).await.unwrap();
        store.append(one("a", Expected::At(0))).await.unwrap();
        assert_eq!(reader.feed(0, 10).await.unwrap()[0].payload, event(0).payload);
        assert!(matches!(
            reader.append(one("a", Expected::At(1))).await,
            Err(AppendError::Closed)
        ));
        assert!(matches!(reader.ping_writable().await, Err(Error::ReadOnly)));
        let mut head = reader.watch_head();
        head.wait_for(|position| *position >= 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_server_is_kept_out_of_a_data_directory() {
    let home = crate::support::Home::sqlite();
    let store = home.open().await;
    assert!(matches!(Store::open(home.options()).await, Err(Error::Locked { .. })));
    assert!(matches!(Store::migrate(home.options()).await, Err(Error::Locked { .. })));
    store.close().await;
    home.open().await;
}

#[tokio::test]
async fn a_log_is_readable_while_no_server_runs() {
    let home = crate::support::Home::sqlite();
    let store = home.open().await;
    store.append(one("a", Expected::At(0))).await.unwrap();
    store.close().await;
    let reader = Store::open_read_only(home.options()).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), 1);
}
