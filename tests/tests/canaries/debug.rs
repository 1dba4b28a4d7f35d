//! What `{:?}` shows of the types that hold secrets.

use std::fmt::Debug;

use proximity_commands::Secret;
use proximity_commands::accounts::{Credentials, NewUser};
use proximity_commands::hosts::{HostChange, HostInput};
use proximity_server::config::Config;
use proximity_server::stores;
use proximity_tests::canary::{Search, Searched, canary};
use proximity_tests::figure;

pub fn no_type_shows_a_secret() {
    let secret = canary();
    let hidden = || Some(Secret::new(secret.clone()));
    let url = format!("postgres://proximity:{secret}@127.0.0.1/proximity");
    let mut config = Config { database_url: Some(Secret::new(url)), ..Config::default() };
    config.server.metrics_token = hidden();
    let host = HostInput {
        name: "lab".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 8006,
        user: "root@pam".to_owned(),
        password: hidden(),
        token_id: None,
        token_secret: hidden(),
        verify_ssl: true,
        fingerprint: None,
        ssh_port: 22,
        is_default: false,
    };
    let change = HostChange { password: hidden(), token_secret: hidden(), ..HostChange::default() };
    let credentials = Credentials {
        username: Some("ann".to_owned()),
        email: None,
        password: Secret::new(secret.clone()),
        user_agent: None,
    };
    let user = NewUser {
        password: hidden(),
        password1: hidden(),
        password2: hidden(),
        setup_token: hidden(),
        ..NewUser::default()
    };
    let shown: Vec<(&str, String)> = vec![
        ("Secret", printed(&Secret::new(secret.clone()))),
        ("Config", printed(&config)),
        ("the log's options", printed(&stores::options(&config))),
        ("the read models' location", printed(&stores::location(&config))),
        ("HostInput", printed(&host)),
        ("HostChange", printed(&change)),
        ("Credentials", printed(&credentials)),
        ("NewUser", printed(&user)),
    ];
    let search = Search::new(&[("a secret".to_owned(), secret.clone().into_bytes())]);
    let mut searched = Searched::default();
    for (name, text) in &shown {
        search.bytes(name, text.as_bytes(), &mut searched);
    }
    figure!("secrets in what {} types print of themselves: {}", shown.len(), searched.hits.len());
    assert!(searched.hits.is_empty(), "{:#?}", searched.hits);
    search.bytes("control", printed(&secret).as_bytes(), &mut searched);
    assert_eq!(searched.hits.len(), 1, "the search finds nothing");
}

fn printed(value: &impl Debug) -> String {
    format!("{value:?}{value:#?}")
}
