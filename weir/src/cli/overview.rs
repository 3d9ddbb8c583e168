//! What is going on: status, hosts, exporters, peers.

use std::process::ExitCode;

use serde_json::Value;

use super::client::Client;
use super::output::{As, Column, Output, time};

/// Exit code when weir answers but something is wrong.
const DEGRADED: u8 = 3;

pub(super) const INCIDENTS: &[Column] = &[
    ("id", "/id", As::Text),
    ("state", "/state", As::Text),
    ("target", "/verdict/target", As::Text),
    ("family", "/verdict/family", As::Text),
    ("bit/s", "/verdict/rate/bits_per_sec", As::Number),
    ("peak bit/s", "/verdict/peak/bits_per_sec", As::Number),
    ("pkt/s", "/verdict/rate/packets_per_sec", As::Number),
    ("step", "/rung", As::Text),
    ("rules", "/mitigations", As::Count),
    ("opened", "/opened", As::Time),
];

pub(super) const HOSTS: &[Column] = &[
    ("host", "/host", As::Text),
    ("bit/s", "/now/bits_per_sec", As::Number),
    ("pkt/s", "/now/packets_per_sec", As::Number),
    ("peak bit/s", "/peak/bits_per_sec", As::Number),
    ("peak pkt/s", "/peak/packets_per_sec", As::Number),
];

/// What is wrong, a line each.
pub(super) fn troubles(status: &Value) -> Vec<String> {
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    let mut wrong = Vec::new();
    let mut check = |bad: u64, text: &str| {
        if bad > 0 {
            wrong.push(format!("{bad} {text}"));
        }
    };
    check(count("peers").saturating_sub(count("peers_up")), "BGP sessions are down");
    check(
        count("routes_banned"),
        "routes are not sent because a BGP peer rejects them (see weir bgp)",
    );
    check(
        count("rpki_refused"),
        "mitigations are refused by RPKI: another AS originates their target",
    );
    check(count("rpki_lapsed"), "BGP peers have no valid RPKI data: origins are not checked");
    check(count("exporters_silent"), "exporters are silent");
    check(count("exporters_without_sampling"), "exporters report no sampling rate");
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let text = |key: &str| condition[key].as_str().unwrap_or("?").to_owned();
        let since = time(&condition["since"]);
        let what = match condition["kind"].as_str() {
            Some("uplink-full") => "uplink is full",
            Some("total-exceeded") => "total is above its threshold",
            Some("traffic-vanished") => "traffic has vanished",
            Some("allow-list-waits") => "waits for approval",
            // Counted above; here is which, and since when.
            _ => "is silent",
        };
        wrong.push(format!("{}: {what} since {since}: {}", text("subject"), text("text")));
    }
    if status["stance"]["brake"] == true {
        wrong.push(format!(
            "{}: weir only observes until `weir mode auto` releases the brake",
            stance(status)
        ));
    }
    for trouble in status["store"].as_array().into_iter().flatten() {
        wrong.push(format!(
            "the {} cannot be written since {}: {}; {} records are waiting",
            match trouble["part"].as_str() {
                Some("audit") => "audit log",
                Some("history") => "history file",
                _ => "state file",
            },
            time(&trouble["since"]),
            trouble["error"].as_str().unwrap_or("?"),
            trouble["waiting"],
        ));
    }
    wrong
}

/// Who said so and when, of a mode that is not the configuration file's.
pub(super) fn stance(state: &Value) -> String {
    let stance = &state["stance"];
    let by = stance["by"].as_str().unwrap_or("?");
    let what = if stance["brake"] == true { "brake set" } else { "set" };
    format!("{what} by {by} at {}", time(&stance["at"]))
}

pub(super) fn summary(status: &Value) -> String {
    let stance = match &status["stance"] {
        Value::Null => String::new(),
        _ => format!(", {}", stance(status)),
    };
    let mut text = format!(
        "{}  mode {}{stance}\nincidents   {} open\nmitigations {} active, {} proposed\n\
         exporters   {} ok, {} silent\nBGP         {} of {} up\n",
        time(&status["at"]),
        status["mode"].as_str().unwrap_or("?"),
        status["incidents_open"],
        status["mitigations_active"],
        status["mitigations_proposed"],
        status["exporters_ok"],
        status["exporters_silent"],
        status["peers_up"],
        status["peers"],
    );
    for uplink in status["uplinks"].as_array().into_iter().flatten() {
        let rate = |key: &str| rate(uplink[key].as_f64().unwrap_or(0.0));
        let carries = if uplink["known"] == true {
            format!("{} in, {} out", rate("inbound_bits_per_sec"), rate("outbound_bits_per_sec"))
        } else {
            "not known: its exporter is silent".to_owned()
        };
        let name = uplink["name"].as_str().unwrap_or("?");
        let capacity = rate("capacity_bits_per_sec");
        text.push_str(&format!("uplink      {name}: {carries}, of {capacity}\n"));
    }
    for trouble in troubles(status) {
        text.push_str(&format!("! {trouble}\n"));
    }
    text
}

fn rate(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} Gbit/s", v / 1e9),
        v if v >= 1e6 => format!("{:.1} Mbit/s", v / 1e6),
        v => format!("{:.0} kbit/s", v / 1e3),
    }
}

pub(super) fn status(client: &Client, output: &Output) -> anyhow::Result<ExitCode> {
    let status = client.get("/api/v1/status")?;
    output.one(&status, &summary(&status))?;
    Ok(if troubles(&status).is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

pub(super) fn hosts(
    client: &Client,
    output: &Output,
    packets: bool,
    limit: u16,
) -> anyhow::Result<()> {
    let by = if packets { "packets" } else { "bits" };
    let list = client.get(&format!("/api/v1/hosts?by={by}&limit={limit}"))?;
    output.list(&list["hosts"], HOSTS)
}

pub(super) fn exporters(client: &Client, output: &Output) -> anyhow::Result<()> {
    let mut list = client.get("/api/v1/exporters")?;
    if output.is_text() {
        let names: Vec<(Value, Value)> = list["exporters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|exporter| (exporter["id"].clone(), exporter["name"].clone()))
            .collect();
        for exporter in list["exporters"].as_array_mut().into_iter().flatten() {
            exporter["drops"] = drops(&exporter["drops"]).into();
            let doubted = exporter["sampling_doubted"].as_u64().filter(|rate| *rate > 0);
            let said = doubted.map_or_else(String::new, |rate| format!(" (says 1:{rate})"));
            exporter["troubles"] = (troubles_of(&exporter["troubles"]) + &said).into();
            exporter["interfaces"] = interfaces(&exporter["interfaces"], &names).into();
        }
    }
    output.list(
        &list["exporters"],
        &[
            ("name", "/name", As::Text),
            ("address", "/address", As::Text),
            ("trouble", "/troubles", As::Text),
            ("protocol", "/protocol", As::Text),
            ("sampling", "/sampling", As::Text),
            ("from", "/sampling_source", As::Text),
            ("records", "/records", As::Number),
            ("lost", "/lost", As::Number),
            ("errors", "/decode_errors", As::Number),
            ("duplicates", "/duplicates", As::Number),
            ("drops", "/drops", As::Text),
            ("interfaces", "/interfaces", As::Text),
            ("templates", "/templates", As::Text),
            ("timeout ms", "/active_timeout_ms", As::Text),
            ("delay p50 ms", "/lag_p50_ms", As::Text),
            ("p99 ms", "/lag_ms", As::Text),
            ("skew ms", "/clock_skew_ms", As::Text),
            ("last seen", "/last_seen", As::Time),
        ],
    )
}

/// `3 transit-a 10 Gbit/s external, 7 internal repeats edge1`: interfaces of which something is known, with the
/// exporter whose packets each reports once more.
fn interfaces(interfaces: &Value, names: &[(Value, Value)]) -> String {
    let text = |interface: &Value| {
        let role = interface["role"].as_str().filter(|role| *role != "unknown");
        let by = names.iter().find(|(id, _)| *id == interface["repeats"]);
        let repeats = by.and_then(|(_, name)| name.as_str()).map(|name| format!("repeats {name}"));
        let text = |field: &str| interface[field].as_str().filter(|text| !text.is_empty());
        let name = text("name").or_else(|| text("description")).map(str::to_owned);
        let speed = interface["speed_bps"].as_u64().filter(|speed| *speed > 0).map(speed);
        let role = role.map(str::to_owned);
        let known = [name, speed, role, repeats].into_iter().flatten().collect::<Vec<_>>();
        (!known.is_empty()).then(|| format!("{} {}", interface["index"], known.join(" ")))
    };
    interfaces.as_array().into_iter().flatten().filter_map(text).collect::<Vec<_>>().join(", ")
}

/// `10 Gbit/s`.
fn speed(bps: u64) -> String {
    match bps {
        ..1_000_000_000 => format!("{} Mbit/s", bps / 1_000_000),
        bps if bps.is_multiple_of(1_000_000_000) => format!("{} Gbit/s", bps / 1_000_000_000),
        bps => format!("{}.{} Gbit/s", bps / 1_000_000_000, bps / 100_000_000 % 10),
    }
}

/// `clock-off, implausible`.
fn troubles_of(troubles: &Value) -> String {
    troubles
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// `bad-template 3, not-ip 17`.
fn drops(drops: &Value) -> String {
    let reason = |drop: &Value| {
        let reason = drop["reason"].as_str().unwrap_or_default();
        format!("{reason} {}", drop["count"])
    };
    drops.as_array().into_iter().flatten().map(reason).collect::<Vec<_>>().join(", ")
}

/// What to do with exporters.
#[derive(Debug, clap::Subcommand)]
pub enum Exporters {
    /// Forget templates, sampling rates, clocks and interfaces that were learned of an exporter, and of all
    /// agents behind its address
    Forget {
        /// Its name or address
        name: String,
    },
}

pub(super) fn forget(client: &Client, output: &Output, name: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/exporters/{}/forget", super::client::escape(name));
    let done = client.ask("POST", &path, None)?;
    output.one(&done, "forgotten: records wait for the next template")
}

/// What to do with BGP peers.
#[derive(Debug, clap::Subcommand)]
pub enum Bgp {
    /// Show the routes announced to a peer, and those withheld with the reason
    Show {
        /// Name of the peer in the configuration
        name: String,
    },
    /// Resend a route that is suspected or banned at a peer
    Lift {
        /// Name of the peer in the configuration
        name: String,
        /// Route id, as shown by `weir bgp show`
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        route: Option<String>,
        /// All routes; also forget the peer's learned limits
        #[arg(long)]
        all: bool,
    },
    /// Test a peer: connect, exchange OPEN messages, disconnect; exit code 3 if the session would fail
    Test {
        /// Name of the peer in the configuration
        name: String,
    },
}

pub(super) fn probe(client: &Client, output: &Output, name: &str) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/peers/{}/test", super::client::escape(name));
    let found = client.ask("POST", &path, None)?;
    output.one(&found, &probe_text(&found))?;
    let good = found["good"].as_bool().unwrap_or_default();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

fn probe_text(found: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let words = |value: &Value| {
        let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        list.collect::<Vec<_>>().join(", ")
    };
    let mut text =
        format!("{} {}: {}\n", word(&found["name"]), word(&found["to"]), word(&found["stage"]));
    if let Some(ms) = found["connect_ms"].as_u64() {
        text += &format!("  connected   in {ms} ms, from {}\n", word(&found["from"]));
    }
    if let Some(open) = found["open"].as_object() {
        text += &format!(
            "  peer        AS{}, identifier {}, hold time {} s\n",
            open["asn"],
            word(&open["id"]),
            open["hold_secs"]
        );
        text += &format!("  offers      {}\n", words(&open["families"]));
    }
    if !words(&found["families"]).is_empty() {
        text += &format!("  negotiated  {}\n", words(&found["families"]));
    }
    for finding in found["findings"].as_array().into_iter().flatten() {
        text += &format!("  {}\n", word(finding));
    }
    text.trim_end().to_owned()
}

pub(super) fn peers(client: &Client, output: &Output) -> anyhow::Result<()> {
    let mut list = client.get("/api/v1/peers")?;
    if output.is_text() {
        for peer in list["peers"].as_array_mut().into_iter().flatten() {
            peer["doubts"] = super::peer::doubts(peer).into();
        }
    }
    output.list(
        &list["peers"],
        &[
            ("name", "/name", As::Text),
            ("address", "/address", As::Text),
            ("as", "/asn", As::Text),
            ("state", "/state", As::Text),
            ("since", "/since", As::Time),
            ("families", "/families", As::Text),
            ("routes", "/announced", As::Text),
            ("withheld", "/doubts", As::Text),
            ("flaps", "/flaps", As::Text),
            ("last error", "/last_error", As::Text),
        ],
    )
}
