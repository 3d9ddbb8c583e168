//! The table of routes: router, API document and permissions are all made from it, so that none can
//! say something else than the others.

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodRouter;
use serde_json::json;
use utoipa::PartialSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, Schema};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::access::Requirement;
use crate::access::permission::Guarded;
use crate::app::App;
use crate::{problem, routes};

/// A route as registered.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `GET`, `POST`, ...
    pub method: &'static str,
    /// Path with `{names}`.
    pub path: String,
    /// What it asks for.
    pub requirement: Requirement,
}

/// Routes being collected.
#[derive(Default)]
pub(crate) struct Table {
    router: Router<App>,
    api: OpenApi,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What a handler's signature asks for.
fn requirement<H, T>(_: &H) -> Requirement
where
    H: Handler<T, App>,
    T: Guarded,
{
    T::REQUIREMENT
}

macro_rules! endpoints {
    ($table:expr; $($handler:path),* $(,)?) => {
        $( $table.add(requirement(&$handler), utoipa_axum::routes!($handler)); )*
    };
}

impl Table {
    /// Every route weir has.
    pub(crate) fn all() -> Self {
        let mut table = Self::default();
        table.head();
        endpoints![table;
            routes::me::setup_state, routes::me::setup, routes::me::login, routes::me::logout,
            routes::me::me, routes::me::password, routes::me::totp_begin, routes::me::totp_confirm,
            routes::me::totp_end, routes::me::sessions, routes::me::end_session,
            routes::incidents::list, routes::incidents::export, routes::incidents::one,
            routes::incidents::hold, routes::incidents::skip, routes::incidents::step_down,
            routes::incidents::note, routes::incidents::feedback,
            routes::mitigations::list, routes::mitigations::add, routes::mitigations::approve,
            routes::mitigations::withdraw, routes::mitigations::panic, routes::mitigations::change,
            routes::mitigations::dry_run,
            routes::deliveries::list, routes::deliveries::test,
            routes::deliveries::channels, routes::deliveries::test_channel,
            routes::deliveries::resend, routes::deliveries::mute,
            routes::hosts::list, routes::hosts::one, routes::hosts::series,
            routes::hosts::prefix_series, routes::hosts::baseline, routes::policy::policy,
            routes::flows::query, routes::traffic::traffic, routes::about::services,
            routes::live::live,
            routes::status::status, routes::status::exporters, routes::status::forget, routes::status::peers,
            routes::status::peer, routes::status::lift, routes::status::probe,
            routes::status::mode, routes::status::set_mode, routes::status::follow_file, routes::about::about,
            routes::agents::agents, routes::agents::one, routes::agents::token,
            routes::agents::captures, routes::agents::capture,
            routes::settings::list, routes::settings::one, routes::settings::put,
            routes::settings::remove, routes::settings::undo, routes::settings::reload,
            routes::about::config, routes::allow::list, routes::allow::order,
            routes::users::list, routes::users::add, routes::users::change, routes::users::remove,
            routes::tokens::list, routes::tokens::add, routes::tokens::remove,
            routes::audit::list, routes::audit::verify,
            routes::backup::backup,
            routes::panels::list, routes::panels::servers, routes::panels::order,
            routes::panels::share, routes::panels::unshare,
            routes::page::page, routes::page::data,
            routes::dashboard::page, routes::dashboard::sign, routes::dashboard::asset,
            routes::status::healthz, routes::status::readyz, routes::status::metrics,
            routes::status::document,
        ];
        table
    }

    fn head(&mut self) {
        let info = &mut self.api.info;
        "weir".clone_into(&mut info.title);
        env!("CARGO_PKG_VERSION").clone_into(&mut info.version);
        info.description = Some(
            "What is attacked, why weir thinks so, what it did, and how to approve, hold or undo it. \
             Requests that change something and prove themselves by the session cookie need the header \
             X-Weir-Request. Errors are RFC 9457 problem details."
                .to_owned(),
        );
        let components = self.api.components.get_or_insert_with(Default::default);
        components.schemas.insert("Problem".to_owned(), <problem::Body as PartialSchema>::schema());
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some("An opaque token: weir_ and 64 hexadecimal digits."))
                    .build(),
            ),
        );
        components.add_security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("__Host-weir"))),
        );
    }

    fn add(&mut self, requirement: Requirement, route: UtoipaMethodRouter<App>) {
        let (schemas, paths, methods): (_, _, MethodRouter<App>) = route;
        let components = self.api.components.get_or_insert_with(Default::default);
        components.schemas.extend(schemas);
        for (path, mut item) in paths.paths {
            for (method, operation) in operations(&mut item) {
                complete(operation, requirement);
                // Handlers of different resources share names; operations may not.
                operation.operation_id = Some(operation_id(method, &path));
                self.endpoints.push(Endpoint { method, path: path.clone(), requirement });
            }
            self.router = std::mem::take(&mut self.router).route(&path, methods.clone());
            match self.api.paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item),
                None => {
                    self.api.paths.paths.insert(path, item);
                }
            }
        }
    }

    /// The router, and the document that describes it.
    pub(crate) fn parts(self) -> (Router<App>, OpenApi) {
        (self.router, self.api)
    }
}

fn operations(item: &mut PathItem) -> Vec<(&'static str, &mut Operation)> {
    [
        ("GET", &mut item.get),
        ("POST", &mut item.post),
        ("PUT", &mut item.put),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
    .collect()
}

/// `get_incidents_id` for `GET /api/v1/incidents/{id}`, `get_root_status` for `GET /status`.
fn operation_id(method: &str, path: &str) -> String {
    let method = method.to_lowercase();
    let (front, rest) = match path.strip_prefix("/api/v1") {
        Some(rest) => (method, rest),
        None => (format!("{method}_root"), path),
    };
    let words = rest.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(front, |name, word| name + "_" + word)
}

/// Adds what follows from the signature: who may, how they prove it, and that failures are problems.
fn complete(operation: &mut Operation, requirement: Requirement) {
    if requirement.public {
        operation.security = Some(Vec::new());
    } else {
        let none: [&str; 0] = [];
        operation.security = Some(vec![
            SecurityRequirement::new("token", none),
            SecurityRequirement::new("session", none),
        ]);
    }
    if let Some(permission) = requirement.permission {
        let extension =
            ExtensionsBuilder::new().add("x-weir-permission", json!(permission.id())).build();
        operation.extensions.get_or_insert_with(Default::default).merge(extension);
    }
    let problem = || {
        let content = ContentBuilder::new()
            .schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("Problem"))))
            .build();
        let mut response = Response::new("A problem (RFC 9457)");
        response.content.insert("application/problem+json".to_owned(), content.into());
        RefOr::T(response)
    };
    operation.responses.responses.insert("default".to_owned(), problem());
}
