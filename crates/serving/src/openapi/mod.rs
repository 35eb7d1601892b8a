//! Routes with descriptions, and the OpenAPI document of an API.
//!
//! [`Routes`] takes each handler together with its [`Operation`], so that no route exists without a
//! description. [`document`] makes the document from the operations.

mod document;
mod operation;
mod plain;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    handler::Handler,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use bytes::Bytes;

pub use document::{Api, document};
pub use operation::{Content, Dialect, MakeSchema, Operation, schema_of};

/// Router, and the descriptions of its routes.
#[derive(Debug)]
pub struct Routes<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes.
    pub fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    /// Adds a route.
    #[must_use]
    pub fn serve<H: Handler<T, S>, T: 'static>(mut self, operation: Operation, handler: H) -> Self {
        let filter = MethodFilter::try_from(operation.method().clone()).expect("a usual method");
        self.router = self.router.route(operation.path(), on(filter, handler));
        self.operations.push(operation);
        self
    }

    /// Adds other routes.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// Adds other routes below `prefix`.
    #[must_use]
    pub fn nest(mut self, prefix: &str, other: Self) -> Self {
        self.router = self.router.nest(prefix, other.router);
        self.operations.extend(other.operations.into_iter().map(|operation| operation.below(prefix)));
        self
    }

    /// Adds other routes below `prefix` that are the same as described ones at another path.
    #[must_use]
    pub fn nest_again(mut self, prefix: &str, other: Self) -> Self {
        self.router = self.router.nest(prefix, other.router);
        self
    }

    /// Adds other routes that are the same as described ones at another path.
    #[must_use]
    pub fn merge_again(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self
    }

    /// Changes the router, such as its fallbacks and layers. Routes that are added here have no
    /// description.
    #[must_use]
    pub fn with_router(mut self, change: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        self.router = change(self.router);
        self
    }

    /// Returns the router and the descriptions.
    pub fn into_parts(self) -> (Router<S>, Vec<Operation>) {
        (self.router, self.operations)
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the response with a document.
pub fn response(document: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document).into_response()
}
