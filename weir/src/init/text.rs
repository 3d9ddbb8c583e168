//! The file that `weir init` writes, and the words that follow it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use weir_model::IpNet;

use super::{Answers, Tls};

/// A configuration with comments.
pub(super) fn configuration(answers: &Answers) -> String {
    let mut text = String::from(
        "# weir's configuration, written by `weir init`.\n\
         #\n\
         # Check an edited file:      weir check\n\
         # See every default:         weir check --dump\n\
         # Apply it while weir runs:  systemctl reload weir\n\
         # Every setting explained:   docs/reference/configuration.md\n\n",
    );
    protect(&mut text, answers);
    collector(&mut text, answers);
    let _ = write!(
        text,
        "[mitigator]\n\
         # observe: detect and report; announce nothing.\n\
         # approve: propose mitigations; announce those that a person approves.\n\
         # auto:    announce mitigations within the limits of [guard].\n\
         mode = \"{}\"\n\n",
        answers.mode.id()
    );
    bgp(&mut text, answers);
    api(&mut text, answers);
    text.push_str(
        "[store]\n\
         # Incidents, accounts, audit log and learned state; `weir backup` copies it while weir runs.\n\
         path = \"/var/lib/weir/state.db\"\n",
    );
    text
}

fn protect(text: &mut String, answers: &Answers) {
    let own = [
        answers.exporters.iter().map(|exporter| exporter.address).collect::<Vec<_>>(),
        answers.peer.iter().flat_map(|(peer, id)| [peer.address, IpAddr::V4(*id)]).collect(),
    ]
    .concat();
    let mut spared: Vec<IpNet> = own
        .into_iter()
        .filter(|address| answers.prefixes.iter().any(|net| net.contains(address)))
        .map(IpNet::from)
        .collect();
    spared.sort();
    spared.dedup();
    let _ = write!(
        text,
        "[protect]\n\
         # weir watches these prefixes and never announces anything outside them.\n\
         prefixes = {}\n\
         # Prefixes set at run time (dashboard, API) must lie in these; not set: any network no wider than a /8.\n\
         #ceiling = {}\n\
         # weir never announces anything for these: routers, resolvers, monitoring, weir itself.\n\
         never_touch = {}\n\n\
         # A declared service has a baseline of its own, and rules spare it.\n\
         #[[protect.service]]\n\
         #address = \"203.0.113.7\"\n\
         #port = 25565\n\
         #protocol = \"tcp\"        # tcp, udp or both\n\
         #name = \"lobby\"\n\
         #game = \"Minecraft\"\n\n",
        quoted(&answers.prefixes),
        quoted(&answers.prefixes),
        quoted(&spared)
    );
}

fn collector(text: &mut String, answers: &Answers) {
    text.push_str(
        "[collector]\n\
         # Every port takes sFlow v5, NetFlow v5/v9 and IPFIX.\n\
         listen = [\"[::]:2055\", \"[::]:4739\", \"[::]:6343\"]\n\n\
         # Exporters: the routers and switches that send flow data. weir drops datagrams from anyone else.\n",
    );
    if answers.exporters.is_empty() {
        text.push_str(
            "#[[collector.exporters]]\n#address = \"192.0.2.1/32\"\n#name = \"edge1\"\n\n",
        );
    }
    for exporter in &answers.exporters {
        let _ = writeln!(
            text,
            "[[collector.exporters]]\naddress = \"{}\"",
            IpNet::from(exporter.address)
        );
        if let Some(name) = &exporter.name {
            let _ = writeln!(text, "name = \"{name}\"");
        }
        text.push_str(
            "#sampling = 1000         # only if the router reports none, or a wrong one\n\n",
        );
    }
}

fn bgp(text: &mut String, answers: &Answers) {
    let Some((peer, id)) = answers.peer else {
        text.push_str(
            "# Without a BGP peer weir detects and announces nothing.\n\
             #[bgp]\n#local_as = 65010\n#router_id = \"192.0.2.10\"\n\n\
             #[[bgp.peer]]\n#name = \"edge1\"\n#address = \"192.0.2.1\"\n#remote_as = 65010\n\n",
        );
        return;
    };
    let named = answers.exporters.iter().find(|exporter| exporter.address == peer.address);
    let name = named.and_then(|exporter| exporter.name.as_deref()).unwrap_or("edge1");
    let _ = write!(
        text,
        "[bgp]\n\
         local_as = {}\n\
         # BGP identifier: an IPv4 address of this machine, unique in the AS.\n\
         router_id = \"{id}\"\n\n\
         [[bgp.peer]]\n\
         name = \"{name}\"\n\
         address = \"{}\"\n\
         remote_as = {}\n\
         #password_file = \"/etc/weir/edge1.md5\"   # TCP MD5 (RFC 2385)\n\n",
        peer.local_as, peer.address, peer.remote_as
    );
}

fn api(text: &mut String, answers: &Answers) {
    let listen = match answers.tls {
        Tls::Local => "127.0.0.1:8080",
        Tls::SelfSigned | Tls::Files { .. } => "[::]:8443",
    };
    let _ = write!(
        text,
        "[api]\n\
         # Dashboard, API and metrics. Beyond loopback weir always uses TLS.\n\
         listen = \"{listen}\"\n\n"
    );
    match &answers.tls {
        Tls::Local => {}
        Tls::SelfSigned => text.push_str(
            "# No certificate: weir makes its own on the first start and logs its fingerprint.\n\
             [api.tls]\n\
             #names = [\"weir.example.net\"]   # names that its certificate is valid for\n\n",
        ),
        Tls::Files { cert, key } => {
            let _ = write!(text, "[api.tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n\n");
        }
    }
}

fn quoted(nets: &[IpNet]) -> String {
    let nets: Vec<String> = nets.iter().map(|net| format!("\"{net}\"")).collect();
    format!("[{}]", nets.join(", "))
}

/// What to do now.
pub(super) fn next_steps(path: &Path, answers: &Answers) -> String {
    let url = match answers.tls {
        Tls::Local => "http://127.0.0.1:8080 (from elsewhere: ssh -L 8080:127.0.0.1:8080 ...)",
        Tls::SelfSigned | Tls::Files { .. } => "https://<this machine>:8443",
    };
    let mut steps = vec![
        format!("weir check --config {}", path.display()),
        "systemctl enable --now weir".to_owned(),
        format!("weir user add {} --role owner", answers.owner),
        format!("open {url}"),
        "weir exporters        # do flows arrive? docs/routers.md has the router's side".to_owned(),
    ];
    if answers.peer.is_some() {
        steps.push(
            "weir bgp              # is the session up? if not: weir bgp test NAME".to_owned(),
        );
    }
    format!("\nnext:\n  {}", steps.join("\n  "))
}
