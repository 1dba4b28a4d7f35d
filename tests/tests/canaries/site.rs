//! Where the story takes place: settings whose secrets stand in files, and a database with a password.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proximity_simulator::{NodeConfig, Simulator, SimulatorConfig, SimulatorHandle};
use proximity_tests::canary::{Search, Searched, canary};
use proximity_tests::database::{Database, Kind};
use proximity_tests::process::Site;
use sqlx::{Connection as _, Row as _};

/// A site, two clusters, and the secrets that were there before the server was started.
pub struct Place {
    pub site: Site,
    pub simulator: SimulatorHandle,
    pub other: SimulatorHandle,
    pub metrics_token: String,
    pub database: Option<Protected>,
    folder: tempfile::TempDir,
}

/// A database whose role has a password that is asked for.
pub struct Protected {
    pub password: String,
    name: String,
    admin: String,
}

async fn cluster(name: &str) -> SimulatorHandle {
    Simulator::start(SimulatorConfig {
        cluster: Some(name.to_owned()),
        nodes: vec![NodeConfig::new(&format!("{name}1"))],
        guest_ports: proximity_server::demo::guest_ports(),
        root_password: Some(canary()),
        ..SimulatorConfig::quick()
    })
    .await
    .unwrap()
}

impl Place {
    pub async fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["data", "settings", "temporary", "scratch"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        // The store is named in a file, as whoever keeps its password out of the environment does.
        let mut site = Site::new(Kind::Sqlite, &folder.path().join("data")).await;
        let settings = folder.path().join("settings");
        let written = |name: &str, text: &str| {
            let path = settings.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let metrics_token = canary();
        let key = settings.join("master.key").display().to_string();
        site.set("PROXIMITY_SECRETS__MASTER_KEY_FILE", &key);
        site.set("PROXIMITY_SERVER__METRICS_TOKEN_FILE", &written("metrics", &metrics_token));
        site.set("TMPDIR", &folder.path().join("temporary").display().to_string());
        site.set("RUST_LOG", "trace");
        let database = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => {
                let (database, url) = Protected::create().await;
                site.set("PROXIMITY_DATABASE__URL_FILE", &written("database", &url));
                Some(database)
            }
        };
        let (simulator, other) = (cluster("lab").await, cluster("far").await);
        Self { site, simulator, other, metrics_token, database, folder }
    }

    pub fn master_key(&self) -> String {
        let path = self.folder.path().join("settings/master.key");
        std::fs::read_to_string(path).unwrap()
    }

    /// A folder for the control's files.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// A file with settings that are not used by the server itself.
    pub fn setting(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join("scratch").join(name);
        std::fs::write(&path, text).unwrap();
        // As a key's file has to be, and as any of them should be.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// Everything that the server and its database have written.
    pub async fn search(&self, search: &Search, searched: &mut Searched) {
        search.folder(&self.site.data, searched);
        search.folder(&self.folder.path().join("temporary"), searched);
        if let Some(database) = &self.database {
            database.search(search, searched).await;
        }
    }
}

impl Protected {
    /// A database of its own, and the URL with which its role may use it.
    async fn create() -> (Self, String) {
        let database = Database::create().await;
        let admin = std::env::var("PROXIMITY_TEST_POSTGRES").unwrap();
        let mut url = url::Url::parse(&database.url).unwrap();
        let name = url.path().trim_start_matches('/').to_owned();
        let password = canary();
        let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
        for statement in [
            format!("create role {name} login password '{password}'"),
            format!("alter database {name} owner to {name}"),
        ] {
            sqlx::query(&statement).execute(&mut connection).await.unwrap();
        }
        // The throw-away cluster trusts everybody; not in this database.
        let rules: String =
            sqlx::query("show hba_file").fetch_one(&mut connection).await.unwrap().get(0);
        let before = std::fs::read_to_string(&rules).unwrap();
        let rule = format!("host {name} {name} 127.0.0.1/32 scram-sha-256\n{before}");
        std::fs::write(&rules, rule).unwrap();
        sqlx::query("select pg_reload_conf()").execute(&mut connection).await.unwrap();
        url.set_username(&name).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while sqlx::PgConnection::connect(url.as_str()).await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "no password is asked for");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        url.set_password(Some(&password)).unwrap();
        (Self { password, name, admin }, url.into())
    }

    /// PostgreSQL: its files of this database, its journal, its log, and a dump.
    async fn search(&self, search: &Search, searched: &mut Searched) {
        let mut admin = sqlx::PgConnection::connect(&self.admin).await.unwrap();
        // So that the heap has what the journal had.
        sqlx::query("checkpoint").execute(&mut admin).await.unwrap();
        let row = sqlx::query(
            "select current_setting('data_directory'), oid::text from pg_database where datname = $1",
        )
        .bind(&self.name)
        .fetch_one(&mut admin)
        .await
        .unwrap();
        let data = PathBuf::from(row.get::<String, _>(0));
        search.folder(&data.join("base").join(row.get::<String, _>(1)), searched);
        for part in ["global", "pg_wal", "pg_xact"] {
            search.folder(&data.join(part), searched);
        }
        search.file(&data.join("../server.log"), searched);
        let programs = PathBuf::from(std::env::var("PROXIMITY_TEST_POSTGRES_BIN").unwrap());
        let dump = Command::new(programs.join("pg_dump"))
            .args(["--dbname", &self.url_of_admin()])
            .output()
            .unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        assert!(dump.stdout.len() > 50_000, "a dump of {} bytes", dump.stdout.len());
        search.bytes("pg_dump", &dump.stdout, searched);
    }

    /// The database as the cluster's administrator reaches it.
    fn url_of_admin(&self) -> String {
        let mut url = url::Url::parse(&self.admin).unwrap();
        url.set_path(&self.name);
        url.into()
    }

    /// The same database with another password, in the server's own words.
    pub fn url_with(&self, password: &str) -> String {
        let mut url = url::Url::parse(&self.url_of_admin()).unwrap();
        url.set_username(&self.name).unwrap();
        url.set_password(Some(password)).unwrap();
        url.into()
    }
}
