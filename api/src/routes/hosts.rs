//! `/api/v1/hosts`.

use std::net::IpAddr;
use std::num::NonZeroU64;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};
use weir_model::{
    BaselineChange, Command, Direction, HostBaselines, HostRate, IpNet, Metric, Millis,
};
use weir_store::history::{POINTS_MAX, Step};

use super::{Done, send};
use crate::Question;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Form, Params, Problem, Segment};

/// What the busiest are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HostOrder)]
pub(crate) enum By {
    /// Bits a second.
    #[default]
    Bits,
    /// Packets a second.
    Packets,
}

/// What to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// By what.
    #[param(inline)]
    by: Option<By>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Hosts, busiest first.
#[derive(Serialize, ToSchema)]
#[schema(as = HostList)]
pub(crate) struct List {
    hosts: Vec<HostRate>,
}

pub(super) async fn ask<T>(
    app: &App,
    request: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, Problem> {
    let Some(questions) = &app.inner.handles.questions else {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "nobody here can answer this"));
    };
    let (reply, answer) = oneshot::channel();
    let question = request(reply);
    questions.try_send(question).map_err(|_| Problem::busy("too many questions are waiting"))?;
    answer.await.map_err(|_| Problem::busy("nobody answered"))
}

/// Lists the busiest hosts.
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", params(Filter),
    responses((status = 200, description = "Hosts", body = List)))]
pub(crate) async fn list(
    who: Allowed<needs::ReadHosts>,
    State(app): State<App>,
    Params(filter): Params<Filter>,
) -> Result<Json<List>, Problem> {
    let within = who.within().to_vec();
    if who.principal.role == weir_model::Role::Tenant && within.is_empty() {
        return Ok(Json(List { hosts: Vec::new() }));
    }
    let limit = usize::from(filter.limit.unwrap_or(50).clamp(1, 1000));
    let by_packets = filter.by.unwrap_or_default() == By::Packets;
    let hosts = ask(&app, |reply| Question::Busiest { limit, by_packets, within, reply }).await?;
    Ok(Json(List { hosts }))
}

fn check(who: &Allowed<needs::ReadHosts>, host: IpAddr) -> Result<(), Problem> {
    if who.sees(IpNet::from(host)) { Ok(()) } else { Err(Problem::missing("host")) }
}

/// Shows a host's baselines, and the thresholds in force with where they come from.
#[utoipa::path(get, path = "/api/v1/hosts/{host}", tag = "hosts",
    params(("host" = String, Path, description = "Its address")),
    responses((status = 200, description = "The host", body = HostBaselines)))]
pub(crate) async fn one(
    who: Allowed<needs::ReadHosts>,
    State(app): State<App>,
    Segment(host): Segment<IpAddr>,
) -> Result<Json<HostBaselines>, Problem> {
    check(&who, host)?;
    let found = ask(&app, |reply| Question::Baselines { host, reply }).await?;
    found.map(Json).ok_or_else(|| Problem::missing("host"))
}

/// What is wanted of a host's baselines.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BaselineChange)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Change {
    /// They stand still.
    Freeze,
    /// They learn again.
    Thaw,
    /// They are forgotten; the host starts cold.
    Reset,
    /// One threshold is the operator's.
    Threshold {
        /// Of what: no shape, cumulative sum or signature, and from the host only packets, bits and SYNs.
        metric: Metric,
        /// Towards the host when absent.
        direction: Option<Direction>,
        /// Bits for a metric of bits, else packets or sources, a second, in whole numbers; null leaves it
        /// to the baseline again.
        // Required: what was forgotten must not undo anything.
        #[serde(deserialize_with = "Option::deserialize")]
        #[schema(value_type = Option<u64>, required = true, minimum = 1)]
        value: Option<NonZeroU64>,
    },
}

impl From<Change> for BaselineChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Freeze => Self::Freeze,
            Change::Thaw => Self::Thaw,
            Change::Reset => Self::Reset,
            Change::Threshold { metric, direction, value } => {
                Self::Threshold { metric, direction: direction.unwrap_or_default(), value }
            }
        }
    }
}

impl Change {
    /// Its name in the audit log.
    const fn action(&self) -> &'static str {
        match self {
            Self::Freeze => "baseline.freeze",
            Self::Thaw => "baseline.thaw",
            Self::Reset => "baseline.reset",
            Self::Threshold { .. } => "baseline.threshold",
        }
    }
}

/// Freezes, thaws or resets a host's baselines, or sets one of its thresholds. Held over a restart.
#[utoipa::path(post, path = "/api/v1/hosts/{host}/baseline", tag = "hosts",
    params(("host" = String, Path, description = "Its address")),
    request_body = Change, responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn baseline(
    who: Allowed<needs::Mitigate>,
    State(app): State<App>,
    Segment(host): Segment<IpAddr>,
    Form(change): Form<Change>,
) -> Result<Json<Done>, Problem> {
    if !who.sees(IpNet::from(host)) {
        return Err(Problem::missing("host"));
    }
    let (by, action) = (who.principal.name.clone(), change.action());
    let command = Command::Baseline { host, change: change.into(), by };
    send(&app, &who.principal, action, host.to_string(), command).await.map(Json)
}

/// Which part of a series.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// Seconds a point stands for: 1, 60, 600 or 3600. Chosen by the length of the range when absent.
    step: Option<u64>,
    /// Beginning, milliseconds since 1970; five minutes ago when absent.
    from: Option<Millis>,
    /// End, milliseconds since 1970; now when absent.
    to: Option<Millis>,
}

/// One point of a series.
#[derive(Serialize, ToSchema)]
#[schema(as = Point)]
pub(crate) struct PointView {
    at: Millis,
    packets_per_sec: f64,
    /// Of the busiest second.
    packets_per_sec_max: f64,
    bits_per_sec: f64,
    /// Of the busiest second.
    bits_per_sec_max: f64,
}

/// A host's traffic over time, towards it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Series {
    /// Seconds a point stands for.
    step: u64,
    /// Oldest first; what was not seen is absent.
    points: Vec<PointView>,
}

/// Shows what a host carried.
#[utoipa::path(get, path = "/api/v1/hosts/{host}/series", tag = "hosts",
    params(("host" = String, Path, description = "Its address"), Range),
    responses((status = 200, description = "The series", body = Series)))]
pub(crate) async fn series(
    who: Allowed<needs::ReadHosts>,
    State(app): State<App>,
    Segment(host): Segment<IpAddr>,
    Params(range): Params<Range>,
) -> Result<Json<Series>, Problem> {
    check(&who, host)?;
    points(&app, IpNet::from(host), range).await
}

/// Shows what a whole prefix carried: an IPv4 /24 or an IPv6 /48, in which attacks on many hosts are looked
/// for.
#[utoipa::path(get, path = "/api/v1/prefixes/{address}/{length}/series", tag = "hosts",
    params(("address" = String, Path, description = "Its first address"),
        ("length" = u8, Path, description = "24 or 48"), Range),
    responses((status = 200, description = "The series", body = Series)))]
pub(crate) async fn prefix_series(
    who: Allowed<needs::ReadHosts>,
    State(app): State<App>,
    names: Result<Path<(IpAddr, u8)>, PathRejection>,
    Params(range): Params<Range>,
) -> Result<Json<Series>, Problem> {
    let Ok(Path((address, length))) = names else { return Err(Problem::missing("prefix")) };
    let net = IpNet::new(address, length).ok().filter(|net| net.trunc() == *net);
    let whole = net.filter(|_| length == if address.is_ipv4() { 24 } else { 48 });
    let net = whole.ok_or_else(|| Problem::bad("an IPv4 /24 or an IPv6 /48"))?;
    if !who.sees(net) {
        return Err(Problem::missing("prefix"));
    }
    points(&app, net, range).await
}

async fn points(app: &App, net: IpNet, range: Range) -> Result<Json<Series>, Problem> {
    const FIVE_MINUTES_MS: u64 = 300_000;
    let to = range.to.unwrap_or_else(|| app.now());
    let from = range.from.unwrap_or(to - FIVE_MINUTES_MS);
    if from >= to {
        return Err(Problem::bad("from lies after to"));
    }
    let secs = to.since(from).div_ceil(1000);
    let step = match range.step {
        Some(step) => {
            Step::of_secs(step).ok_or_else(|| Problem::bad("step: 1, 60, 600 or 3600"))?
        }
        None => [Step::Second, Step::Minute, Step::TenMinutes]
            .into_iter()
            .find(|step| secs / step.secs() <= POINTS_MAX)
            .unwrap_or(Step::Hour),
    };
    let points = ask(app, |reply| Question::Series { net, step, from, to, reply }).await?;
    let points = points
        .into_iter()
        .map(|point| PointView {
            at: point.at,
            packets_per_sec: point.packets_per_sec,
            packets_per_sec_max: point.packets_per_sec_max,
            bits_per_sec: point.bits_per_sec,
            bits_per_sec_max: point.bits_per_sec_max,
        })
        .collect();
    Ok(Json(Series { step: step.secs(), points }))
}
