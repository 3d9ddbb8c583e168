//! What this weir is, what it protects and how it is set up.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tracing::error;
use utoipa::{IntoParams, ToSchema};
use weir_model::{Infrastructure, Intake, IpNet, LadderStep, Millis, Role, Service};

use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Params, Problem};

/// Longest search, octets.
const SEARCH_MAX: usize = 128;

/// Services in one answer, unless asked otherwise.
const SERVICES: u16 = 50;

/// What this weir is and protects.
#[derive(Serialize, ToSchema)]
pub(crate) struct About {
    version: &'static str,
    started: Millis,
    /// Sockets that take flows.
    #[schema(value_type = Vec<String>)]
    flow_listeners: Vec<SocketAddr>,
    /// Prefixes whose hosts are watched and defended.
    #[schema(value_type = Vec<String>)]
    protected: Vec<IpNet>,
    /// Prefixes for which nothing is ever announced.
    #[schema(value_type = Vec<String>)]
    never_touch: Vec<IpNet>,
    /// Those of them that weir itself depends on; `protect.touchable` lifts it.
    infrastructure: Vec<Infrastructure>,
    /// Declared service ports.
    services: usize,
    /// The steps of the ladder, in the order in which they are tried.
    ladder: Vec<LadderStep>,
    #[serde(flatten)]
    intake: Intake,
}

/// Shows what this weir is, what it protects, and what is refused or lost at its door.
#[utoipa::path(get, path = "/api/v1/about", tag = "status",
    responses((status = 200, description = "About", body = About)))]
pub(crate) async fn about(_who: Allowed<needs::ReadStatus>, State(app): State<App>) -> Json<About> {
    let snapshot = app.inner.handles.snapshot.load();
    let facts = &app.inner.handles.facts;
    Json(About {
        version: env!("CARGO_PKG_VERSION"),
        started: facts.started,
        flow_listeners: facts.flow_listeners.clone(),
        protected: snapshot.inventory.protected.iter().collect(),
        never_touch: snapshot.inventory.never_touch.iter().collect(),
        infrastructure: snapshot.inventory.infrastructure.clone(),
        services: snapshot.inventory.services.len(),
        ladder: snapshot.ladder.clone(),
        intake: snapshot.intake.clone(),
    })
}

/// The configuration in force.
#[derive(Serialize, ToSchema)]
#[schema(as = ConfigurationText)]
pub(crate) struct Configuration {
    /// TOML, defaults included, secrets left out.
    text: String,
}

/// Shows the configuration in force, what was set while weir runs and defaults included, secrets left
/// out. Channels that were set stand under settings.
#[utoipa::path(get, path = "/api/v1/config", tag = "settings",
    responses((status = 200, description = "The configuration", body = Configuration)))]
pub(crate) async fn config(
    _who: Allowed<needs::ReadSettings>,
    State(app): State<App>,
) -> Result<Json<Configuration>, Problem> {
    let text = app.inner.handles.settings.in_force().map_err(|why| {
        error!(why, "the configuration cannot be written");
        Problem::internal("the configuration")
    })?;
    Ok(Json(Configuration { text }))
}

/// Which services.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only those on this host or in this prefix.
    #[param(value_type = Option<String>)]
    target: Option<String>,
    /// Words that address, server or game contain, case ignored.
    #[param(max_length = 128)]
    search: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Declared service ports, by address.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceList)]
pub(crate) struct Services {
    services: Vec<Service>,
}

/// Lists declared service ports: whose address is it, and what runs there.
#[utoipa::path(get, path = "/api/v1/services", tag = "hosts", params(Filter),
    responses((status = 200, description = "Services", body = Services)))]
pub(crate) async fn services(
    who: Allowed<needs::ReadHosts>,
    State(app): State<App>,
    Params(filter): Params<Filter>,
) -> Result<Json<Services>, Problem> {
    if filter.search.as_ref().is_some_and(|text| text.len() > SEARCH_MAX) {
        return Err(Problem::bad(format!("search: at most {SEARCH_MAX} octets")));
    }
    let net = |text: String| {
        let host = text.parse::<IpAddr>().map(IpNet::from);
        host.or_else(|_| text.parse()).map_err(|_| Problem::bad("target: an address or a prefix"))
    };
    let target = filter.target.map(net).transpose()?;
    let words = filter.search.unwrap_or_default().to_lowercase();
    let snapshot = app.inner.handles.snapshot.load();
    let found = |service: &&Service| {
        let address = IpNet::from(service.address);
        (who.principal.role != Role::Tenant || who.sees(address))
            && target.is_none_or(|net| net.contains(&address))
            && words.split_whitespace().all(|word| {
                service.name.to_lowercase().contains(word)
                    || service.game.to_lowercase().contains(word)
                    || service.address.to_string().contains(word)
            })
    };
    // One host's services lie together in the sorted list.
    let all = match target {
        Some(net) if net.prefix_len() == net.max_prefix_len() => {
            snapshot.inventory.services_of(net.addr())
        }
        _ => &snapshot.inventory.services,
    };
    let limit = usize::from(filter.limit.unwrap_or(SERVICES).clamp(1, 1000));
    Ok(Json(Services { services: all.iter().filter(found).take(limit).cloned().collect() }))
}
