//! What a catalog file may say, what a person may ask of it, and what follows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use proximity_catalog::{Catalog, CatalogApp, Choice, Install, Library, Origin, Request, parse};
use proximity_domain::plan::{Probe, Source};
use proximity_domain::{
    ApplicationId, Cores, EnvValue, Gibibytes, Mebibytes, Port, Resources, SecretId,
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

fn defaults() -> Resources {
    Resources {
        cores: Cores::try_from(2).unwrap(),
        memory: Mebibytes::try_from(2048).unwrap(),
        disk: Gibibytes::try_from(20).unwrap(),
        swap: Mebibytes::try_from(512).unwrap(),
    }
}

/// Different bytes at each call, so that two generated secrets differ.
fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 1_u8;
    move |bytes| {
        for byte in bytes {
            *byte = next;
            next = next.wrapping_mul(5).wrapping_add(13);
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The old product's required fields, with these set on top.
fn file(more: Value) -> String {
    let mut app = object(json!({
        "id": "ghost", "name": "Ghost", "version": "5", "description": "A blog", "category": "CMS",
        "min_memory": 512, "min_cpu": 1, "docker_compose": {"services": {}}
    }));
    app.extend(object(more));
    Value::Object(app).to_string()
}

fn app(more: Value) -> CatalogApp {
    parse(&file(more)).unwrap()
}

fn with_params(params: Value) -> CatalogApp {
    app(json!({"install": {"kind": "oci", "image": "docker.io/library/ghost:5"}, "params": params}))
}

/// Name to (is a secret, text).
type Shown = BTreeMap<String, (bool, String)>;
/// Pointers and codes.
type Wrong = Vec<(String, &'static str)>;

fn resolve(app: &CatalogApp, config: Value, environment: Value) -> Result<Shown, Wrong> {
    let (config, environment) = (object(config), object(environment));
    let request = Request { config: &config, environment: &environment, defaults: defaults() };
    app.resolve(request, &mut counting())
        .map(|deployment| {
            let shown = |choice| match choice {
                Choice::Plain(text) => (false, text),
                Choice::Secret(text) => (true, text.expose_secret().to_owned()),
            };
            deployment.values.environment.into_iter().map(|(k, v)| (k, shown(v))).collect()
        })
        .map_err(|wrong| wrong.into_iter().map(|e| (e.pointer, e.code)).collect())
}

#[test]
fn every_embedded_file_loads_and_there_are_enough_of_each_kind() {
    let catalog = Catalog::load(&Origin::Embedded).unwrap();
    assert_eq!(catalog.broken(), []);
    let count = |wanted: fn(&Install) -> bool| {
        catalog.all().iter().filter(|app| wanted(&app.install)).count()
    };
    let oci = count(|install| matches!(install, Install::Oci { .. }));
    let template = count(|i| matches!(i, Install::Template { setup, .. } if setup.is_empty()));
    println!("catalog: {} applications, {oci} oci, {template} template", catalog.all().len());
    assert!(catalog.all().len() >= 12 && oci >= 6 && template >= 3);
}

#[test]
fn every_embedded_application_that_can_be_deployed_resolves_without_any_wish() {
    let nothing = Map::new();
    for app in Catalog::load(&Origin::Embedded).unwrap().all() {
        let request = Request { config: &nothing, environment: &nothing, defaults: defaults() };
        match app.resolve(request, &mut counting()) {
            Ok(deployment) => {
                ApplicationId::new(&app.id, 7).unwrap();
                // The simulator listens on these ports without root rights.
                let ports = deployment.endpoint.iter().map(|endpoint| endpoint.port.get());
                assert!(ports.clone().all(|port| port >= 1024), "{}: {ports:?}", app.id);
                assert!(deployment.resources.memory >= app.min_memory);
            }
            Err(wrong) => {
                assert!(matches!(app.install, Install::Compose {}), "{}: {wrong:?}", app.id);
                assert_eq!(wrong[0].code, "catalog.install_unsupported");
            }
        }
    }
}

#[test]
fn no_embedded_file_holds_a_constant_secret() {
    for app in Catalog::load(&Origin::Embedded).unwrap().all() {
        for name in app.environment.keys() {
            let name = name.to_uppercase();
            let secret = ["PASSWORD", "SECRET", "TOKEN", "KEY"].iter().any(|s| name.ends_with(s));
            assert!(!secret, "{}: {name}", app.id);
        }
    }
}

#[test]
fn the_old_products_schema_is_accepted_as_it_is() {
    let old = r#"{"id": "changedetection.io", "name": "Change Detection", "version": "latest",
      "description": "Watches pages", "icon": "https://example.org/i.svg", "category": "Monitoring",
      "docker_compose": {"version": "3.8", "services": {"web": {"image": "x:1", "ports": ["5000:5000"]}}},
      "ports": [5000], "volumes": ["data", {"name": "cache"}],
      "environment": {"database__connection__password": "changeme", "discovery.type": "single"},
      "min_memory": 0, "min_cpu": 1, "tags": ["web"], "author": "someone", "website": "https://example.org",
      "unknown_field_of_old": true}"#;
    let app = parse(old).unwrap();
    assert_eq!(app.install, Install::Compose {});
    assert_eq!(app.published().unwrap().port.get(), 5000);
    assert!(ApplicationId::new(&app.id, 1).is_ok());
    let minimal = parse(&file(json!({"icon": null, "author": null}))).unwrap();
    assert_eq!(minimal.ports, []);
}

#[test]
fn what_is_wrong_with_a_file_is_named_by_its_field() {
    let oci = json!({"kind": "oci", "image": "docker.io/library/ghost:5"});
    let cases = [
        ("name", json!({"name": " "})),
        ("id", json!({"id": "Ghost"})),
        ("id", json!({"id": ".."})),
        ("id", json!({"id": "search"})),
        ("description", json!({"description": ""})),
        ("min_memory", json!({"min_memory": "512"})),
        ("min_memory", json!({"min_memory": -1})),
        ("min_cpu", json!({"min_cpu": 0})),
        ("ports[1]", json!({"ports": [80, 0]})),
        ("ports[0]", json!({"ports": [65536]})),
        ("environment.A", json!({"environment": {"A": 1}})),
        ("environment.A=B", json!({"environment": {"A=B": "x"}})),
        ("default_credentials", json!({"default_credentials": {"user": "a"}})),
        ("install", json!({"docker_compose": null})),
        ("docker_compose", json!({"docker_compose": null, "install": {"kind": "compose"}})),
        ("install.kind", json!({"install": {"kind": "snap"}})),
        ("install.image", json!({"install": {"kind": "oci", "image": "nginx"}})),
        ("install.image", json!({"install": {"kind": "oci", "image": "docker.io/library/nginx"}})),
        ("install.image", json!({"install": {"kind": "oci", "image": "docker.io/Nginx:1"}})),
        ("install.os", json!({"install": {"kind": "template", "os": "", "version": "1"}})),
        ("features", json!({"features": "nesting"})),
        ("params[0].name", json!({"params": [{"name": "", "label": "L", "type": "text"}]})),
        ("params[0].type", json!({"params": [{"name": "A", "label": "L", "type": "date"}]})),
        (
            "params[0].pattern",
            json!({"params": [{"name": "A", "label": "L", "type": "text", "pattern": "("}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "number", "default": "x"}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "boolean", "default": 1}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "secret", "default": "constant"}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "text", "default": {"generate": 24}}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "secret", "default": {"generate": 4}}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "select", "options": ["x"], "default": "y"}]}),
        ),
        (
            "params[0].default",
            json!({"params": [{"name": "A", "label": "L", "type": "text", "pattern": "[a-z]+", "default": "A1"}]}),
        ),
        ("params[0].options", json!({"params": [{"name": "A", "label": "L", "type": "select"}]})),
        (
            "params[1].name",
            json!({"params": [{"name": "A", "label": "L", "type": "text"}, {"name": "A", "label": "L", "type": "text"}]}),
        ),
        (
            "endpoints[0].port",
            json!({"endpoints": [{"name": "web", "port": 70000, "protocol": "http"}]}),
        ),
        (
            "endpoints[0].protocol",
            json!({"endpoints": [{"name": "web", "port": 70, "protocol": "ftp"}]}),
        ),
        (
            "endpoints[0].path",
            json!({"endpoints": [{"name": "web", "port": 70, "protocol": "http", "path": "x"}]}),
        ),
        ("health", json!({"health": {"within_s": 5}})),
        ("health.within_s", json!({"health": {"tcp": {"port": 80}, "within_s": 0}})),
        ("health.http.path", json!({"health": {"http": {"port": 80, "path": "x"}}})),
        ("health.http.expect", json!({"health": {"http": {"port": 80, "expect": 42}}})),
        ("resources.disk_gb", json!({"resources": {"disk_gb": 0}})),
        ("data[0]", json!({"data": ["relative"]})),
    ];
    for (field, change) in &cases {
        let wrong = parse(&file(change.clone())).expect_err(&format!("{change}"));
        assert_eq!(&wrong.field, field, "{change}: {wrong}");
        assert!(!wrong.reason.is_empty());
    }
    for field in ["id", "name", "version", "description", "category", "min_memory", "min_cpu"] {
        let mut whole = object(serde_json::from_str(&file(json!({"install": oci}))).unwrap());
        whole.remove(field);
        assert_eq!(parse(&Value::Object(whole).to_string()).unwrap_err().field, field);
    }
    assert_eq!(parse("{").unwrap_err().field, "(file)");
    assert_eq!(parse("[]").unwrap_err().field, "(file)");
    println!("catalog: {} kinds of broken files refused by field", cases.len() + 9);
}

#[test]
fn a_reload_reports_broken_files_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("one.json", &file(json!({"id": "one", "name": "beta"})));
    write("index.json", "{}");
    write("notes.txt", "no application");
    let library = Library::open(Origin::Directory(dir.path().to_owned())).unwrap();
    assert_eq!(library.current().all().len(), 1);

    write("two.json", &file(json!({"id": "two", "name": "Alpha"})));
    write("twin.json", &file(json!({"id": "two"})));
    write("bad.json", &file(json!({"ports": [0]})));
    std::fs::write(dir.path().join("bytes.json"), [0xff, 0xfe]).unwrap();
    let fresh = library.reload().unwrap();
    let names: Vec<_> = fresh.all().iter().map(|app| app.name.as_str()).collect();
    let mut broken: Vec<_> =
        fresh.broken().iter().map(|b| (b.file.as_str(), b.field.as_str())).collect();
    broken.sort_unstable();
    assert_eq!(broken, [("bad.json", "ports[0]"), ("bytes.json", "(file)"), ("two.json", "id")]);
    // `twin.json` comes first by name, so `two.json` is the one that is left out.
    assert_eq!(names, ["beta", "Ghost"]);

    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(library.reload().is_err());
    assert_eq!(library.current().all().len(), 2, "the old catalog stays");
}

#[test]
fn queries_do_not_mind_case() {
    let catalog = Catalog::load(&Origin::Embedded).unwrap();
    let names: Vec<_> = catalog.all().iter().map(|app| app.name.to_lowercase()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let ids = |apps: Vec<std::sync::Arc<CatalogApp>>| {
        apps.iter().map(|app| app.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(catalog.in_category("mONITORING")), ["grafana", "uptime-kuma"]);
    assert_eq!(ids(catalog.in_category("nothing")), Vec::<String>::new());
    assert_eq!(ids(catalog.search("GRAF")), ["grafana"], "by name");
    assert_eq!(ids(catalog.search("ENVELOPES")), ["actual"], "by description");
    assert_eq!(ids(catalog.search("status PAGE")), ["uptime-kuma"], "by tag");
    assert_eq!(catalog.search("").len(), catalog.all().len());
    let stats = catalog.stats();
    assert_eq!(stats.total_apps, catalog.all().len());
    assert_eq!(stats.total_categories, catalog.categories().len());
    assert!(catalog.get("grafana").is_some() && catalog.get("GRAFANA").is_none());
}

#[test]
fn declared_values_are_plain_and_everything_else_is_a_secret() {
    let app = with_params(json!([
        {"name": "TITLE", "label": "Title", "type": "text", "default": "Blog"},
        {"name": "SIZE", "label": "Size", "type": "number", "default": 3},
        {"name": "OPEN", "label": "Open", "type": "boolean", "default": false},
        {"name": "PW", "label": "Password", "type": "secret", "default": {"generate": 24}},
        {"name": "NONE", "label": "None", "type": "text"}
    ]));
    let values =
        resolve(&app, json!({"TITLE": "Mine", "EXTRA": 5}), json!({"SIZE": "7", "MORE": "x"}));
    let values = values.unwrap();
    let secret = |text: &str| (true, text.to_owned());
    let plain = |text: &str| (false, text.to_owned());
    assert_eq!(values["TITLE"], plain("Mine"));
    assert_eq!(values["SIZE"], plain("7"));
    assert_eq!(values["OPEN"], plain("false"));
    assert_eq!(values["EXTRA"], secret("5"));
    assert_eq!(values["MORE"], secret("x"));
    assert!(values["PW"].0 && values["PW"].1.len() == 24);
    assert!(!values.contains_key("NONE"));
}

#[test]
fn an_empty_field_of_a_form_counts_as_not_filled_in() {
    let app = with_params(json!([
        {"name": "N", "label": "N", "type": "number", "default": 3},
        {"name": "PW", "label": "PW", "type": "secret", "default": {"generate": 24}},
        {"name": "T", "label": "T", "type": "text", "default": "x"}
    ]));
    let values = resolve(&app, json!({"N": "", "PW": "", "T": ""}), json!({"X": null})).unwrap();
    assert_eq!((values["N"].1.as_str(), values["PW"].1.len()), ("3", 24));
    assert_eq!(values["T"].1, "", "a text may be meant to be empty");
    assert!(!values.contains_key("X"));
}

#[test]
fn every_wrong_value_is_named_and_none_is_repeated() {
    let app = with_params(json!([
        {"name": "N", "label": "N", "type": "number"},
        {"name": "B", "label": "B", "type": "boolean"},
        {"name": "S", "label": "S", "type": "select", "options": ["a", "b"]},
        {"name": "P", "label": "P", "type": "text", "pattern": "[a-z]+"},
        {"name": "R", "label": "R", "type": "text", "required": true}
    ]));
    let config = json!({"N": "many", "B": "maybe", "S": "canary", "P": "a\nB"});
    let environment = json!({"A=B": "x", "NUL": "a\u{0}b=c", "LIST": [1], "a/b": {}});
    let wrong = resolve(&app, config.clone(), environment.clone()).unwrap_err();
    let pointers: Vec<_> = wrong.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/config/N",
            "/config/B",
            "/config/S",
            "/config/P",
            "/config/R",
            "/environment/A=B",
            "/environment/LIST",
            "/environment/NUL",
            "/environment/a~1b"
        ]
    );
    let (config, environment) = (object(config), object(environment));
    let request = Request { config: &config, environment: &environment, defaults: defaults() };
    let said = format!("{:?}", app.resolve(request, &mut counting()).unwrap_err());
    assert!(!said.contains("canary") && !said.contains("maybe"), "{said}");
}

#[test]
fn no_value_has_a_second_line_and_a_tab_is_none() {
    let app = with_params(json!([{"name": "T", "label": "T", "type": "text"}]));
    for broken in ["x\nlxc.mount.entry: /etc", "x\r", "x\r\ny", "x\u{b}y", "x\u{c}", "x\u{85}y"] {
        let wrong = resolve(&app, json!({"T": broken}), json!({"EVIL": broken})).unwrap_err();
        let code = "environment.value_invalid";
        let named = ["/config/T", "/environment/EVIL"].map(|pointer| (pointer.to_owned(), code));
        assert_eq!(wrong, named, "{broken:?}");
    }
    let values = resolve(&app, json!({"T": "a\tb"}), json!({"X": "a\tb"})).unwrap();
    assert_eq!((values["T"].1.as_str(), values["X"].1.as_str()), ("a\tb", "a\tb"));
    let entry = json!({
        "install": {"kind": "oci", "image": "docker.io/library/ghost:5"},
        "environment": {"MOTD": "two\nlines"}
    });
    assert_eq!(parse(&file(entry)).unwrap_err().field, "environment.MOTD");
}

#[test]
fn a_number_is_taken_as_it_was_written_or_not_at_all() {
    let app = with_params(json!([{"name": "T", "label": "T", "type": "text"}]));
    let huge: serde_json::Value = serde_json::from_str("12345678901234567890123").unwrap();
    for changed in [json!(1.10), json!(1e5), huge, json!(-0.0)] {
        let wrong = resolve(&app, json!({}), json!({ "X": changed })).unwrap_err();
        assert_eq!(wrong, [("/environment/X".to_owned(), "environment.value_invalid")]);
    }
    let values =
        resolve(&app, json!({}), json!({ "X": 18446744073709551615_u64, "Y": -5 })).unwrap();
    assert_eq!((values["X"].1.as_str(), values["Y"].1.as_str()), ("18446744073709551615", "-5"));
}

#[test]
fn a_constant_secret_of_the_old_schema_is_replaced_by_a_generated_one() {
    let app = app(json!({
        "install": {"kind": "oci", "image": "docker.io/library/ghost:5"},
        "environment": {"MYSQL_PASSWORD": "ghost_password", "db__connection__password": "x",
                        "API_KEY": "k", "JWT_SECRET": "s", "BOT_TOKEN": "t", "url": "http://localhost"}
    }));
    let values = resolve(&app, json!({}), json!({"API_KEY": "mine"})).unwrap();
    let generated = ["MYSQL_PASSWORD", "db__connection__password", "JWT_SECRET", "BOT_TOKEN"];
    let distinct: std::collections::BTreeSet<_> = generated.iter().map(|n| &values[*n].1).collect();
    assert_eq!(distinct.len(), 4, "each is a secret of its own");
    assert!(generated.iter().all(|name| values[*name].0 && values[*name].1.len() == 24));
    assert_eq!(values["API_KEY"], (true, "mine".to_owned()));
    assert_eq!(values["url"], (true, "http://localhost".to_owned()));
}

#[test]
fn resources_are_the_wish_else_the_default_and_never_under_the_minimum() {
    let wish = json!({"min_cpu": 3, "min_memory": 4096, "resources": {"cores": 1, "disk_gb": 5}});
    let fit = app(wish).fitting(defaults());
    assert_eq!((fit.cores.get(), fit.memory.get()), (3, 4096));
    assert_eq!((fit.disk.get(), fit.swap.get()), (5, 512));
}

#[test]
fn health_is_what_the_file_says_or_what_its_ports_suggest() {
    let probe = |more| app(more).judged().probe;
    let port = |number: i64| Port::try_from(number).unwrap();
    let http = json!({"health": {"http": {"port": 80, "expect": 204}, "within_s": 9}});
    assert_eq!(app(http.clone()).judged().within_s, 9);
    let expected = Probe::Http { port: port(80), path: "/".into(), expect: Some(204) };
    assert_eq!(probe(http), expected);
    assert_eq!(probe(json!({"health": {"tcp": {"port": 5}}})), Probe::Tcp { port: port(5) });
    assert_eq!(probe(json!({"ports": [9, 8]})), Probe::Tcp { port: port(9) });
    assert_eq!(probe(json!({})), Probe::Running);
    let udp = json!({"endpoints": [{"name": "dns", "port": 53, "protocol": "udp"}]});
    assert_eq!(probe(udp), Probe::Running);
}

#[test]
fn setup_and_compose_are_refused_for_now_with_the_reason() {
    let setup = app(json!({
        "install": {"kind": "template", "os": "alpine", "version": "3.22", "setup": ["apk add x"]}
    }));
    for app in [setup, app(json!({}))] {
        assert_eq!(
            resolve(&app, json!({}), json!({})).unwrap_err(),
            [("/catalog_id".to_owned(), "catalog.install_unsupported")]
        );
    }
    let plain = app(json!({"install": {"kind": "template", "os": "alpine", "version": "3.22"}}));
    assert!(matches!(plain.source(), Ok(Source::Template { .. })));
}

#[test]
fn sealing_leaves_references_in_the_place_of_secrets() {
    let app = with_params(json!([{"name": "T", "label": "T", "type": "text"}]));
    let (config, environment) =
        (object(json!({"T": "plain", "C": "canary-one"})), object(json!({"E": "canary-two"})));
    let request = Request { config: &config, environment: &environment, defaults: defaults() };
    let deployment = app.resolve(request, &mut counting()).unwrap();
    assert!(!format!("{deployment:?}").contains("canary"), "secrets print as redacted");
    let mut next = 0_u128;
    let sealed = deployment.values.seal(|| {
        next += 1;
        SecretId(uuid::Uuid::from_u128(next))
    });
    let events = serde_json::to_string(&(&sealed.environment, &sealed.config)).unwrap();
    assert!(!events.contains("canary"), "{events}");
    assert_eq!(sealed.secrets.len(), 2);
    assert_eq!(sealed.config.keys().collect::<Vec<_>>(), ["C", "T"]);
    assert_eq!(sealed.config["C"], sealed.environment["C"]);
    assert_eq!(sealed.environment["T"], EnvValue::Plain("plain".into()));
    assert!(
        sealed.secrets.iter().any(|s| s.value.expose_secret() == "canary-two" && s.name == "E")
    );
}
