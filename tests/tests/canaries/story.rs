//! The story: everything that a secret goes through, well and badly, and all that is told about it.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use proximity_simulator::{Fault, FaultRule, Foreign, Presented, SimulatorHandle};
use proximity_tests::canary::canary;
use proximity_tests::http;
use reqwest::Method;
use serde_json::{Value, json};

use super::site::Place;

/// What the story knows in the end.
#[derive(Default)]
pub struct Told {
    /// Name and bytes of each secret; one that has two forms has two lines.
    pub secrets: Vec<(String, Vec<u8>)>,
    /// What was answered and printed.
    pub texts: Vec<(String, Vec<u8>)>,
    /// Which secret is meant to stand where.
    pub meant: Vec<(String, String)>,
    /// A name that is no secret: it has to be found in every kind of sink, or that is not read.
    pub public: String,
}

pub struct Story<'a> {
    place: &'a Place,
    http: reqwest::Client,
    told: Told,
    admin: String,
}

impl<'a> Story<'a> {
    /// The first start, up to an administrator who is signed in.
    pub async fn begin(place: &'a Place) -> Self {
        let http = http::plain();
        let mut story = Self { place, http, told: Told::default(), admin: String::new() };
        let key = place.master_key();
        let line = key.lines().find(|line| !line.starts_with('#')).unwrap();
        let text = line.split_whitespace().nth(1).unwrap();
        story.knows("master key", text.as_bytes());
        use base64::Engine as _;
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        story.knows("master key", &decoded.expect("the key's file is not read rightly"));
        story.knows("metrics token", place.metrics_token.as_bytes());
        story.knows("Proxmox password", place.simulator.root_password().as_bytes());
        story.knows("other Proxmox password", place.other.root_password().as_bytes());
        if let Some(database) = &place.database {
            story.knows("database password", database.password.as_bytes());
        }
        let token = std::fs::read_to_string(place.site.data.join("setup-token")).unwrap();
        let token = story.knows("setup token", token.trim().as_bytes());
        // It is printed at the first start; the log file is what was printed.
        story.meant("setup token", "server.log");

        let password = story.new_secret("administrator's password");
        let body = json!({ "username": "root", "password": password, "setup_token": token });
        let path = "/api/auth/registration/";
        let made = story.post("", path, body.clone()).await;
        story.tokens("administrator", &made, path);
        story.post("", path, body).await;
        story.admin = made["access"].as_str().unwrap().to_owned();
        story
    }

    fn knows(&mut self, name: &str, secret: &[u8]) -> String {
        self.told.secrets.push((name.to_owned(), secret.to_vec()));
        String::from_utf8_lossy(secret).into_owned()
    }

    fn new_secret(&mut self, name: &str) -> String {
        self.knows(name, canary().as_bytes())
    }

    fn meant(&mut self, secret: &str, sink: &str) {
        self.told.meant.push((secret.to_owned(), sink.to_owned()));
    }

    /// Tokens that an answer shows once.
    fn tokens(&mut self, whose: &str, answer: &Value, path: &str) -> (String, String) {
        let mut token = |kind: &str| {
            let text = answer[kind].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
            let name = format!("{whose}'s {kind} token");
            self.knows(&name, text.as_bytes());
            self.meant(&name, &format!("reply to POST {path}"));
            text
        };
        (token("access"), token("refresh"))
    }

    /// One call, whatever comes of it; the answer is kept as it came.
    async fn send(
        &mut self,
        bearer: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Value {
        let url = format!("{}{path}", self.place.site.url());
        let mut request = self.http.request(method.clone(), url);
        if !bearer.is_empty() {
            request = request.bearer_auth(bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        if status == 500 {
            let log = std::fs::read_to_string(self.place.site.data.join("server.log")).unwrap();
            let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
            panic!("{method} {path}: {errors:#?}");
        }
        let mut text = format!("{status} {:?}\n", answer.headers()).into_bytes();
        let body = answer.bytes().await.unwrap();
        text.extend(&body);
        // A secret in a path would stand in the name of its sink.
        let path = path.split('?').next().unwrap_or_default();
        self.told.texts.push((format!("reply to {method} {path} ({})", status.as_u16()), text));
        serde_json::from_slice(&body).unwrap_or_default()
    }

    async fn post(&mut self, bearer: &str, path: &str, body: Value) -> Value {
        self.send(bearer, Method::POST, path, &[], Some(body.to_string().into_bytes())).await
    }

    async fn get(&mut self, bearer: &str, path: &str) -> Value {
        self.send(bearer, Method::GET, path, &[], None).await
    }

    async fn until(&mut self, path: &str, wanted: impl Fn(&Value) -> bool) {
        let admin = self.admin.clone();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.get(&admin, path).await;
            if wanted(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "{path} stays {answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A command of the shell, whatever comes of it.
    fn shell(&mut self, arguments: &[&str], settings: &[(&str, &str)], input: &str) {
        let mut command = self.place.site.command(arguments);
        command.envs(settings.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.is_empty(), "proximity {arguments:?} says nothing, at this level of the log");
        self.told.texts.push((format!("output of proximity {}", arguments.join(" ")), said));
    }

    pub async fn go_on(&mut self) {
        self.people().await;
        self.hosts().await;
        self.applications().await;
        self.copies().await;
        self.operators().await;
    }

    async fn people(&mut self) {
        let (login, refresh) = ("/api/auth/login/", "/api/auth/token/refresh/");
        let admin = self.admin.clone();
        let wrong = self.new_secret("wrong password");
        self.post("", login, json!({ "username": "root", "password": wrong })).await;
        // People type their password where their name should be.
        let typed = self.new_secret("password typed as a name");
        self.post("", login, json!({ "username": typed, "password": wrong })).await;
        let cut = self.new_secret("password in a body that is cut off");
        let body = format!("{{\"username\":\"ann\",\"password\":\"{cut}\"").into_bytes();
        self.send("", Method::POST, login, &[], Some(body)).await;
        let password = self.new_secret("user's password");
        let name = canary();
        self.told.public.clone_from(&name);
        let body = json!({ "username": name, "email": "ann@example.org", "password": password });
        self.post(&admin, "/api/users", body).await;
        let ann = json!({ "username": name, "password": password });
        let made = self.post("", login, ann).await;
        let (_, first) = self.tokens("user", &made, login);
        let made = self.post("", refresh, json!({ "refresh": first })).await;
        let (access, _) = self.tokens("user's second", &made, refresh);
        let body = json!({ "token": access });
        self.post("", "/api/auth/token/verify/", body).await;
        let new = self.new_secret("user's new password");
        let body = json!({ "old_password": password, "new_password1": new, "new_password2": new });
        self.post(&access, "/api/auth/password/change/", body).await;
        let tokens = "/api/auth/tokens";
        let body = json!({ "name": "a program", "scopes": ["read", "write"] });
        let made = self.post(&access, tokens, body).await;
        let program = made["token"].as_str().unwrap().to_owned();
        self.knows("personal token", program.as_bytes());
        self.meant("personal token", &format!("reply to POST {tokens}"));
        self.get(&program, "/api/apps/").await;
        self.get(&program, "/api/users").await;
        self.get(&access, tokens).await;
        self.get(&access, "/api/auth/sessions").await;
        let garbage = self.new_secret("token that is none");
        self.get(&garbage, "/api/apps/").await;
        let query = self.new_secret("token in a query");
        self.get("", &format!("/api/apps/?access_token={query}")).await;
        // A refresh token that is used twice ends its session.
        self.post("", refresh, json!({ "refresh": first })).await;
        let reset = "/api/users/2/reset-password";
        let made = self.post(&admin, reset, json!({})).await;
        let password = made["password"].as_str().unwrap().to_owned();
        self.knows("password that was reset", password.as_bytes());
        self.meant("password that was reset", &format!("reply to POST {reset}"));
        let by_cookie = format!("proximity-auth-cookie={program}");
        self.send("", Method::GET, "/api/auth/user/", &[("cookie", &by_cookie)], None).await;
        self.post(&access, "/api/auth/logout/", json!({})).await;
    }

    fn host(simulator: &SimulatorHandle, name: &str) -> Value {
        json!({
            "name": name, "host": "127.0.0.1", "port": simulator.address().port(),
            "fingerprint": simulator.fingerprint(),
        })
    }

    async fn hosts(&mut self) {
        let (admin, all) = (self.admin.clone(), "/api/proxmox/hosts");
        let mut body = Self::host(&self.place.simulator, "lab");
        body["password"] = json!(self.new_secret("wrong Proxmox password"));
        self.post(&admin, all, body.clone()).await;
        body["password"] = json!(self.place.simulator.root_password());
        let made = self.post(&admin, all, body.clone()).await;
        assert_eq!(made["id"], 1, "{made}");
        // The same cluster again.
        body["name"] = json!("again");
        self.post(&admin, all, body).await;
        let token = self.place.other.add_token("root@pam", "proximity", false).unwrap();
        let (id, secret) = token.split_once('=').unwrap();
        self.knows("Proxmox token", secret.as_bytes());
        let mut body = Self::host(&self.place.other, "far");
        body["token_id"] = json!(id);
        body["token_secret"] = json!(secret);
        let made = self.post(&admin, all, body).await;
        assert_eq!(made["id"], 2, "{made}");
        let change = json!({ "password": self.new_secret("another wrong Proxmox password") });
        let bytes = Some(change.to_string().into_bytes());
        self.send(&admin, Method::PUT, "/api/proxmox/hosts/1", &[], bytes).await;
        self.post(&admin, "/api/proxmox/hosts/1/test", json!({})).await;
        let pinned = self.place.other.fingerprint();
        let shown = self.place.other.set_cert(Presented::Foreign).unwrap();
        assert_ne!(shown, pinned);
        self.post(&admin, "/api/proxmox/hosts/2/test", json!({})).await;
        self.place.other.set_cert(Presented::Original).unwrap();
        self.post(&admin, "/api/proxmox/hosts/2/test", json!({})).await;
        self.post(&admin, "/api/proxmox/hosts/1/sync-nodes", json!({})).await;
        self.get(&admin, all).await;
    }

    async fn applications(&mut self) {
        let (admin, all) = (self.admin.clone(), "/api/apps/");
        let body = json!({
            "catalog_id": "linkding", "hostname": "links", "host_id": 1,
            "config": { "LD_SUPERUSER_PASSWORD": self.new_secret("secret parameter") },
            "environment": { "API_KEY": self.new_secret("value of an environment") },
        });
        self.post(&admin, "/api/apps/?dry_run=true", body.clone()).await;
        let key = [("idempotency-key", "once")];
        let bytes = body.to_string().into_bytes();
        let made = self.send(&admin, Method::POST, all, &key, Some(bytes.clone())).await;
        let again = self.send(&admin, Method::POST, all, &key, Some(bytes)).await;
        assert_eq!(made["id"], again["id"], "{again}");
        let id = made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        self.until(&format!("/api/apps/{id}"), |app| app["status"] == "running").await;
        self.post(&admin, all, body).await;
        let refused = Fault::Status { status: 403, reason: None, after_effect: false };
        let rule = FaultRule::forever("container.create", refused);
        self.place.simulator.faults().add(rule).unwrap();
        let body = json!({
            "catalog_id": "linkding", "hostname": "failing", "host_id": 1,
            "config": { "LD_SUPERUSER_PASSWORD": self.new_secret("secret of what fails") },
        });
        let made = self.post(&admin, all, body).await;
        let failed = format!("/api/apps/{}", made["id"].as_str().unwrap());
        self.until(&failed, |app| app["status"] == "error").await;
        self.place.simulator.clear_faults();
        for what in ["logs", "history", "stats", "diff?from=1", "backups"] {
            self.get(&admin, &format!("/api/apps/{id}/{what}")).await;
        }
        self.get(&admin, &format!("/api/apps/{id}?at=100000")).await;
        let action = format!("/api/apps/{id}/action");
        self.post(&admin, &action, json!({ "action": "restart" })).await;
        self.until(&format!("/api/apps/{id}"), |app| app["operation"].is_null()).await;
        let clone = json!({ "new_hostname": "links-too" });
        let made = self.post(&admin, &format!("/api/apps/{id}/clone"), clone).await;
        let copy = format!("/api/apps/{}", made["id"].as_str().unwrap_or_else(|| panic!("{made}")));
        self.until(&copy, |app| app["status"] == "running").await;
        self.until(&format!("/api/apps/{id}"), |app| app["operation"].is_null()).await;
        let made = self.post(&admin, &format!("/api/apps/{id}/backups"), json!({})).await;
        let backup = format!("/api/apps/{id}/backups/{}", made["id"]);
        self.until(&backup, |backup| backup["is_completed"] == true).await;
        self.send(&admin, Method::DELETE, &copy, &[], None).await;
    }

    /// A container that somebody else made, with a secret of theirs in its configuration.
    async fn copies(&mut self) {
        let admin = self.admin.clone();
        let secret = self.new_secret("secret of an adopted container");
        let noted = self.new_secret("secret in a container's notes");
        let config = [("env".to_owned(), format!("KEY={secret}"))].into();
        let stranger = Foreign {
            hostname: Some("stranger".to_owned()),
            description: Some(format!("login with {noted}")),
            config,
            ..Foreign::default()
        };
        let vmid = self.place.simulator.plant_container(stranger).await.unwrap();
        self.get(&admin, "/api/apps/discover?host_id=1").await;
        let body = json!({ "vmid": vmid, "node_name": "lab1", "host_id": 1 });
        self.post(&admin, "/api/apps/adopt?dry_run=true", body.clone()).await;
        let made = self.post(&admin, "/api/apps/adopt", body).await;
        let path = format!("/api/apps/{}", made["id"].as_str().unwrap_or_else(|| panic!("{made}")));
        self.until(&path, |app| app["operation"].is_null()).await;
        self.get(&admin, &format!("{path}/history")).await;
    }

    /// What whoever runs the server looks at.
    async fn operators(&mut self) {
        let (admin, metrics) = (self.admin.clone(), self.place.metrics_token.clone());
        for path in [
            "/api/audit/events?limit=1000",
            "/api/operations?per_page=100",
            "/api/proxmox/nodes",
            "/api/openapi.json",
            "/readyz",
        ] {
            self.get(&admin, path).await;
        }
        self.get(&metrics, "/metrics").await;
        let wrong = self.new_secret("wrong metrics token");
        let forwarded = [("x-forwarded-for", "192.0.2.1")];
        self.send(&wrong, Method::GET, "/metrics", &forwarded, None).await;
        self.follow().await;
        let password = self.new_secret("password given to the shell");
        let arguments = ["user", "add", "carl", "--admin", "--password-stdin"];
        self.shell(&arguments, &[], &format!("{password}\n"));
        self.shell(&arguments, &[], &format!("{password}\n"));
        for output in ["table", "json", "ndjson", "csv"] {
            self.shell(&["audit", "log", "--limit", "100000", "-o", output], &[], "");
            self.shell(&["doctor", "-o", output], &[], "");
        }
        self.shell(&["operations", "list", "-o", "json"], &[], "");
        self.shell(&["projections", "list", "-o", "json"], &[], "");
        self.shell(&["projections", "verify"], &[], "");
        self.slips();
    }

    /// Settings that are wrong: what is said about them must not quote them.
    fn slips(&mut self) {
        let secret = self.new_secret("secret in settings that are wrong");
        let toml = self.place.setting("broken.toml", &format!("[database]\nurl = \"{secret}\n"));
        self.shell(&["doctor", "--config", &toml], &[], "");
        let unknown = format!("[database]\npassword = \"{secret}\"\n");
        let toml = self.place.setting("unknown.toml", &unknown);
        self.shell(&["doctor", "--config", &toml], &[], "");
        let url = format!("postgres://proximity:{secret}@127.0.0.1:none/proximity");
        let file = self.place.setting("url", &url);
        self.shell(&["doctor"], &[("PROXIMITY_DATABASE__URL_FILE", &file)], "");
        let key = self.place.setting("key", &format!("{secret}\n"));
        self.shell(&["doctor"], &[("PROXIMITY_SECRETS__MASTER_KEY_FILE", &key)], "");
        if let Some(database) = &self.place.database {
            let file = self.place.setting("wrong", &database.url_with(&secret));
            self.shell(&["doctor"], &[("PROXIMITY_DATABASE__URL_FILE", &file)], "");
            self.shell(&["migrate"], &[("PROXIMITY_DATABASE__URL_FILE", &file)], "");
        }
    }

    /// The live stream from its beginning, as far as it goes at once.
    async fn follow(&mut self) {
        let url = format!("{}/api/events/stream?after=0", self.place.site.url());
        let mut answer = self.http.get(url).bearer_auth(&self.admin).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("application.adopted") {
            let more = tokio::time::timeout(Duration::from_secs(20), answer.chunk());
            text.extend(more.await.expect("the stream stands still").unwrap().unwrap());
        }
        self.told.texts.push(("event stream".to_owned(), text));
    }

    pub async fn end(self) -> Told {
        self.told
    }
}
