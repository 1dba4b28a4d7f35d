//! The order of the sources, and that a slip in a name is told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn sources(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    let sources =
        Sources { file: Some(path), environment: owned(environment), flags: owned(flags) };
    (folder, sources)
}

fn load_error(file: &str, environment: &[(&str, &str)]) -> String {
    let (_folder, sources) = sources(file, environment, &[]);
    load(&sources).unwrap_err().to_string()
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = "[server]\nlisten = \"1.1.1.1:1\"\nbody_limit = 2048\nmax_requests = 7\n";
    let environment =
        [("PROXIMITY_SERVER__LISTEN", "2.2.2.2:2"), ("PROXIMITY_SERVER__BODY_LIMIT", "4096")];
    let (_folder, sources) = sources(file, &environment, &[("server.listen", "3.3.3.3:3")]);
    let config = load(&sources).unwrap();
    assert_eq!(config.server.listen, "3.3.3.3:3");
    assert_eq!(config.server.body_limit, 4096);
    assert_eq!(config.server.max_requests, 7);
    assert_eq!(config.server.max_connections, 4096);
}

#[test]
fn an_unknown_key_is_refused_by_its_name() {
    let error = load_error("[server]\nlisten_on = \"1.1.1.1:1\"\n", &[]);
    assert!(error.contains("no setting server.listen_on"), "{error}");
    let error = load_error("", &[("PROXIMITY_SERVER__LISTON", "x")]);
    assert!(error.contains("did you mean server.listen?"), "{error}");
    let error = load_error("colour = 1\n", &[]);
    assert!(error.contains("no setting colour"), "{error}");
}

#[test]
fn a_value_that_does_not_parse_names_its_key_and_place() {
    let error = load_error("", &[("PROXIMITY_PORTS__PUBLIC", "9-1")]);
    assert!(error.starts_with("PROXIMITY_PORTS__PUBLIC: ports.public: "), "{error}");
    let error = load_error("[server]\ncors_origins = [\"https://a.example/path\"]\n", &[]);
    assert!(error.contains("server.cors_origins"), "{error}");
}

#[test]
fn a_number_that_is_out_of_range_is_told_to_be_a_number() {
    for wrong in ["0", "65", "1-64", "x"] {
        let error = load_error("", &[("PROXIMITY_PROXMOX__CONCURRENCY", wrong)]);
        let told = "proxmox.concurrency: it is a whole number between 1 and 64";
        assert!(error.ends_with(told), "{wrong}: {error}");
    }
    let (_folder, sources) = sources("", &[], &[("proxmox.concurrency", "64")]);
    assert_eq!(load(&sources).unwrap().proxmox_concurrency, 64);
}

#[test]
fn a_directory_of_heads_that_is_named_takes_files_or_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let with = |dir: PathBuf| Config { heads_dir: Some(dir), ..Config::default() };
    for dir in [file.clone(), file.join("heads"), PathBuf::from("/proc/heads")] {
        let error = with(dir.clone()).ensure_heads().unwrap_err().to_string();
        assert!(error.contains("audit.heads_dir"), "{error}");
        assert!(error.contains(&*dir.to_string_lossy()), "{error}");
    }
    let dir = folder.path().join("a/b");
    with(dir.clone()).ensure_heads().unwrap();
    with(dir.clone()).ensure_heads().unwrap();
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "something was left behind");
    Config::default().ensure_heads().unwrap();
}

#[test]
fn a_port_is_of_one_range() {
    let error = load_error("", &[("PROXIMITY_PORTS__INTERNAL", "8999-9100")]);
    assert!(error.contains("ports.internal") && error.contains("overlap"), "{error}");
}

#[test]
fn where_to_listen_and_the_database_are_looked_at_before_anything_is_opened() {
    for listen in ["7800", ":7800", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536"] {
        let error = load_error(&format!("[server]\nlisten = \"{listen}\"\n"), &[]);
        assert!(error.contains("server.listen"), "{listen}: {error}");
    }
    for listen in ["localhost:0", "[::1]:7800"] {
        let (_folder, sources) = sources("", &[], &[("server.listen", listen)]);
        assert_eq!(load(&sources).unwrap().server.listen, listen);
    }
    let error = load_error("", &[("DATABASE_URL", "mysql://u:hidden@h/d")]);
    assert!(error.contains("postgres://USER@HOST/NAME") && !error.contains("hidden"), "{error}");
}

#[test]
fn a_secret_can_stand_in_a_file_and_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    let password = uuid::Uuid::new_v4().to_string();
    std::fs::write(&path, format!("postgres://u:{password}@h/d\n")).unwrap();
    let sources = Sources {
        environment: vec![(
            "PROXIMITY_DATABASE__URL_FILE".into(),
            path.to_string_lossy().into_owned(),
        )],
        ..Sources::default()
    };
    let config = load(&sources).unwrap();
    let url = config.database_url.as_ref().unwrap();
    assert_eq!(url.expose(), format!("postgres://u:{password}@h/d"));
    assert!(!format!("{config:?}").contains(&password));
}

#[test]
fn only_secrets_are_read_from_files_and_others_of_the_environment_are_left_alone() {
    let error = load_error("", &[("PROXIMITY_SERVER__LISTEN_FILE", "/dev/null")]);
    assert!(error.contains("no setting server.listen_file"), "{error}");
    let (_folder, sources) = sources("", &[("PROXIMITY_TEST_POSTGRES", "x")], &[]);
    load(&sources).unwrap();
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let error = load_error("[server]\ntls_certificate = \"a.pem\"\n", &[]);
    assert!(error.contains("server.tls_key"), "{error}");
}

/// With `PROXIMITY_WRITE_DOCS=1` the page is written instead of compared.
#[test]
fn the_reference_lists_every_setting_as_it_is() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    if std::env::var_os("PROXIMITY_WRITE_DOCS").is_some() {
        std::fs::write(&page, keys::reference()).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(kept, keys::reference(), "PROXIMITY_WRITE_DOCS=1 writes {}", page.display());
}
