//! `/api/v1/policy`: the policy of an address, and which group sets each value.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use weir_model::{
    Bounds, Direction, GroupTotal, HostBaseline, Inventory, IpNet, Learning, Metric, Mode,
    OwnMeasure, PolicyGroup, PolicyValues, Role, Said, THRESHOLDS, Threshold,
};

use super::hosts::ask;
use crate::Question;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Problem, Segment};

/// Whose word a value is when no group says anything.
const EVERYWHERE: &str = "everywhere";

/// The policy of an address.
#[derive(Serialize, ToSchema)]
#[schema(as = Policy)]
pub(crate) struct View {
    /// The address.
    #[schema(value_type = String)]
    address: IpAddr,
    /// The protected prefix it lies in; absent when it is not protected.
    #[schema(value_type = Option<String>)]
    prefix: Option<IpNet>,
    /// Its group and those above it, from the smallest on.
    groups: Vec<String>,
    /// Every value with where it comes from.
    values: Vec<PolicyValue>,
    /// What its group and those above it carry as a whole, where that is watched.
    totals: Vec<GroupTotal>,
}

/// One value.
#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyValue {
    /// As in the configuration: `mode`, `inbound.bits_per_sec`, `tags.queue`; of metrics of an operator's own
    /// `metric.NAME.packets_per_sec`.
    key: String,
    /// As in the configuration: a word, a number, a list or a table.
    #[schema(value_type = Value)]
    value: Value,
    /// The group or template that sets it; `everywhere` when none does; `operator` when it was set for this
    /// host alone.
    source: String,
    /// Of a threshold, the number in force for this host now, a second; null when none is, or the host
    /// is too quiet to be watched.
    in_force: Option<f64>,
}

/// Shows the policy of an address: each value with the group that sets it.
#[utoipa::path(get, path = "/api/v1/policy/{address}", tag = "hosts",
    params(("address" = String, Path, description = "The address")),
    responses((status = 200, description = "The policy", body = View)))]
pub(crate) async fn policy(
    who: Allowed<needs::ReadHosts>,
    State(app): State<App>,
    Segment(address): Segment<IpAddr>,
) -> Result<Json<View>, Problem> {
    if !who.sees(IpNet::from(address)) {
        return Err(Problem::missing("address"));
    }
    let found = ask(&app, |reply| Question::Baselines { host: address, reply }).await?;
    let baselines = found.map(|found| found.baselines).unwrap_or_default();
    let snapshot = app.inner.handles.snapshot.load();
    // Whom a provider tells, and how it calls those above a tenant, is its own business.
    let tenant = who.principal.role == Role::Tenant;
    let shown = |group: &PolicyGroup| {
        !tenant || !group.prefixes.is_empty() && group.prefixes.iter().all(|net| who.sees(net))
    };
    let mut view = View::new(&snapshot.inventory, snapshot.mode, address, &baselines, &shown);
    let own = |name: &String| snapshot.totals.iter().find(|total| total.group == *name).cloned();
    view.totals = view.groups.iter().filter_map(own).collect();
    Ok(Json(view))
}

type Shown<'a> = &'a dyn Fn(&PolicyGroup) -> bool;

impl View {
    fn new(
        inventory: &Inventory,
        mode: Mode,
        address: IpAddr,
        baselines: &[HostBaseline],
        shown: Shown<'_>,
    ) -> Self {
        let policies = &inventory.policies;
        let values = policies.at(address.into()).map(|at| policies.values(at));
        let path = values.iter().flat_map(|values| &values.path);
        Self {
            address,
            prefix: inventory.prefix_of(address),
            groups: path.filter(|group| shown(group)).map(|group| group.name.clone()).collect(),
            values: list(values.as_ref(), mode, baselines, shown)
                .into_iter()
                .chain(own(inventory, address, values.as_ref(), baselines, shown))
                .collect(),
            totals: Vec::new(),
        }
    }
}

fn list(
    values: Option<&PolicyValues<'_>>,
    mode: Mode,
    baselines: &[HostBaseline],
    shown: Shown<'_>,
) -> Vec<PolicyValue> {
    let name = |by: &PolicyGroup| {
        if shown(by) { by.name.clone() } else { "provider".to_owned() }
    };
    let everywhere = || EVERYWHERE.to_owned();
    let row = |key: &str, value: Value, source: String| PolicyValue {
        key: key.to_owned(),
        value,
        source,
        in_force: None,
    };
    let said = values.and_then(|v| v.mode).filter(|said| said.value < mode);
    let mut all = vec![row(
        "mode",
        json!(said.map_or(mode, |said| said.value)),
        said.map_or_else(everywhere, |said| name(said.by)),
    )];
    let said = values.and_then(|v| v.never);
    let never = said.map_or(json!([]), |said| json!(said.value));
    all.push(row("never", never, said.map_or_else(everywhere, |said| name(said.by))));
    let said = values.and_then(|v| v.learning);
    let learning = said.map_or(Learning::On, |said| said.value);
    all.push(row("learning", json!(learning), said.map_or_else(everywhere, |said| name(said.by))));
    if let Some(said) = values.and_then(|v| v.class) {
        all.push(row("class", json!(said.value), name(said.by)));
    }
    for index in 0..THRESHOLDS.len() {
        all.push(threshold(values, index, baselines, &name));
    }
    let Some(values) = values else { return all };
    let least = [
        ("service_least_bits_per_sec", values.service_least),
        ("total.least_bits_per_sec", values.total_least),
    ];
    for (key, said) in least {
        all.extend(said.map(|said| row(key, json!(said.value), name(said.by))));
    }
    if let Some(said) = values.notify.filter(|said| shown(said.by)) {
        all.push(row("notify", json!(said.value), name(said.by)));
    }
    for (tag, said) in values.tags.iter().filter(|(_, said)| shown(said.by)) {
        all.push(row(&format!("tags.{tag}"), json!(said.value), name(said.by)));
    }
    all
}

fn threshold(
    values: Option<&PolicyValues<'_>>,
    index: usize,
    baselines: &[HostBaseline],
    name: &dyn Fn(&PolicyGroup) -> String,
) -> PolicyValue {
    let (way, metric) = THRESHOLDS[index];
    let key =
        format!("{}.{metric}", if way == Direction::Inbound { "inbound" } else { "outbound" });
    // A host's list has the same order.
    let now = baselines.get(index);
    let in_force = now.filter(|now| !now.source.starts_with("group-")).map(|now| now.threshold);
    if now.is_some_and(|now| now.source == "operator") {
        return PolicyValue {
            key,
            value: json!(in_force),
            source: "operator".to_owned(),
            in_force,
        };
    }
    let said = values.and_then(|values| values.thresholds[index]);
    let times = values.and_then(|values| values.times(index));
    let (value, by): (Threshold, Option<&PolicyGroup>) = match (said, times) {
        (Some(Said { value: Threshold::Within(bounds), by }), Some(times)) => {
            (Threshold::Within(Bounds { multiplier: Some(times.value), ..bounds }), Some(by))
        }
        (Some(said), _) => (said.value, Some(said.by)),
        (None, Some(times)) => {
            let bounds = Bounds { multiplier: Some(times.value), ..Bounds::default() };
            (Threshold::Within(bounds), Some(times.by))
        }
        (None, None) => (Threshold::Auto, None),
    };
    PolicyValue {
        key,
        value: json!(value),
        source: by.map_or_else(|| EVERYWHERE.to_owned(), name),
        in_force,
    }
}

/// Metrics of an operator's own that are measured of an address.
fn own(
    inventory: &Inventory,
    address: IpAddr,
    values: Option<&PolicyValues<'_>>,
    baselines: &[HostBaseline],
    shown: Shown<'_>,
) -> Vec<PolicyValue> {
    let policies = &inventory.policies;
    let mut all = Vec::new();
    for (_, metric, group) in inventory.metrics.of(policies, address.into()) {
        let by = |name: &str| {
            let group = policies.groups().iter().find(|group| group.name == name);
            if group.is_none_or(shown) { name.to_owned() } else { "provider".to_owned() }
        };
        let source = group.map_or_else(|| EVERYWHERE.to_owned(), by);
        let row = |what: &str, value, source, in_force| PolicyValue {
            key: format!("metric.{}.{what}", metric.name),
            value,
            source,
            in_force,
        };
        all.push(row("match", json!(metric.packets), source.clone(), None));
        let way = usize::from(metric.direction == Direction::Outbound);
        let times = values.and_then(|values| values.multipliers[way]);
        for (what, unit, threshold) in [
            ("packets_per_sec", Metric::PacketsPerSec, metric.packets_per_sec),
            ("bits_per_sec", Metric::BitsPerSec, metric.bits_per_sec),
        ] {
            let Some(threshold) = threshold else { continue };
            let is_it = |own: &OwnMeasure| own.name == metric.name && own.unit == unit;
            let now = baselines.iter().find(|base| base.own.as_ref().is_some_and(is_it));
            let quiet = |source: &str| matches!(source, "metric-off" | "group-observe-only");
            let in_force = now.filter(|now| !quiet(&now.source)).map(|now| now.threshold);
            // What is learned is multiplied by what the host's group says.
            let bounds = match threshold {
                Threshold::Auto => Some(Bounds::default()),
                Threshold::Within(bounds) if bounds.multiplier.is_none() => Some(bounds),
                _ => None,
            };
            all.push(match (bounds, times) {
                (Some(bounds), Some(times)) => {
                    let bounds = Bounds { multiplier: Some(times.value), ..bounds };
                    row(what, json!(Threshold::Within(bounds)), by(&times.by.name), in_force)
                }
                _ => row(what, json!(threshold), source.clone(), in_force),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use weir_model::{Inbound, OwnMetric};

    use super::*;

    fn baseline(metric: Metric, threshold: f64, source: &str) -> HostBaseline {
        HostBaseline {
            metric,
            direction: Direction::Inbound,
            now: 0.0,
            mean: 0.0,
            p99: 0.0,
            level: 0.0,
            threshold,
            source: source.to_owned(),
            seconds: 300,
            own: None,
        }
    }

    #[test]
    fn metrics_of_an_operators_own_stand_with_the_policy() {
        let group = |name: &str, net: &str| PolicyGroup {
            name: name.to_owned(),
            prefixes: FromIterator::from_iter([net.parse().unwrap()]),
            ..PolicyGroup::default()
        };
        let inbound = Inbound { multiplier: Some(4.0), ..Inbound::default() };
        let metric = |name: &str, threshold, groups: &[&str]| OwnMetric {
            name: name.to_owned(),
            packets: "udp dst port 5060".parse().unwrap(),
            direction: Direction::Inbound,
            packets_per_sec: Some(threshold),
            bits_per_sec: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        let inventory = Inventory::default()
            .grouped(vec![PolicyGroup {
                inbound: Some(Box::new(inbound)),
                ..group("voice", "203.0.113.0/24")
            }])
            .measuring(&[
                metric("sip", Threshold::Fixed(5000.0), &["voice"]),
                metric("all", Threshold::Auto, &[]),
            ]);
        let mut sip = baseline(Metric::Own, 5000.0, "metric");
        sip.own = Some(OwnMeasure {
            name: "sip".to_owned(),
            unit: Metric::PacketsPerSec,
            packets: "udp dst port 5060".parse().unwrap(),
        });
        let tell = |address: &str, shown: Shown<'_>| {
            let address = address.parse().unwrap();
            let view =
                View::new(&inventory, Mode::Auto, address, std::slice::from_ref(&sip), shown);
            let own = view.values.into_iter().filter(|v| v.key.starts_with("metric."));
            own.map(|v| format!("{} {} {} {:?}", v.key, v.value, v.source, v.in_force))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            tell("203.0.113.7", &|_| true),
            [
                "metric.sip.match \"proto 17 dport 5060\" voice None",
                "metric.sip.packets_per_sec 5000.0 voice Some(5000.0)",
                "metric.all.match \"proto 17 dport 5060\" everywhere None",
                "metric.all.packets_per_sec {\"multiplier\":4.0} voice None",
            ]
        );
        assert!(tell("203.0.113.7", &|_| false)[0].ends_with("provider None"));
        assert_eq!(
            tell("192.0.2.1", &|_| true),
            [
                "metric.all.match \"proto 17 dport 5060\" everywhere None",
                "metric.all.packets_per_sec \"auto\" everywhere None",
            ]
        );
    }

    #[test]
    fn each_value_is_told_with_whose_word_it_is() {
        let group = |name: &str, net: &str| PolicyGroup {
            name: name.to_owned(),
            prefixes: FromIterator::from_iter([net.parse().unwrap()]),
            ..PolicyGroup::default()
        };
        let inbound = Inbound {
            multiplier: Some(4.0),
            bits_per_sec: Some(Threshold::Off),
            ..Inbound::default()
        };
        let inventory = Inventory::default().grouped(vec![
            PolicyGroup {
                mode: Some(Mode::Auto),
                inbound: Some(Box::new(inbound)),
                tags: [("queue".to_owned(), "noc".to_owned())].into(),
                ..group("reseller", "203.0.113.0/24")
            },
            PolicyGroup { mode: Some(Mode::Observe), ..group("acme", "203.0.113.0/28") },
        ]);
        let baselines = [
            baseline(Metric::PacketsPerSec, 7.0, "operator"),
            baseline(Metric::BitsPerSec, 8.0, "group-off"),
            baseline(Metric::SynsPerSec, 9.0, "group"),
        ];
        let tell = |address: &str, shown: Shown<'_>| {
            let address = address.parse().unwrap();
            let view = View::new(&inventory, Mode::Approve, address, &baselines, shown);
            let line =
                |v: &PolicyValue| format!("{} {} {} {:?}", v.key, v.value, v.source, v.in_force);
            (view.groups.join(" "), view.values.iter().map(line).collect::<Vec<_>>())
        };
        let (groups, values) = tell("203.0.113.7", &|_| true);
        assert_eq!(groups, "acme reseller");
        assert_eq!(values[0], "mode \"observe\" acme None");
        assert_eq!(values[2], "learning \"on\" everywhere None");
        assert_eq!(values[3], "inbound.packets_per_sec 7.0 operator Some(7.0)");
        assert_eq!(values[4], "inbound.bits_per_sec \"off\" reseller None");
        assert_eq!(values[5], "inbound.syns_per_sec {\"multiplier\":4.0} reseller Some(9.0)");
        assert_eq!(values[12], "outbound.packets_per_sec \"auto\" everywhere None");
        assert_eq!(values[15], "tags.queue \"noc\" reseller None");
        let (groups, values) = tell("203.0.113.7", &|group| group.name == "acme");
        assert_eq!((groups.as_str(), values.len()), ("acme", 15), "a tenant is not told of others");
        assert_eq!(values[4], "inbound.bits_per_sec \"off\" provider None");
        let (groups, values) = tell("203.0.113.99", &|_| true);
        assert_eq!(groups, "reseller");
        assert_eq!(values[0], "mode \"approve\" everywhere None", "no further than everywhere");
    }
}
