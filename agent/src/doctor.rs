//! What keeps the agent from its work, and what stands beside it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use crate::config::{Config, Identity};
use crate::daemon::Status;
use crate::enforcer;
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

/// Looks at everything and says how it is. `running` is what the running agent says of itself.
///
/// # Errors
/// When something needed is not there; with the whole list.
pub(crate) fn examine(config: &Config, running: Option<&Status>) -> anyhow::Result<String> {
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
    match running.map(|status| status.link.as_deref()) {
        Some(None) => say(true, "appliance", "connected"),
        Some(Some(why)) => say(false, "appliance", &format!("not connected: {why}")),
        None => say(true, "appliance", "no agent is running"),
    }
    if let Some(why) = running.and_then(|status| status.not_taken.as_ref()) {
        say(false, "rules", &format!("the appliance's last document was not taken: {why}"));
    }
    match version("nft", &["--version"]) {
        Some(version) => say(true, "nft", &version),
        None => say(true, "nft", "not installed (hint: apt install nftables)"),
    }
    match enforcer::open(config.backend) {
        Ok(enforcer) => say(true, "rules", &format!("put in force by {}", enforcer.name())),
        Err(error) => say(false, "rules", &format!("{error}; CAP_NET_ADMIN is needed")),
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
    for neighbour in neighbours(Path::new("/")) {
        say(true, "beside", &neighbour);
    }
    if bad == 0 { Ok(text) } else { anyhow::bail!("{text}{bad} to be repaired") }
}

/// Settings that matter, what they should be, and for what.
const SYSCTLS: [(&str, &str, &str); 2] = [
    ("net.ipv4.tcp_syncookies", "1", "SYN floods"),
    ("net.netfilter.nf_conntrack_tcp_loose", "0", "syn-proxy rules"),
];

/// Another program that writes firewall rules.
struct Neighbour {
    name: &'static str,
    /// It is installed when this is there.
    program: &'static str,
    /// It is at work when this is there, and holds the text if there is one.
    sign: (&'static str, &'static str),
    /// What is to be known.
    note: &'static str,
}

const NEIGHBOURS: [Neighbour; 6] = [
    Neighbour {
        name: "ufw",
        program: "usr/sbin/ufw",
        sign: ("etc/ufw/ufw.conf", "ENABLED=yes"),
        note: "what it lets in or not is decided behind weir's table",
    },
    Neighbour {
        name: "firewalld",
        program: "usr/sbin/firewalld",
        sign: ("run/firewalld.pid", ""),
        note: "keeps to its own table; a reload leaves weir's alone",
    },
    Neighbour {
        name: "CSF",
        program: "usr/sbin/csf",
        sign: ("etc/csf/csf.conf", "TESTING = \"0\""),
        note: "flushes iptables when it restarts: weir's nftables table stays, its iptables chain is put back",
    },
    Neighbour {
        name: "Docker",
        program: "usr/bin/dockerd",
        sign: ("run/docker.sock", ""),
        note: "its NAT comes after weir's table",
    },
    Neighbour {
        name: "fail2ban",
        program: "usr/bin/fail2ban-server",
        sign: ("run/fail2ban/fail2ban.sock", ""),
        note: "bans in INPUT, which published container ports do not pass",
    },
    Neighbour {
        name: "CrowdSec's bouncer",
        program: "usr/bin/crowdsec-firewall-bouncer",
        sign: ("run/crowdsec-firewall-bouncer.pid", ""),
        note: "may read weir's decisions",
    },
];

/// Other programs that write firewall rules on a host with this root, in a sentence each.
pub(crate) fn neighbours(root: &Path) -> Vec<String> {
    let there = NEIGHBOURS.iter().filter(|n| root.join(n.program).exists());
    let sentence = |n: &Neighbour| {
        let (path, text) = n.sign;
        let path = root.join(path);
        let active = if text.is_empty() {
            path.exists()
        } else {
            std::fs::read_to_string(path).is_ok_and(|t| t.contains(text))
        };
        let state = if active { "at work" } else { "installed" };
        format!("{} is {state}: {}", n.name, n.note)
    };
    there.map(sentence).collect()
}

fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_found_by_what_they_leave_on_disk() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(neighbours(root.path()), Vec::<String>::new());
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("usr/sbin/ufw", "");
        write("usr/sbin/firewalld", "");
        write("run/firewalld.pid", "1");
        write("usr/sbin/csf", "");
        write("etc/csf/csf.conf", "TESTING = \"1\"");
        write("etc/ufw/ufw.conf", "ENABLED=yes\n");
        let found = neighbours(root.path());
        assert_eq!(found.len(), 3);
        assert!(found[0].starts_with("ufw is at work"), "{found:?}");
        assert!(found[1].starts_with("firewalld is at work"), "{found:?}");
        assert!(found[2].starts_with("CSF is installed"), "{found:?}");
    }
}
