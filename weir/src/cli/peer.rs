//! One BGP peer: what it has, what is held against routes, and an end to that.

use serde_json::{Value, json};
use weir_model::{BfdStatus, KeptBack, PeerRoutes, RouteDoubt, RpkiState};

use super::client::{Client, escape};
use super::output::Output;

/// Shows what a peer has, and what it has not and why.
pub(super) fn show(client: &Client, output: &Output, name: &str) -> anyhow::Result<()> {
    let found = client.get(&format!("/api/v1/peers/{}", escape(name)))?;
    let routes: PeerRoutes = serde_json::from_value(found.clone())?;
    output.one(&found, &text(&routes))
}

/// Has routes sent again that are suspected or banned.
pub(super) fn lift(
    client: &Client,
    output: &Output,
    name: &str,
    route: Option<&str>,
) -> anyhow::Result<()> {
    let path = format!("/api/v1/peers/{}/lift", escape(name));
    let done = client.ask("POST", &path, Some(&json!({ "route": route })))?;
    let what = route.map_or_else(|| "all routes".to_owned(), |id| format!("route {id}"));
    output.one(&done, &format!("{name}: {what} resent"))
}

/// What BFD finds, in a line.
fn path(bfd: &BfdStatus) -> String {
    let mut text = format!("{} since {}", bfd.state, bfd.since);
    if let Some(ms) = bfd.detection_ms {
        text += &format!(", detection time {ms} ms");
    }
    if let Some(why) = &bfd.diagnostic {
        text += &format!(", lost {}, last: {why}", bfd.lost);
    }
    if let Some(error) = &bfd.error {
        text += &format!("; {error}");
    }
    text
}

fn text(routes: &PeerRoutes) -> String {
    let peer = &routes.peer;
    let mut text = format!(
        "{} {} AS{}: {} since {}\n",
        peer.name,
        peer.address,
        peer.asn,
        peer.state.id(),
        peer.since
    );
    if !peer.families.is_empty() {
        text += &format!("  families    {}\n", peer.families.join(", "));
    }
    if let Some(error) = &peer.last_error {
        text += &format!("  last error  {error}\n");
    }
    if let Some(bfd) = &peer.bfd {
        text += &format!("  BFD         {}\n", path(bfd));
    }
    match peer.rpki {
        None => {}
        Some(RpkiState::Checking { refused }) => {
            text += &format!("  RPKI        origins are checked, {refused} mitigations refused\n");
        }
        Some(RpkiState::NoData) => text += "  RPKI        no data yet: origins are not checked\n",
        Some(RpkiState::Lapsed) => {
            text += "  RPKI        data too old: origins are not checked\n";
        }
    }
    for limit in &peer.standing.limits {
        let how = if limit.said { "announced by the peer" } else { "learned" };
        let (family, number) = (&limit.family, limit.routes);
        text +=
            &format!("  limit       {number} routes of {family}, {how}, until {}\n", limit.until);
    }
    text += &format!("announced   {}\n", routes.announced.len());
    for measure in &routes.announced {
        text += &format!("  {measure}\n");
    }
    text += &section("suspected", &peer.standing.suspected);
    text += &section("banned", &peer.standing.banned);
    if !routes.kept_back.is_empty() {
        text += &format!("withheld    {}\n", routes.kept_back.len());
    }
    for KeptBack { measure, why } in &routes.kept_back {
        text += &format!("  {measure}\n    {why}\n");
    }
    text.trim_end().to_owned()
}

fn section(title: &str, doubts: &[RouteDoubt]) -> String {
    if doubts.is_empty() {
        return String::new();
    }
    let mut text = format!("{title:<11} {}\n", doubts.len());
    for doubt in doubts {
        text += &format!("  {}  {}\n", doubt.id, doubt.measure);
        text += &format!("    {}; since {}, until {}\n", doubt.why, doubt.since, doubt.until);
    }
    text
}

/// What a row of the list of peers says of conclusions.
pub(super) fn doubts(peer: &Value) -> String {
    let count = |name: &str| peer["standing"][name].as_array().map_or(0, Vec::len);
    let kept_back = peer["kept_back"].as_u64().unwrap_or(0);
    let words = [
        (kept_back, "withheld"),
        (count("suspected") as u64, "suspected"),
        (count("banned") as u64, "banned"),
    ];
    let words = words.into_iter().filter(|(number, _)| *number > 0);
    words.map(|(number, what)| format!("{number} {what}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use weir_model::{BfdState, Measure, Millis, PeerLimit, PeerStanding, PeerState, PeerStatus};

    use super::*;

    #[test]
    fn a_peer_reads_like_a_page() {
        let hole = |host: u8| Measure::Blackhole(format!("203.0.113.{host}/32").parse().unwrap());
        let (since, until) = (Millis::from_secs(1_800_000_000), Millis::from_secs(1_800_000_900));
        let routes = PeerRoutes {
            peer: PeerStatus {
                name: "edge".into(),
                address: "192.0.2.1".parse().unwrap(),
                asn: 65020,
                state: PeerState::Established,
                since,
                families: vec!["ipv4-unicast".into()],
                announced: 1,
                flaps: 1,
                failures: 0,
                last_error: Some("peer sent NOTIFICATION 3/9 optional attribute error".into()),
                kept_back: 1,
                rpki: Some(RpkiState::Checking { refused: 0 }),
                standing: PeerStanding {
                    suspected: Vec::new(),
                    banned: vec![RouteDoubt {
                        id: "00c0ffee".into(),
                        measure: hole(9),
                        why: "the peer ended the session over it".into(),
                        since,
                        until,
                        offences: 1,
                    }],
                    limits: vec![PeerLimit {
                        family: "ipv4-unicast".into(),
                        routes: 3,
                        said: true,
                        since,
                        until,
                    }],
                },
                bfd: Some(BfdStatus {
                    state: BfdState::Up,
                    since,
                    detection_ms: Some(900),
                    lost: 1,
                    diagnostic: Some("control detection time expired".into()),
                    error: None,
                }),
            },
            announced: vec![hole(7)],
            kept_back: vec![KeptBack { measure: hole(9), why: "not sent for now".into() }],
        };
        let (since, until) = (since.to_string(), until.to_string());
        assert_eq!(
            text(&routes),
            format!(
                "edge 192.0.2.1 AS65020: established since {since}\n  \
                 families    ipv4-unicast\n  \
                 last error  peer sent NOTIFICATION 3/9 optional attribute error\n  \
                 BFD         up since {since}, detection time 900 ms, lost 1, last: control detection time \
                 expired\n  \
                 RPKI        origins are checked, 0 mitigations refused\n  \
                 limit       3 routes of ipv4-unicast, announced by the peer, until {until}\n\
                 announced   1\n  blackhole 203.0.113.7/32\n\
                 banned      1\n  00c0ffee  blackhole 203.0.113.9/32\n    \
                 the peer ended the session over it; since {since}, until {until}\n\
                 withheld    1\n  blackhole 203.0.113.9/32\n    not sent for now"
            )
        );
        let row = doubts(&serde_json::to_value(&routes.peer).unwrap());
        assert_eq!(row, "1 withheld, 1 banned");
    }
}
