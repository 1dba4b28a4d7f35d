//! Signing in and out, as scripts and as browsers do.

use proximity_server::demo::generated_password;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kind, Server, on_both};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A browser: keeps cookies, sends its origin and the CSRF header.
struct Browser<'a> {
    server: &'a Server,
    cookies: std::collections::BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    fn new(server: &'a Server) -> Self {
        Self { server, cookies: Default::default() }
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let token = self.cookies.get("csrftoken").cloned().unwrap_or_default();
        self.call_with(method, path, body, &token).await
    }

    async fn call_with(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        csrf: &str,
    ) -> Answer {
        let cookie = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ");
        let origin = self.server.url.clone();
        let headers =
            [JSON, ("origin", origin.as_str()), ("cookie", cookie.as_str()), ("x-csrftoken", csrf)];
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = self.server.call(method, path, &headers, body.as_deref()).await;
        for name in ["proximity-auth-cookie", "proximity-refresh-cookie", "csrftoken"] {
            match answer.cookie(name) {
                Some(value) if value.is_empty() => drop(self.cookies.remove(name)),
                Some(value) => drop(self.cookies.insert(name.to_owned(), value)),
                None => {}
            }
        }
        answer
    }
}

async fn with_admin(kind: Kind) -> (Server, String) {
    let server = Server::start_on(kind).await;
    let password = generated_password();
    server.app.create_admin("root", password.clone().into()).await.unwrap();
    (server, password)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_client_signs_in_works_and_signs_out_twice() {
    on_both(async |kind| {
        let (server, password) = with_admin(kind).await;
        let mut browser = Browser::new(&server);
        let first = browser.call(Method::GET, "/api/auth/user/", None).await;
        first.problem(401, "identity.required");
        let login = json!({ "username": "root", "password": password });
        let bare =
            browser.call_with(Method::POST, "/api/auth/login/", Some(login.clone()), "").await;
        bare.problem(403, "csrf.failed");
        let wrong = json!({ "username": "root", "password": "not this one, surely" });
        let refused = browser.call(Method::POST, "/api/auth/login/", Some(wrong)).await;
        refused.problem(400, "login.failed");
        let signed_in = browser.call(Method::POST, "/api/auth/login/", Some(login)).await;
        assert_eq!(signed_in.status, 200, "{}", signed_in.text);
        assert_eq!(signed_in.body["user"]["is_staff"], true);
        for name in ["proximity-auth-cookie", "proximity-refresh-cookie"] {
            let set = signed_in.headers.get_all("set-cookie").iter();
            let set =
                set.map(|value| value.to_str().unwrap()).find(|v| v.starts_with(name)).unwrap();
            assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
        }
        let me = browser.call(Method::GET, "/api/auth/user/", None).await;
        assert_eq!(me.body["username"], "root");
        let named = json!({ "first_name": "Ann" });
        let forged =
            browser.call_with(Method::PATCH, "/api/auth/user/", Some(named.clone()), "x").await;
        forged.problem(403, "csrf.failed");
        let changed = browser.call(Method::PATCH, "/api/auth/user/", Some(named)).await;
        assert_eq!(changed.body["first_name"], "Ann", "{}", changed.text);
        let old = browser.cookies.clone();
        for _ in 0..2 {
            let out = browser.call(Method::POST, "/api/auth/logout/", None).await;
            assert_eq!(out.status, 200, "{}", out.text);
        }
        assert!(!browser.cookies.contains_key("proximity-auth-cookie"));
        browser.cookies = old;
        let dead = browser.call(Method::GET, "/api/auth/user/", None).await;
        dead.problem(401, "identity.required");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once_and_twice_ends_its_family() {
    on_both(async |kind| {
        let (server, password) = with_admin(kind).await;
        let post = async |path: &str, body: Value| {
            let bytes = body.to_string().into_bytes();
            server.call(Method::POST, path, &[JSON], Some(&bytes)).await
        };
        let login = json!({ "username": "root", "password": password });
        let first = post("/api/auth/login", login).await.body;
        let second = post("/api/auth/token/refresh", json!({ "refresh": first["refresh"] })).await;
        assert_eq!(second.status, 200, "{}", second.text);
        post("/api/auth/token/verify", json!({ "token": first["access"] }))
            .await
            .problem(401, "identity.required");
        let good = post("/api/auth/token/verify", json!({ "token": second.body["access"] })).await;
        assert_eq!(good.status, 200);
        post("/api/auth/token/refresh", json!({ "refresh": first["refresh"] }))
            .await
            .problem(401, "identity.required");
        post("/api/auth/token/verify", json!({ "token": second.body["access"] }))
            .await
            .problem(401, "identity.required");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setup_token_makes_one_administrator_and_registration_is_closed_otherwise() {
    on_both(async |kind| {
        let server = Server::start_on(kind).await;
        let register = async |name: &str, token: Option<&str>| {
            let body = json!({
                "username": name,
                "password": generated_password(),
                "setup_token": token,
            });
            let bytes = body.to_string().into_bytes();
            server.call(Method::POST, "/api/auth/registration/", &[JSON], Some(&bytes)).await
        };
        register("early", None).await.problem(403, "registration.closed");
        register("early", Some("guess")).await.problem(403, "setup_token.invalid");
        let token = server.app.accounts.setup_token_if_first_start().await.unwrap().unwrap();
        let made = register("first", Some(token.expose())).await;
        assert_eq!((made.status.as_u16(), &made.body["user"]["is_staff"]), (201, &json!(true)));
        register("second", Some(token.expose())).await.problem(403, "setup_token.invalid");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_makes_a_login_an_error_and_a_disabled_account_is_limited_too() {
    on_both(async |kind| {
        let (server, admin) = with_admin(kind).await;
        let headers = [("content-type", "application/json")];
        let log_in = async |field: &str, name: &str, password: &str| {
            let body = json!({ field: name, "password": password }).to_string();
            server.call(Method::POST, "/api/auth/login/", &headers, Some(body.as_bytes())).await
        };
        for name in ["a\0b", "\0", "a\u{7}@example.org"] {
            log_in("username", name, "wrong").await.problem(400, "login.failed");
            log_in("email", name, "wrong").await.problem(400, "login.failed");
        }
        let admin = server.sign_in("root", &admin).await;
        let password = generated_password();
        let body = json!({ "username": "gone", "password": password });
        let made = server.as_person(&admin, Method::POST, "/api/users", Some(&body)).await;
        let path = format!("/api/users/{}", made.body["id"]);
        let disable = json!({ "disabled": true });
        let done = server.as_person(&admin, Method::PATCH, &path, Some(&disable)).await;
        assert_eq!(done.status, 200, "{}", done.text);
        for _ in 0..5 {
            log_in("username", "gone", &password).await.problem(400, "login.failed");
        }
        assert_eq!(log_in("username", "gone", &password).await.status, 429);
        server.stop().await;
    })
    .await;
}
