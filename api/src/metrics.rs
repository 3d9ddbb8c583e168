//! The one place that names the metrics library, and every metric weir has.
//!
//! Base units, `_total` on counters, labels from closed sets, never an address of the attacked. Parts
//! of weir count locally; once a second the daemon copies their totals here.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder,
};

pub use prometheus::IntGaugeVec;

macro_rules! families {
    ($( $(#[doc = $doc:literal])* $field:ident: $kind:ident, $name:literal, [$($label:literal),*]; )*) => {
        /// Every metric family.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// Seconds from a slice's end to the core's verdict on it.
            pub verdict_seconds: Histogram,
            $( $(#[doc = $doc])* pub $field: $kind, )*
        }

        /// Name, help and labels of every labelled family, for the manual and the tests.
        pub const FAMILIES: &[(&str, &str, &[&str])] =
            &[$( ($name, concat!($($doc),*), &[$($label),*]), )*];

        impl Metrics {
            /// All families at zero.
            ///
            /// # Panics
            /// Never: names are distinct and valid, which a test checks.
            pub fn new() -> Self {
                let registry = Registry::new();
                let verdict_seconds = Histogram::with_opts(
                    HistogramOpts::new(
                        "weir_core_verdict_seconds",
                        "Seconds from a slice's end to the core's verdict on it.",
                    )
                    .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]),
                )
                .expect("the name is valid");
                register(&registry, &verdict_seconds);
                $(
                    let help = concat!($($doc),*).trim();
                    let $field = $kind::new(Opts::new($name, help), &[$($label),*])
                        .expect("the name is valid");
                    register(&registry, &$field);
                    // A family without labels is there from the start, so that its first event is a rise.
                    let labels: &[&str] = &[$($label),*];
                    if labels.is_empty() {
                        let _ = $field.with_label_values(labels);
                    }
                )*
                Self { registry, verdict_seconds, $($field),* }
            }
        }
    };
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: &C) {
    registry.register(Box::new(family.clone())).expect("names are distinct");
}

families! {
    /// Flow datagrams accepted, by exporter.
    datagrams: IntCounterVec, "weir_collector_datagrams_total", ["exporter"];
    /// Flow records and packet samples decoded, by exporter.
    records: IntCounterVec, "weir_collector_records_total", ["exporter"];
    /// Records or datagrams missing by sequence number, by exporter.
    lost: IntCounterVec, "weir_collector_lost_total", ["exporter"];
    /// Data sets whose template is unknown, by exporter.
    unknown_templates: IntCounterVec, "weir_collector_unknown_templates_total", ["exporter"];
    /// Datagrams or sets that could not be read in full, by exporter.
    decode_errors: IntCounterVec, "weir_collector_decode_errors_total", ["exporter"];
    /// Sampling rate last applied: one in so many packets, by exporter.
    sampling: IntGaugeVec, "weir_collector_sampling_packets", ["exporter"];
    /// Whether the exporter's sampling rate is unknown (1) or known (0).
    sampling_unknown: IntGaugeVec, "weir_collector_sampling_unknown", ["exporter"];
    /// Exporter's clock minus weir's, seconds, of the observation domain furthest off.
    clock_skew: GaugeVec, "weir_collector_clock_skew_seconds", ["exporter"];
    /// Received by an interface according to its counters, bits a second.
    interface_counted: IntGaugeVec, "weir_collector_interface_counted_bits_per_second", ["exporter", "interface"];
    /// Received by an interface according to its samples, bits a second: far from what its counters say,
    /// the sampling rate is not what it is taken for, or samples are lost.
    interface_sampled: IntGaugeVec, "weir_collector_interface_sampled_bits_per_second", ["exporter", "interface"];
    /// What the receive path counted, by kind (closed set).
    receive_events: IntCounterVec, "weir_collector_events_total", ["kind"];
    /// What the detector counted, limits that were hit above all, by kind (closed set).
    detector_events: IntCounterVec, "weir_detector_events_total", ["kind"];
    /// Slices dropped because the core was slow.
    lost_slices: IntCounterVec, "weir_core_lost_slices_total", [];
    /// Open incidents by family.
    incidents_open: IntGaugeVec, "weir_core_incidents_open", ["family"];
    /// Incidents opened since the start, by family at opening.
    incidents_opened: IntCounterVec, "weir_core_incidents_opened_total", ["family"];
    /// Decisions taken, by action (closed set).
    decisions: IntCounterVec, "weir_core_decisions_total", ["action"];
    /// Mitigations desired now, by rung.
    mitigations_active: IntGaugeVec, "weir_mitigator_mitigations_active", ["rung"];
    /// Active FlowSpec rules that no router gets because all are full.
    rules_left_out: IntGaugeVec, "weir_mitigator_rules_left_out", [];
    /// How far weir acts by itself, 1 for the mode it is in.
    mode: IntGaugeVec, "weir_mitigator_mode", ["mode"];
    /// Whether the brake holds (1): somebody withdrew everything, and weir only observes.
    brake: IntGaugeVec, "weir_mitigator_brake", [];
    /// BGP session state, 1 for the state it is in.
    peer_state: IntGaugeVec, "weir_bgp_peer_state", ["peer", "state"];
    /// Routes on the wire, by peer.
    peer_routes: IntGaugeVec, "weir_bgp_peer_routes", ["peer"];
    /// Attempts to bring a session up that failed since the start, by peer.
    peer_failures: IntCounterVec, "weir_bgp_peer_failures_total", ["peer"];
    /// Measures that are wanted and kept from the peer, for whatever reason.
    peer_kept_back: IntGaugeVec, "weir_bgp_peer_kept_back", ["peer"];
    /// Routes suspected or banned because of how sessions ended, by peer.
    peer_doubts: IntGaugeVec, "weir_bgp_peer_doubts", ["peer", "state"];
    /// Measures kept from the peer because another AS is the origin of their target.
    peer_rpki_refused: IntGaugeVec, "weir_bgp_peer_rpki_refused", ["peer"];
    /// Whether the peer's RPKI data has become too old to be used.
    peer_rpki_lapsed: IntGaugeVec, "weir_bgp_peer_rpki_lapsed", ["peer"];
    /// Whether the BFD session with the peer is up (1) or not (0), where one is configured.
    peer_bfd: IntGaugeVec, "weir_bgp_peer_bfd_up", ["peer"];
    /// How often BFD has found the path to the peer dead since the start.
    peer_bfd_lost: IntCounterVec, "weir_bgp_peer_bfd_lost_total", ["peer"];
    /// Sessions lost since the start, by peer.
    peer_flaps: IntCounterVec, "weir_bgp_peer_flaps_total", ["peer"];
    /// Whether the last complete read of a panel was the last tried (1) or not (0), by panel.
    panel_up: IntGaugeVec, "weir_panel_up", ["panel"];
    /// Time of the last complete read, seconds since 1970, by panel.
    panel_success: IntGaugeVec, "weir_panel_last_success_timestamp_seconds", ["panel"];
    /// Ports on the wire, by panel.
    panel_ports: IntGaugeVec, "weir_panel_ports", ["panel"];
    /// Allocations without an address on the wire, by panel.
    panel_unmapped: IntGaugeVec, "weir_panel_unmapped", ["panel"];
    /// Ports that vanished at once and are held, by panel.
    panel_held: IntGaugeVec, "weir_panel_held", ["panel"];
    /// Requests sent to a panel, by panel.
    panel_requests: IntCounterVec, "weir_panel_requests_total", ["panel"];
    /// Requests to webhooks and scrubbing services, by receiver and what became of them: taken, failed,
    /// dropped.
    notify_requests: IntCounterVec, "weir_notify_requests_total", ["to", "outcome"];
    /// Whether a node's agent said something lately (1) or not (0).
    agent_up: IntGaugeVec, "weir_agent_up", ["node"];
    /// Rules on a node by state (closed set).
    agent_rules: IntGaugeVec, "weir_agent_rules", ["node", "state"];
    /// A node's level of defence, 1 for the level it is at.
    agent_level: IntGaugeVec, "weir_agent_level", ["node", "level"];
    /// Share of the last 10 s in which some task on a node waited, by what for, 0-1.
    agent_pressure: GaugeVec, "weir_agent_pressure_ratio", ["node", "resource"];
    /// Share of a node's connection table in use, 0-1.
    agent_conntrack: GaugeVec, "weir_agent_conntrack_ratio", ["node"];
    /// Packets that the rules in force on a node have discarded so far.
    agent_dropped: IntGaugeVec, "weir_agent_dropped_packets", ["node"];
    /// Whether the configuration file could be used when it was last read (1) or not (0).
    reload_success: IntGaugeVec, "weir_config_last_reload_successful", [];
    /// When the configuration file was last read with success, seconds since 1970.
    reload_at: IntGaugeVec, "weir_config_last_reload_success_timestamp_seconds", [];
    /// Store writes that failed.
    store_errors: IntCounterVec, "weir_store_errors_total", [];
    /// Layer-3 bits a second that an uplink carries, by direction (closed set), over the last ten seconds.
    uplink_bits: GaugeVec, "weir_uplink_bits_per_second", ["uplink", "direction"];
    /// Bits a second that an uplink carries at most in each direction.
    uplink_capacity: GaugeVec, "weir_uplink_capacity_bits_per_second", ["uplink"];
    /// Whether the exporter of an uplink tells of it at present (1) or nothing is known of it (0).
    uplink_known: IntGaugeVec, "weir_uplink_known", ["uplink"];
    /// What is wrong beside attacks, by kind (closed set): exporters and uplinks.
    conditions: IntGaugeVec, "weir_conditions", ["kind"];
    /// Prefixes of an allow list in force.
    allow_prefixes: IntGaugeVec, "weir_allow_prefixes", ["list"];
    /// Whether a change of an allow list waits for approval (1) or none does (0).
    allow_pending: IntGaugeVec, "weir_allow_pending", ["list"];
    /// When the file or URL of an allow list was last read with success, seconds since 1970; 0 before.
    allow_read: IntGaugeVec, "weir_allow_last_success_timestamp_seconds", ["list"];
    /// Reads of an allow list that failed since the start.
    allow_failures: IntCounterVec, "weir_allow_failures_total", ["list"];
    /// Whether a part of the store refuses what it is given (1) or takes it (0), by part (closed set).
    store_failing: IntGaugeVec, "weir_store_failing", ["part"];
    /// Records that wait in memory until the store takes them, by part (closed set).
    store_waiting: IntGaugeVec, "weir_store_waiting_records", ["part"];
    /// Version of this build, always 1.
    build_info: GaugeVec, "weir_build_info", ["version"];
}

impl Metrics {
    /// Text exposition format 0.0.4.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8(out).unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be rendered");
                String::new()
            }
        }
    }

    /// Raises a counter to a total that is counted elsewhere; never lowers it.
    pub fn raise(family: &IntCounterVec, labels: &[&str], total: u64) {
        let counter = family.with_label_values(labels);
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_follows_the_naming_rules() {
        let metrics = Metrics::new();
        metrics.build_info.with_label_values(&["test"]).set(1.0);
        assert!(metrics.render().contains("weir_build_info{version=\"test\"} 1"));
        for (name, help, labels) in FAMILIES {
            assert!(name.starts_with("weir_"), "{name}");
            assert!(help.trim().ends_with('.'), "{name}: {help}");
            assert!(!labels.contains(&"address") && !labels.contains(&"target"), "{name}");
        }
    }

    #[test]
    fn what_has_no_labels_begins_at_zero() {
        let text = Metrics::new().render();
        for name in ["weir_store_errors_total", "weir_core_lost_slices_total"] {
            assert!(text.contains(&format!("\n{name} 0\n")), "{name}: {text}");
        }
    }

    #[test]
    fn raising_never_lowers() {
        let metrics = Metrics::new();
        Metrics::raise(&metrics.store_errors, &[], 5);
        Metrics::raise(&metrics.store_errors, &[], 3);
        assert!(metrics.render().contains("weir_store_errors_total 5"));
    }
}
