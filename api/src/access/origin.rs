//! Where a request comes from: the client behind a proxy, a page of another site, a program on this
//! machine.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use ipnet::IpNet;

use super::Permission;
use crate::app::App;
use crate::problem::Problem;
use crate::server::Peer;

/// Header that a page of another site cannot send without a preflight, which is never granted.
pub(crate) const REQUEST_HEADER: &str = "x-weir-request";

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address: the peer's, or behind named proxies what the last of them saw.
pub(crate) fn client(parts: &Parts, app: &App) -> IpAddr {
    let peer = Peer::of(parts);
    let mut address = peer.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let config = app.config();
    let proxies = &config.trusted_proxies;
    // Proxies append: the entries before the first one that no named proxy wrote are the client's
    // own words.
    let forwarded = parts.headers.get_all(FORWARDED_FOR).into_iter().collect::<Vec<_>>();
    for entry in forwarded
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .rev()
    {
        if !proxies.contains(&address) {
            break;
        }
        match entry.trim().parse() {
            Ok(named) => address = named,
            Err(_) => break,
        }
    }
    address
}

/// A request that changes something and proves itself by a cookie alone must come from weir's own page.
pub(crate) fn check_cross_site(parts: &Parts, app: &App) -> Result<(), Problem> {
    if parts.method.is_safe() {
        return Ok(());
    }
    check_unauthenticated(parts, app)
}

/// The same for signing in and first set-up, where another site could otherwise make a browser sign in
/// under a name of its own choice.
pub(crate) fn check_unauthenticated(parts: &Parts, _app: &App) -> Result<(), Problem> {
    if parts.method.is_safe() || Peer::of(parts).local.is_some() {
        return Ok(());
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let refused = |why: &str| Err(Problem::forbidden(format!("cross-site request: {why}")));
    match header("sec-fetch-site") {
        None | Some("same-origin") => {}
        Some(other) => return refused(&format!("Sec-Fetch-Site is {other}")),
    }
    if let Some(origin) = header("origin") {
        let host = header("host").unwrap_or_default();
        let named = origin.split_once("://").map_or("", |(_, rest)| rest);
        if named.is_empty() || !named.eq_ignore_ascii_case(host) {
            return refused("Origin is not this server");
        }
    }
    if header(REQUEST_HEADER).is_none() {
        return refused("the header X-Weir-Request is missing");
    }
    Ok(())
}

/// Whether a request without any account is a reader on this machine who may read.
pub(crate) fn is_local_reader(parts: &Parts, app: &App, wanted: Option<Permission>) -> bool {
    let peer = Peer::of(parts);
    let Some(address) = peer.address else { return false };
    if !parts.method.is_safe() || came_through_a_proxy(&parts.headers) {
        return false;
    }
    let config = app.config();
    let named = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
    if wanted == Some(Permission::ReadMetrics) && named(&config.metrics_from) {
        return true;
    }
    let reads = wanted.is_some_and(|permission| permission.of_role(weir_model::Role::Readonly));
    // The Host header stops a page elsewhere that made its own name resolve to 127.0.0.1.
    config.loopback_readonly && reads && address.is_loopback() && host_is_local(&parts.headers)
}

fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    [FORWARDED_FOR, "forwarded", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

fn host_is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Peers that reach a plain socket beyond loopback without being a named proxy are turned away: what they
/// send and what they would get is open to anybody on the way.
pub(crate) fn check_transport(parts: &Parts, app: &App) -> Result<(), Problem> {
    let peer = Peer::of(parts);
    let config = app.config();
    let proxies = &config.trusted_proxies;
    match peer.address {
        Some(address) if !peer.tls && !address.is_loopback() && !proxies.contains(&address) => {
            Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "plain HTTP is for loopback and named proxies only",
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        let check = |host: &str, local| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(host_is_local(&headers), local, "{host}");
        };
        check("127.0.0.1:8080", true);
        check("[::1]:8080", true);
        check("localhost", true);
        check("evil.example:8080", false);
        check("127.0.0.1.evil.example", false);
        assert!(!host_is_local(&HeaderMap::new()));
    }
}
