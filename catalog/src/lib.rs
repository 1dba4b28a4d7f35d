//! What can be installed: one JSON file per application, checked field by field before it is offered.
//!
//! A file is parsed by [`parse`], many of them make a [`Catalog`], and [`CatalogApp::resolve`] turns
//! an entry and what a person asked for into everything that a deployment needs.

mod app;
mod library;
mod load;
mod parse;
mod resolve;

pub use app::{
    CatalogApp, Endpoint, HealthCheck, HttpCheck, Install, Param, ParamDefault, ParamKind,
    Protocol, ResourceWishes, TcpCheck,
};
pub use library::{Catalog, Library, Stats};
pub use load::{BrokenFile, Error, Origin};
pub use parse::{Invalid, parse};
pub use resolve::{Choice, Deployment, FieldError, Request, Sealed, SealedSecret, Values};
