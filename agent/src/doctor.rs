//! What keeps the agent from its work, and what stands beside it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use crate::config::{Config, Identity};
use crate::enforcer::nft::Nft;
use crate::eyes::host;

/// Addresses of this host's interfaces, without loopback and link-local ones.
///
/// # Errors
/// When the system does not say.
pub(crate) fn addresses() -> anyhow::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|i| {
            let address = i.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(|a| match a {
            IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
            IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Looks at everything and says how it is.
///
/// # Errors
/// When something needed is not there; with the whole list.
pub(crate) fn examine(config: &Config) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut bad = 0;
    let mut say = |good: bool, what: &str, detail: &str| {
        bad += usize::from(!good);
        let _ = writeln!(text, "{} {what}: {detail}", if good { "ok  " } else { "FAIL" });
    };
    match Identity::load(&config.state) {
        Ok(identity) => say(true, "joined", &format!("{} at {}", identity.node, identity.url)),
        Err(error) => say(false, "joined", &error.to_string()),
    }
    match version("nft", &["--version"]) {
        Some(version) => say(true, "nft", &version),
        None => say(false, "nft", "not installed: apt install nftables"),
    }
    match Nft::open() {
        Ok(_) => say(true, "nftables", "the kernel answers"),
        Err(error) => say(false, "nftables", &format!("{error}; CAP_NET_ADMIN is needed")),
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let interfaces =
        host::default_interfaces(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
    if interfaces.is_empty() && config.interfaces.is_empty() {
        say(false, "interfaces", "no default route: name them in the configuration to be sampled");
    } else {
        say(true, "interfaces", &[&interfaces[..], &config.interfaces].concat().join(", "));
    }
    for (path, wanted, why) in SYSCTLS {
        let is = read(&format!("/proc/sys/{}", path.replace('.', "/")));
        let is = is.trim();
        let good = is == wanted;
        let note = if is.is_empty() { "not there" } else { is };
        let hint = if good { String::new() } else { format!(" (hint: {wanted}, {why})") };
        say(true, path, &format!("{note}{hint}"));
    }
    for (name, path) in NEIGHBOURS {
        if Path::new(path).exists() {
            say(true, name, "is here; weir keeps to its own table, before that of others");
        }
    }
    if bad == 0 { Ok(text) } else { anyhow::bail!("{text}{bad} to be repaired") }
}

/// Settings that matter, what they should be, and for what.
const SYSCTLS: [(&str, &str, &str); 2] = [
    ("net.ipv4.tcp_syncookies", "1", "SYN floods"),
    ("net.netfilter.nf_conntrack_tcp_loose", "0", "syn-proxy rules"),
];

/// Other programs that write firewall rules, by what they leave on disk.
const NEIGHBOURS: [(&str, &str); 6] = [
    ("ufw", "/usr/sbin/ufw"),
    ("firewalld", "/usr/sbin/firewalld"),
    ("CSF", "/usr/sbin/csf"),
    ("Docker", "/usr/bin/dockerd"),
    ("fail2ban", "/usr/bin/fail2ban-server"),
    ("CrowdSec's bouncer", "/usr/bin/crowdsec-firewall-bouncer"),
];

fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned())
}
