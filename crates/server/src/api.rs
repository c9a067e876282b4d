//! The resources, one file each, and the table their routes are entered in.
//!
//! A handler parses, calls one verb of the crate below, and renders. Nothing else happens here.

mod cache;
mod health;
mod home;
mod jobs;
mod metrics;
mod openapi;
mod parameters;
mod queues;
mod render;
mod sse;
mod streams;
pub(crate) mod wire;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use crate::app::App;
use crate::auth::Access;
use crate::gate::{Route, pass, unknown};

pub(crate) use openapi::document;

/// All routes of the server. Each entry says its method, its path and what it asks of callers, in one place.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut routes = Routes::new(app);
    enter_all(&mut routes);
    routes.router.fallback(unknown).with_state(Arc::clone(app))
}

fn enter_all(routes: &mut Routes) {
    home::router(routes);
    jobs::router(routes);
    queues::router(routes);
    streams::router(routes);
    cache::router(routes);
    health::router(routes);
    metrics::router(routes);
    openapi::router(routes);
}

/// Collects routes; each gets the layer that checks its scope and measures it.
pub(crate) struct Routes {
    app: Arc<App>,
    router: Router<Arc<App>>,
    /// Method and path of every route, for the test that compares them with the documentation.
    pub(crate) table: Vec<Arc<Route>>,
}

macro_rules! methods {
    ($($verb:ident = $method:ident, $name:literal;)*) => {
        $(pub(crate) fn $verb<H, T>(&mut self, path: &'static str, access: Access, handler: H) -> &mut Self
        where
            H: Handler<T, Arc<App>>,
            T: 'static,
        {
            self.add(MethodFilter::$method, $name, path, access, handler)
        })*
    };
}

impl Routes {
    fn new(app: &Arc<App>) -> Self {
        Self { app: Arc::clone(app), router: Router::new(), table: Vec::new() }
    }

    methods! {
        get = GET, "GET";
        post = POST, "POST";
        delete = DELETE, "DELETE";
    }

    fn add<H, T>(
        &mut self,
        filter: MethodFilter,
        method: &'static str,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> &mut Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let route = Arc::new(Route::new(method, path, access, &self.app.registry));
        let state = (Arc::clone(&self.app), Arc::clone(&route));
        let guarded = on(filter, handler).route_layer(axum::middleware::from_fn_with_state(state, pass));
        self.router = std::mem::take(&mut self.router).route(path, guarded);
        self.table.push(route);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parameter that takes the rest of the path is one like others to OpenAPI.
    fn documented_as(route: &Route) -> String {
        format!("{} {}", route.method, route.path.replace("{*", "{"))
    }

    #[tokio::test]
    async fn every_route_is_documented_and_every_documented_one_exists() {
        let app = Arc::new(crate::serve::app_for_tests().await);
        let mut routes = Routes::new(&app);
        enter_all(&mut routes);
        let mut entered: Vec<_> = routes.table.iter().map(|route| documented_as(route)).collect();
        let mut documented: Vec<_> = document()
            .paths
            .paths
            .iter()
            .flat_map(|(path, item)| {
                [("GET", &item.get), ("POST", &item.post), ("DELETE", &item.delete)]
                    .into_iter()
                    .filter(|(_, operation)| operation.is_some())
                    .map(move |(method, _)| format!("{method} {path}"))
            })
            .collect();
        entered.sort();
        documented.sort();
        assert_eq!(entered, documented);
    }
}
