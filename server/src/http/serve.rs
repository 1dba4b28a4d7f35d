//! Binds the address and turns the route table into resources.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::NormalizePath;
use actix_web::{App as ActixApp, HttpRequest, HttpServer, guard, web};
use rustls_pki_types::pem::PemObject as _;

use super::dispatch::{self, Target};
use super::peer;
use super::route::{Route, Verb};
use super::routes::ROUTES;
use crate::app::App;
use crate::config;

/// Seconds that requests in flight are given when the server stops.
const DRAIN: u64 = 15;

/// A server that answers.
pub struct Listening {
    pub address: SocketAddr,
    handle: ServerHandle,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Listening {
    /// Accepts nothing new, finishes what is in flight, and returns when all threads have ended.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the HTTP server ended with an error"),
            Err(error) => tracing::error!(%error, "the HTTP server's task ended badly"),
        }
    }
}

/// A path of the table with the methods it has.
struct Resource {
    path: &'static str,
    routes: Vec<&'static Route>,
    allow: &'static str,
}

/// Serves on the configured address.
pub fn serve(app: Arc<App>) -> anyhow::Result<Listening> {
    serve_table(app, ROUTES)
}

/// The same with another table, so that a test can plant a wrong line in it.
pub fn serve_table(app: Arc<App>, table: &'static [Route]) -> anyhow::Result<Listening> {
    use anyhow::Context as _;
    let config = app.config.server.clone();
    let listener = TcpListener::bind(&config.listen)
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from).min(8),
        workers => workers,
    };
    let data = web::Data::from(app);
    let resources: Arc<Vec<Resource>> = Arc::new(resources(table));
    let factory = move || {
        ActixApp::new()
            .wrap(NormalizePath::trim())
            .app_data(data.clone())
            .configure(|services| configure(services, &resources))
            .default_service(web::to(|request, payload, app| {
                dispatch::handle(Target::Unknown, request, payload, app)
            }))
    };
    let server = HttpServer::new(factory)
        .workers(workers)
        .max_connections((config.max_connections / workers).max(1))
        .backlog(1024)
        .keep_alive(Duration::from_secs(75))
        .client_request_timeout(Duration::from_secs(10))
        .client_disconnect_timeout(Duration::from_secs(5))
        .on_connect(peer::keep)
        .shutdown_timeout(DRAIN)
        .disable_signals();
    let server = match tls(&config)? {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    }
    .run();
    let handle = server.handle();
    let task = tokio::spawn(server);
    Ok(Listening { address, handle, task })
}

/// The table by path. The strings of `Allow` live as long as the process: one server runs in it.
fn resources(table: &'static [Route]) -> Vec<Resource> {
    let mut by_path: BTreeMap<&str, Vec<&'static Route>> = BTreeMap::new();
    for route in table {
        by_path.entry(route.path).or_default().push(route);
    }
    let mut resources: Vec<Resource> = by_path
        .into_iter()
        .map(|(path, routes)| {
            let verbs: Vec<Verb> = routes.iter().map(|route| route.verb).collect();
            Resource { path, allow: dispatch::allow(&verbs).leak(), routes }
        })
        .collect();
    // A literal segment wins over a parameter, wherever either stands in the table.
    resources.sort_by_key(|resource| {
        resource.path.split('/').map(|part| part.starts_with('{')).collect::<Vec<_>>()
    });
    resources
}

fn configure(services: &mut web::ServiceConfig, resources: &[Resource]) {
    for resource in resources {
        let mut service = web::resource(resource.path);
        for route in &resource.routes {
            let route: &'static Route = route;
            let method: Box<dyn guard::Guard> = match route.verb {
                Verb::Get => Box::new(guard::Any(guard::Get()).or(guard::Head())),
                Verb::Post => Box::new(guard::Post()),
                Verb::Put => Box::new(guard::Put()),
                Verb::Patch => Box::new(guard::Patch()),
                Verb::Delete => Box::new(guard::Delete()),
            };
            service = service.route(web::route().guard(OneMethod(method)).to(
                move |request: HttpRequest, payload, app| {
                    dispatch::handle(Target::Route(route), request, payload, app)
                },
            ));
        }
        let allow = resource.allow;
        services.service(service.default_service(web::to(move |request, payload, app| {
            dispatch::handle(Target::MethodNotAllowed(allow), request, payload, app)
        })));
    }
}

struct OneMethod(Box<dyn guard::Guard>);

impl guard::Guard for OneMethod {
    fn check(&self, context: &guard::GuardContext<'_>) -> bool {
        self.0.check(context)
    }
}

fn tls(config: &config::Server) -> anyhow::Result<Option<rustls::ServerConfig>> {
    use anyhow::Context as _;
    let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else {
        return Ok(None);
    };
    let chain = rustls_pki_types::CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate {}", certificate.display()))?;
    let key = rustls_pki_types::PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(config))
}
