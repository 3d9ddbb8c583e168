//! `/api/v1/panels`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_model::{PanelOrder, PanelServer, PanelStatus};

use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::panels::{Desk, Refusal};
use crate::problem::{Form, Params, Problem, Segment};

/// Servers of one page.
const PAGE_MAX: usize = 500;

/// All configured panels.
#[derive(Serialize, ToSchema)]
#[schema(as = PanelList)]
pub(crate) struct List {
    panels: Vec<PanelStatus>,
}

/// Lists game panels: connection, nodes, counts.
#[utoipa::path(get, path = "/api/v1/panels", tag = "panels",
    responses((status = 200, description = "Panels", body = List)))]
pub(crate) async fn list(_who: Allowed<needs::ReadPanels>, State(app): State<App>) -> Json<List> {
    let desk = app.inner.handles.panels.as_ref();
    Json(List { panels: desk.map(|desk| desk.panels()).unwrap_or_default() })
}

/// Which servers.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only those whose name, game, node, customer or address contains this.
    #[param(max_length = 100)]
    search: Option<String>,
    /// Only those with a port that is on no wire.
    unmapped: Option<bool>,
    /// As the answer before said.
    after: Option<usize>,
}

/// Servers with their ports.
#[derive(Serialize, ToSchema)]
#[schema(as = PanelServerList)]
pub(crate) struct Servers {
    servers: Vec<PanelServer>,
    /// For `after`; absent on the last page.
    next: Option<usize>,
}

/// Lists a panel's servers: ports, what they are for and why, what is unmapped.
#[utoipa::path(get, path = "/api/v1/panels/{name}/servers", tag = "panels",
    params(("name" = String, Path, description = "The panel"), Filter),
    responses((status = 200, description = "Servers", body = Servers)))]
pub(crate) async fn servers(
    _who: Allowed<needs::ReadPanels>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Params(filter): Params<Filter>,
) -> Result<Json<Servers>, Problem> {
    let all = desk(&app)?.servers(&name).ok_or_else(|| Problem::missing("panel"))?;
    let wanted = filter.search.as_deref().map(str::to_lowercase);
    let fits = |server: &PanelServer| {
        (filter.unmapped != Some(true) || server.ports.iter().any(|p| p.unmapped.is_some()))
            && wanted.as_deref().is_none_or(|text| mentions(server, text))
    };
    let after = filter.after.unwrap_or(0);
    let mut found = all.into_iter().filter(fits).skip(after);
    let servers: Vec<_> = found.by_ref().take(PAGE_MAX).collect();
    let next = found.next().map(|_| after + PAGE_MAX);
    Ok(Json(Servers { servers, next }))
}

fn mentions(server: &PanelServer, text: &str) -> bool {
    let words = [Some(&server.name), Some(&server.game), Some(&server.node), Some(&server.uuid)];
    words.into_iter().flatten().chain(&server.customer).any(|w| w.to_lowercase().contains(text))
        || server.ports.iter().any(|p| p.addresses.iter().any(|a| a.to_string().contains(text)))
}

/// What is asked of a panel's synchronisation.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = PanelRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    order: PanelOrder,
}

/// Has a panel read soon, or accepts that what vanished at once is gone.
#[utoipa::path(post, path = "/api/v1/panels/{name}", tag = "panels", request_body = Order,
    params(("name" = String, Path, description = "The panel")),
    responses((status = 202, description = "Under way")))]
pub(crate) async fn order(
    who: Allowed<needs::ManagePanels>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Form(body): Form<Order>,
) -> Result<StatusCode, Problem> {
    let action = match body.order {
        PanelOrder::Sync => "panel.sync",
        PanelOrder::Accept => "panel.accept",
    };
    desk(&app)?.order(&name, body.order).map_err(refused)?;
    app.audit(app.entry(&who.principal, action, name)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// A link, shown once.
#[derive(Serialize, ToSchema)]
#[schema(as = ShareLink)]
pub(crate) struct Link {
    url: String,
}

/// Which server.
#[derive(Deserialize, ToSchema)]
#[schema(as = ShareRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    /// UUID.
    #[schema(max_length = 64)]
    server: String,
}

/// Makes a link that shows one server's protection to whoever has it, until it is taken back.
#[utoipa::path(post, path = "/api/v1/panels/{name}/shares", tag = "panels", request_body = Share,
    params(("name" = String, Path, description = "The panel")),
    responses((status = 201, description = "Made", body = Link)))]
pub(crate) async fn share(
    who: Allowed<needs::ManagePanels>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Form(body): Form<Share>,
) -> Result<(StatusCode, Json<Link>), Problem> {
    let url = desk(&app)?.share(&name, &body.server, &who.principal.name).map_err(refused)?;
    let what = format!("{name}/{}", body.server);
    app.audit(app.entry(&who.principal, "panel.share", what)).await?;
    Ok((StatusCode::CREATED, Json(Link { url })))
}

/// Whose links.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Shared {
    /// UUID of the server.
    #[param(max_length = 64)]
    server: String,
}

/// How many links were taken back.
#[derive(Serialize, ToSchema)]
#[schema(as = SharesRemoved)]
pub(crate) struct Removed {
    links: usize,
}

/// Takes every link to a server back.
#[utoipa::path(delete, path = "/api/v1/panels/{name}/shares", tag = "panels",
    params(("name" = String, Path, description = "The panel"), Shared),
    responses((status = 200, description = "Done", body = Removed)))]
pub(crate) async fn unshare(
    who: Allowed<needs::ManagePanels>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Params(Shared { server }): Params<Shared>,
) -> Result<Json<Removed>, Problem> {
    let links = desk(&app)?.unshare(&name, &server).map_err(refused)?;
    let what = format!("{name}/{server}");
    app.audit(app.entry(&who.principal, "panel.unshare", what)).await?;
    Ok(Json(Removed { links }))
}

fn desk(app: &App) -> Result<&Arc<dyn Desk>, Problem> {
    app.inner.handles.panels.as_ref().ok_or_else(|| Problem::missing("panel"))
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unknown => Problem::missing("panel or server"),
        Refusal::Busy => Problem::busy("too many orders are waiting"),
        Refusal::NoPages => {
            Problem::new(StatusCode::CONFLICT, "[owners] is not configured: there are no pages")
        }
    }
}
