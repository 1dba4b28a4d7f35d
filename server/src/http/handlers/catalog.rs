//! The catalog: what can be deployed; readable by anybody, reloaded by administrators.

use std::sync::Arc;

use proximity_catalog::{BrokenFile, Catalog, CatalogApp, Stats};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::call::Call;
use crate::http::problem::{Problem, chain};
use crate::http::reply::Reply;

/// A list of applications.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogList {
    /// How many.
    pub total: usize,
    /// Sorted by name, in any case.
    #[schema(value_type = Vec<CatalogApp>)]
    pub applications: Vec<Arc<CatalogApp>>,
}

/// All categories.
#[derive(Debug, Serialize, ToSchema)]
pub struct Categories {
    /// Sorted.
    pub categories: Vec<String>,
}

/// What a reload found.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reloaded {
    /// A sentence for a person.
    pub message: String,
    /// Of the catalog that is now in use.
    pub stats: Stats,
    /// Files that were left out, each with its reason.
    pub broken: Vec<BrokenFile>,
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// Part of a name, a description or a tag, in any case.
    #[serde(default)]
    pub q: String,
}

fn listed(applications: Vec<Arc<CatalogApp>>) -> Result<Reply, Problem> {
    Ok(Reply::json(&CatalogList { total: applications.len(), applications })?.tagged())
}

fn current(call: &Call) -> Arc<Catalog> {
    call.app.catalog.current()
}

/// All applications.
#[utoipa::path(get, path = "/api/catalog", tag = "catalog", responses((status = 200, description = "All of them", body = CatalogList)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    listed(current(&call).all().to_vec())
}

/// One application.
#[utoipa::path(get, path = "/api/catalog/{id}", tag = "catalog", params(("id" = String, Path, description = "The entry's id")), responses((status = 200, description = "The entry", body = CatalogApp)))]
pub async fn get(call: Call) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    let catalog = current(&call);
    Ok(Reply::json(catalog.get(&id).ok_or_else(Problem::not_found)?)?.tagged())
}

/// All categories.
#[utoipa::path(get, path = "/api/catalog/categories", tag = "catalog", responses((status = 200, description = "Their names", body = Categories)))]
pub async fn categories(call: Call) -> Result<Reply, Problem> {
    Reply::json(&Categories { categories: current(&call).categories() })
}

/// Applications whose name, description or tags contain a text.
#[utoipa::path(get, path = "/api/catalog/search", tag = "catalog", params(Search), responses((status = 200, description = "Those found", body = CatalogList)))]
pub async fn search(call: Call) -> Result<Reply, Problem> {
    let Search { q } = call.query()?;
    listed(current(&call).search(&q))
}

/// Applications of a category, in any case.
#[utoipa::path(get, path = "/api/catalog/category/{category}", tag = "catalog", params(("category" = String, Path, description = "Its name")), responses((status = 200, description = "Those in it, maybe none", body = CatalogList)))]
pub async fn category(call: Call) -> Result<Reply, Problem> {
    let category: String = call.param("category")?;
    listed(current(&call).in_category(&category))
}

/// How many applications and categories.
#[utoipa::path(get, path = "/api/catalog/stats", tag = "catalog", responses((status = 200, description = "Figures", body = Stats)))]
pub async fn stats(call: Call) -> Result<Reply, Problem> {
    Reply::json(&current(&call).stats())
}

/// Reads the files again; broken ones are named and the rest loads.
#[utoipa::path(post, path = "/api/catalog/reload", tag = "catalog", responses((status = 200, description = "What was found", body = Reloaded)))]
pub async fn reload(call: Call) -> Result<Reply, Problem> {
    let app = call.app.clone();
    let loaded = tokio::task::spawn_blocking(move || app.catalog.reload()).await;
    let catalog = match loaded {
        Ok(Ok(catalog)) => catalog,
        Ok(Err(error)) => {
            tracing::error!(error = chain(&error), "the catalog could not be reloaded");
            return Err(Problem::internal());
        }
        Err(panic) => {
            tracing::error!(%panic, "reloading the catalog panicked");
            return Err(Problem::internal());
        }
    };
    let (stats, broken) = (catalog.stats(), catalog.broken().to_vec());
    let message = match broken.len() {
        0 => format!("Reloaded {} applications", stats.total_apps),
        n => format!("Reloaded {} applications; {n} files were left out", stats.total_apps),
    };
    Reply::json(&Reloaded { message, stats, broken })
}
