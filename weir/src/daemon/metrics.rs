//! Copies what weir counted into the metrics, once a second.

use std::collections::{BTreeMap, BTreeSet};

use weir_api::Metrics;
use weir_collector::{Counters, DecodeErrorKind};
use weir_model::{
    BfdState, ConditionKind, Family, IncidentState, Millis, Mitigation, MitigationState, Mode,
    PeerState, RpkiState, Rung, SamplingSource, Snapshot,
};

const STATES: [PeerState; 6] = [
    PeerState::Idle,
    PeerState::Connect,
    PeerState::Active,
    PeerState::OpenSent,
    PeerState::OpenConfirm,
    PeerState::Established,
];

pub(crate) fn update(
    metrics: &Metrics,
    snapshot: &Snapshot,
    counters: &BTreeMap<u16, Counters>,
    detector: &weir_detector::Counters,
    lost_slices: u64,
    shown: &mut BTreeSet<String>,
) {
    for (kind, value) in of_detector(detector) {
        Metrics::raise(&metrics.detector_events, &[kind], value);
    }
    exporters(metrics, snapshot);
    peers(metrics, snapshot, shown);
    uplinks(metrics, snapshot);
    for family in Family::ALL {
        let open = snapshot
            .incidents
            .iter()
            .filter(|i| i.state == IncidentState::Open && i.verdict.family == family)
            .count();
        metrics.incidents_open.with_label_values(&[family.id()]).set(count(open));
    }
    for mode in [Mode::Observe, Mode::Approve, Mode::Auto] {
        let is_it = snapshot.mode == mode;
        metrics.mode.with_label_values(&[mode.to_string().as_str()]).set(is_it.into());
    }
    let braked = snapshot.stance.as_ref().is_some_and(|stance| stance.brake);
    metrics.brake.with_label_values::<&str>(&[]).set(braked.into());
    for rung in Rung::ALL {
        let active = snapshot.desired.mitigations.iter().filter(|m| m.rung == rung).count();
        metrics.mitigations_active.with_label_values(&[rung.id()]).set(count(active));
    }
    let is_out = |m: &&Mitigation| {
        m.state == MitigationState::Active && m.note.starts_with(weir_mitigator::LEFT_OUT)
    };
    let left_out = snapshot.incidents.iter().flat_map(|i| &i.mitigations).filter(is_out).count();
    metrics.rules_left_out.with_label_values::<&str>(&[]).set(count(left_out));
    let mut events: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (kind, value) in counters.values().flat_map(named) {
        *events.entry(kind).or_default() += value;
    }
    for (kind, value) in events {
        Metrics::raise(&metrics.receive_events, &[kind], value);
    }
    Metrics::raise(&metrics.lost_slices, &[], lost_slices);
}

/// The detector's counters by the names they have as labels.
const fn of_detector(counters: &weir_detector::Counters) -> [(&'static str, u64); 14] {
    [
        ("cells", counters.cells),
        ("late", counters.late),
        ("hosts-over-limit", counters.hosts_refused),
        ("watched-hosts-over-limit", counters.warm_refused),
        ("profiles-over-limit", counters.profiles_refused),
        ("prefixes-over-limit", counters.prefixes_refused),
        ("own-metrics-over-limit", counters.metrics_refused),
        ("samples-over-limit", counters.samples_refused),
        ("alarms", counters.alarms),
        ("alarms-unconvincing", counters.alarms_unconvincing),
        ("alarms-deferred", counters.alarms_deferred),
        ("alarms-left-out", counters.alarms_left_out),
        ("incidents-over-limit", counters.incidents_refused),
        ("incidents", counters.incidents_opened),
    ]
}

/// A shard's counters by the names they have as labels.
fn named(counters: &Counters) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let errors = DecodeErrorKind::ALL.iter().zip(counters.errors).map(|(kind, n)| (kind.id(), n));
    [
        ("datagrams", counters.datagrams),
        ("unlisted", counters.unlisted),
        ("data-records", counters.data_records),
        ("option-records", counters.option_records),
        ("flow-samples", counters.flow_samples),
        ("counter-samples", counters.counter_samples),
        ("drop-samples", counters.drop_samples),
        ("not-traffic", counters.not_traffic),
        ("not-ip", counters.not_ip),
        ("unknown-template", counters.unknown_templates),
        ("duplicates", counters.duplicates),
        ("implausible", counters.implausible),
        ("implausible-times", counters.implausible_times),
        ("queue-drops", counters.queue_drops),
        ("replicated", counters.replicated),
        ("replicate-drops", counters.replicate_drops),
        ("refused-connections", counters.refused_connections),
        ("hosts-over-limit", counters.hosts_over_limit),
        ("long-flows-over-limit", counters.long_flows_over_limit),
        ("socket-drops", counters.socket_drops),
    ]
    .into_iter()
    .chain(errors)
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Counters that are known beforehand begin at 0: the first event of a kind is a rise, not a new series.
pub(crate) fn begin(metrics: &Metrics, started: Millis) {
    // weir does not start with a file that cannot be used.
    let none: [&str; 0] = [];
    metrics.reload_success.with_label_values(&none).set(1);
    metrics.reload_at.with_label_values(&none).set(seconds(started));
    for action in weir_model::ACTIONS {
        let _ = metrics.decisions.with_label_values(&[action]);
    }
    for family in Family::ALL {
        let _ = metrics.incidents_opened.with_label_values(&[family.id()]);
    }
    let _ = metrics.notify_requests.with_label_values(&["*", "dropped"]);
}

/// Takes the series of an exporter away that is no longer listed: nobody is to be woken for its silence.
pub(crate) fn forget_exporter(metrics: &Metrics, name: &str) {
    let counters = [
        &metrics.datagrams,
        &metrics.records,
        &metrics.lost,
        &metrics.unknown_templates,
        &metrics.decode_errors,
    ];
    // A series that was never made is gone already.
    for family in counters {
        let _ = family.remove_label_values(&[name]);
    }
    for family in [&metrics.sampling, &metrics.sampling_unknown] {
        let _ = family.remove_label_values(&[name]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of seconds")]
fn exporters(metrics: &Metrics, snapshot: &Snapshot) {
    for exporter in &snapshot.exporters {
        let label = [exporter.name.as_str()];
        Metrics::raise(&metrics.datagrams, &label, exporter.datagrams);
        Metrics::raise(&metrics.records, &label, exporter.records);
        Metrics::raise(&metrics.lost, &label, exporter.lost);
        Metrics::raise(&metrics.unknown_templates, &label, exporter.unknown_templates);
        Metrics::raise(&metrics.decode_errors, &label, exporter.decode_errors);
        metrics.sampling.with_label_values(&label).set(i64::from(exporter.sampling));
        let unknown = exporter.sampling_source == SamplingSource::Unknown;
        metrics.sampling_unknown.with_label_values(&label).set(i64::from(unknown));
        metrics.clock_skew.with_label_values(&label).set(exporter.clock_skew_ms as f64 / 1000.0);
        for interface in exporter.interfaces.iter().filter(|interface| interface.counted_in_bps > 0)
        {
            let index = interface.index.to_string();
            let label = [exporter.name.as_str(), index.as_str()];
            metrics
                .interface_counted
                .with_label_values(&label)
                .set(clamped(interface.counted_in_bps));
            metrics
                .interface_sampled
                .with_label_values(&label)
                .set(clamped(interface.sampled_in_bps));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "capacities are far below 2^52")]
fn uplinks(metrics: &Metrics, snapshot: &Snapshot) {
    for uplink in &snapshot.uplinks {
        let name = uplink.name.as_str();
        for (direction, rate) in
            [("inbound", uplink.inbound_bits_per_sec), ("outbound", uplink.outbound_bits_per_sec)]
        {
            metrics.uplink_bits.with_label_values(&[name, direction]).set(rate);
        }
        let capacity = uplink.capacity_bits_per_sec as f64;
        metrics.uplink_capacity.with_label_values(&[name]).set(capacity);
        metrics.uplink_known.with_label_values(&[name]).set(uplink.known.into());
    }
    for kind in ConditionKind::ALL {
        let number = snapshot.conditions.now.iter().filter(|c| c.kind == kind).count();
        metrics.conditions.with_label_values(&[kind.id()]).set(count(number));
    }
}

/// Takes the series of an uplink away that is no longer configured.
pub(crate) fn forget_uplink(metrics: &Metrics, name: &str) {
    // A series that was never made is gone already.
    for direction in ["inbound", "outbound"] {
        let _ = metrics.uplink_bits.remove_label_values(&[name, direction]);
    }
    let _ = metrics.uplink_capacity.remove_label_values(&[name]);
    let _ = metrics.uplink_known.remove_label_values(&[name]);
}

/// Takes the series of a peer away that is no longer configured.
fn forget_peer(metrics: &Metrics, name: &str) {
    // A series that was never made is gone already.
    for state in STATES {
        let _ = metrics.peer_state.remove_label_values(&[name, state.id()]);
    }
    for state in ["suspected", "banned"] {
        let _ = metrics.peer_doubts.remove_label_values(&[name, state]);
    }
    for family in [&metrics.peer_flaps, &metrics.peer_failures, &metrics.peer_bfd_lost] {
        let _ = family.remove_label_values(&[name]);
    }
    for family in [
        &metrics.peer_routes,
        &metrics.peer_kept_back,
        &metrics.peer_rpki_refused,
        &metrics.peer_rpki_lapsed,
        &metrics.peer_bfd,
    ] {
        let _ = family.remove_label_values(&[name]);
    }
}

/// `shown` are the peers that had series the last time.
fn peers(metrics: &Metrics, snapshot: &Snapshot, shown: &mut BTreeSet<String>) {
    let names: BTreeSet<String> = snapshot.peers.iter().map(|peer| peer.name.clone()).collect();
    shown.difference(&names).for_each(|name| forget_peer(metrics, name));
    *shown = names;
    for peer in &snapshot.peers {
        for state in STATES {
            let on = i64::from(peer.state == state);
            metrics.peer_state.with_label_values(&[peer.name.as_str(), state.id()]).set(on);
        }
        let label = [peer.name.as_str()];
        metrics.peer_routes.with_label_values(&label).set(i64::from(peer.announced));
        Metrics::raise(&metrics.peer_flaps, &label, peer.flaps);
        Metrics::raise(&metrics.peer_failures, &label, peer.failures);
        metrics.peer_kept_back.with_label_values(&label).set(i64::from(peer.kept_back));
        let doubts = [("suspected", &peer.standing.suspected), ("banned", &peer.standing.banned)];
        for (state, list) in doubts {
            let number = i64::try_from(list.len()).unwrap_or(i64::MAX);
            metrics.peer_doubts.with_label_values(&[peer.name.as_str(), state]).set(number);
        }
        if let Some(bfd) = &peer.bfd {
            metrics.peer_bfd.with_label_values(&label).set(i64::from(bfd.state == BfdState::Up));
            Metrics::raise(&metrics.peer_bfd_lost, &label, bfd.lost);
        } else {
            // It is not configured any more.
            let _ = metrics.peer_bfd.remove_label_values(&label);
        }
        if let Some(state) = peer.rpki {
            let refused = match state {
                RpkiState::Checking { refused } => refused,
                RpkiState::NoData | RpkiState::Lapsed => 0,
            };
            metrics.peer_rpki_refused.with_label_values(&label).set(i64::from(refused));
            let lapsed = i64::from(state == RpkiState::Lapsed);
            metrics.peer_rpki_lapsed.with_label_values(&label).set(lapsed);
        }
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(at: Millis) -> i64 {
    i64::try_from(at.0 / 1000).unwrap_or(i64::MAX)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
