//! The daemons: how each is configured, started, and asked what it holds.

use std::path::PathBuf;

use serde_json::Value;
use weir_tests::lab::{Lab, Pid, find_program};

pub(crate) const BIRD: &str = r#"
log stderr all;
router id 10.0.0.30;
ipv4 table master4; ipv6 table master6; flow4 table flowtab4; flow6 table flowtab6;
protocol device { }
protocol bgp weir {
  local @LOCAL@ port 1790 as @AS@;
  neighbor @NEIGHBOR@ as 65010;
  multihop@MULTIHOP@; @EXTRA@
  passive yes; strict bind yes; hold time 30; keepalive time 10;
  ipv4 { import all; export none; @IPV4@ };
  ipv6 { import all; export none; };
  flow4 { table flowtab4; import all; export none; };
  flow6 { table flowtab6; import all; export none; };
}
"#;

/// What of BIRD's configuration differs from test to test.
pub(crate) struct Bird<'a> {
    pub(crate) local: &'a str,
    pub(crate) asn: &'a str,
    /// weir's address, and the port where BIRD is to dial it.
    pub(crate) neighbor: &'a str,
    pub(crate) multihop: &'a str,
    /// Further settings of the session.
    pub(crate) extra: &'a str,
    /// Further settings of its IPv4 channel.
    pub(crate) ipv4: &'a str,
    pub(crate) dials: bool,
}

impl Default for Bird<'_> {
    fn default() -> Self {
        Self {
            local: "127.0.0.3",
            asn: "65020",
            neighbor: "127.0.0.1",
            multihop: "",
            extra: "",
            ipv4: "",
            dials: false,
        }
    }
}

impl Bird<'_> {
    pub(crate) fn start(&self, lab: &mut Lab) -> Pid {
        start_bird(lab, "bird", &self.text())
    }

    /// Its configuration.
    pub(crate) fn text(&self) -> String {
        let mut config = BIRD
            .replace("@LOCAL@", self.local)
            .replace("@AS@", self.asn)
            .replace("@NEIGHBOR@", self.neighbor)
            .replace("@MULTIHOP@", self.multihop)
            .replace("@EXTRA@", self.extra)
            .replace("@IPV4@", self.ipv4);
        if self.dials {
            config = config.replace("passive yes;", "connect delay time 1; connect retry time 1;");
        }
        config
    }
}

pub(crate) fn start_bird(lab: &mut Lab, name: &str, config: &str) -> Pid {
    let config = lab.write(&format!("{name}.conf"), config);
    let control = lab.path("bird.ctl");
    lab.spawn(
        name,
        &["bird", "-f", "-c", config.to_str().unwrap(), "-s", control.to_str().unwrap()],
    )
}

pub(crate) fn birdc(lab: &Lab, command: &str) -> String {
    let control = lab.path("bird.ctl");
    let mut all = vec!["birdc", "-s", control.to_str().unwrap()];
    all.extend(command.split(' '));
    lab.ask(&all)
}

/// One line a route: the destination and all its attributes.
pub(crate) fn bird_routes(lab: &Lab) -> Vec<String> {
    let mut routes: Vec<String> = Vec::new();
    for table in ["master4", "master6", "flowtab4", "flowtab6"] {
        for line in birdc(lab, &format!("show route all table {table}")).lines() {
            if line.starts_with('\t') {
                if let Some(route) = routes.last_mut() {
                    route.push_str(&format!(" {}", line.trim()));
                }
            } else if line.contains("[weir ") {
                routes.push(line.to_owned());
            }
        }
    }
    routes
}

pub(crate) const GOBGP_FAMILIES: [&str; 4] = ["ipv4", "ipv6", "ipv4-flowspec", "ipv6-flowspec"];

/// GoBGP as a router, with graceful restart if so.
pub(crate) fn start_gobgp(lab: &mut Lab, name: &str, graceful_restart: bool) -> Pid {
    let keeps = if graceful_restart {
        "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
    } else {
        ""
    };
    let families: String = ["ipv4-unicast", "ipv6-unicast", "ipv4-flowspec", "ipv6-flowspec"]
        .iter()
        .map(|f| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{f}\"\n{keeps}"
            )
        })
        .collect();
    let restart = if graceful_restart {
        "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 120\nhelper-only = true\n"
    } else {
        ""
    };
    let config = format!(
        "[global.config]\nas = 65020\nrouter-id = \"10.0.0.20\"\nport = 1790\n\
         local-address-list = [\"127.0.0.2\"]\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = \"127.0.0.1\"\npeer-as = 65010\n[neighbors.transport.config]\n\
         passive-mode = true\nlocal-address = \"127.0.0.2\"\n[neighbors.timers.config]\n\
         hold-time = 30\nkeepalive-interval = 10\n{restart}{families}"
    );
    spawn_gobgp(lab, name, &config)
}

/// GoBGP without neighbours, as a daemon to drive.
pub(crate) fn start_gobgp_alone(lab: &mut Lab, name: &str) -> Pid {
    let config = "[global.config]\nas = 65010\nrouter-id = \"10.0.0.20\"\nport = -1\n";
    spawn_gobgp(lab, name, config)
}

pub(crate) const GOBGP_API: &str = "127.0.0.2:50052";

fn spawn_gobgp(lab: &mut Lab, name: &str, config: &str) -> Pid {
    let config = lab.write("gobgpd.toml", config);
    lab.spawn(
        name,
        &["gobgpd", "-f", config.to_str().unwrap(), "--api-hosts", GOBGP_API, "--pprof-disable"],
    )
}

pub(crate) fn gobgp(lab: &Lab, words: &[&str]) -> String {
    let mut all = vec!["gobgp", "--host", "127.0.0.2", "--port", "50052"];
    all.extend(words);
    lab.ask(&all)
}

pub(crate) fn gobgp_routes(lab: &Lab) -> Vec<String> {
    let tables = GOBGP_FAMILIES.map(|f| gobgp(lab, &["global", "rib", "-a", f]));
    tables
        .iter()
        .flat_map(|t| t.lines())
        .filter(|l| l.starts_with("*>"))
        .map(str::to_owned)
        .collect()
}

pub(crate) const FRR: &str = "frr defaults traditional
log stdout debugging
router bgp 65020
 bgp router-id 10.0.0.40
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 10 30
 neighbor 127.0.0.1 remote-as 65010
 neighbor 127.0.0.1 passive
 neighbor 127.0.0.1 disable-connected-check
 neighbor 127.0.0.1 ebgp-multihop 2
 neighbor 127.0.0.1 update-source 127.0.0.4
 address-family ipv4 unicast
  neighbor 127.0.0.1 activate
 address-family ipv6 unicast
  neighbor 127.0.0.1 activate
 address-family ipv4 flowspec
  neighbor 127.0.0.1 activate
 address-family ipv6 flowspec
  neighbor 127.0.0.1 activate
";

/// FRR's bgpd alone, on an address.
pub(crate) fn start_frr(lab: &mut Lab, name: &str, config: &str, address: &str) -> Pid {
    let config = lab.write("frr.conf", config);
    let vty = lab.path("vty");
    std::fs::create_dir_all(&vty).unwrap();
    let pid_file = lab.path("frr.pid");
    let bgpd = find_program("bgpd").filter(|p| p.starts_with("/usr/lib/frr"));
    let bgpd = bgpd.unwrap_or_else(|| PathBuf::from("/usr/lib/frr/bgpd"));
    let mut command =
        vec![bgpd.to_str().unwrap(), "-f", config.to_str().unwrap(), "-Z", "-S", "-n"];
    command.extend(["-p", "1790", "-l", address, "-P", "0", "-i", pid_file.to_str().unwrap()]);
    command.extend(["--vty_socket", vty.to_str().unwrap()]);
    lab.spawn(name, &command)
}

pub(crate) fn vtysh(lab: &Lab, command: &str) -> String {
    let vty = lab.path("vty");
    lab.ask(&["vtysh", "--vty_socket", vty.to_str().unwrap(), "-d", "bgpd", "-c", command])
}

/// Whether FRR has a session with weir.
pub(crate) fn frr_is_up(lab: &Lab) -> bool {
    let text = vtysh(lab, "show bgp neighbors 127.0.0.1 json");
    let all: Value = serde_json::from_str(&text).unwrap_or_default();
    all["127.0.0.1"]["bgpState"] == "Established"
}

/// The numbers of routes that FRR shows for each family.
pub(crate) fn frr_counts(lab: &Lab) -> Vec<u64> {
    let summary: Value =
        serde_json::from_str(&vtysh(lab, "show bgp summary json")).unwrap_or_default();
    ["ipv4Unicast", "ipv6Unicast", "ipv4Flowspec", "ipv6Flowspec"]
        .iter()
        .map(|f| summary[f]["peers"]["127.0.0.1"]["pfxRcd"].as_u64().unwrap_or(0))
        .collect()
}

pub(crate) fn records(lab: &mut Lab) -> Pid {
    let file = lab.path("bgp.pcap");
    let pid = lab.spawn(
        "tshark",
        &[
            "tshark",
            "-q",
            "-i",
            "lo",
            "-f",
            "tcp port 1790 or tcp port 1791",
            "-w",
            file.to_str().unwrap(),
        ],
    );
    lab.wait_for("tshark to listen", 15, |lab| {
        lab.log("tshark").contains("Capturing").then_some(())
    });
    pid
}

/// Ends the recording and asks tshark what it finds malformed. Ends it only when an UPDATE is in
/// it: tshark writes late on a busy machine.
pub(crate) fn malformed(lab: &mut Lab, pid: Pid) -> String {
    let file = lab.path("bgp.pcap");
    let file = file.to_str().unwrap();
    let read = |lab: &Lab, filter: &str| {
        lab.ask(&["tshark", "-r", file, "-d", "tcp.port==1790,bgp", "-Y", filter])
    };
    lab.wait_for("an UPDATE in the recording", 20, |lab| {
        (!read(lab, "bgp.type == 2").is_empty()).then_some(())
    });
    lab.signal(pid, "INT");
    lab.wait_for_end(pid, 10);
    read(lab, "_ws.malformed")
}

const EXABGP: &str = r"
process sink { run @SINK@; encoder json; }
neighbor 127.0.0.1 {
  router-id 10.0.0.50; local-address 127.0.0.5; local-as 65020; peer-as 65010; hold-time 30;
  passive true; listen 1790;
  family { ipv4 unicast; ipv6 unicast; ipv4 flow; ipv6 flow; }
  api { processes [ sink ]; neighbor-changes; receive { parsed; update; } }
}
";

/// ExaBGP as a router that writes what it receives to `received.json`.
pub(crate) fn start_exabgp(lab: &mut Lab) -> Pid {
    let received = lab.path("received.json");
    let sink = format!(
        "#!/usr/bin/python3\nimport sys\nwith open({:?}, 'a', buffering=1) as out:\n    \
         for line in sys.stdin:\n        out.write(line)\n",
        received.display().to_string()
    );
    let sink = lab.write("sink.py", &sink);
    lab.run(&["chmod", "755", sink.to_str().unwrap()]);
    let config = EXABGP.replace("@SINK@", sink.to_str().unwrap());
    spawn_exabgp(lab, "exabgp", &config, &["exabgp.api.cli=false", "exabgp.tcp.bind="])
}

pub(crate) fn spawn_exabgp(lab: &mut Lab, name: &str, config: &str, settings: &[&str]) -> Pid {
    let config = lab.write("exabgp.conf", config);
    let mut command = vec!["env", "exabgp.daemon.user=root", "exabgp.daemon.drop=false"];
    command.extend(settings);
    command.extend(["exabgp", config.to_str().unwrap()]);
    lab.spawn(name, &command)
}

const OPENBGPD: &str = "AS 65020
router-id 10.0.0.60
fib-update no
listen on 127.0.0.6 port 1790
socket \"@SOCKET@\"
holdtime 30
neighbor 127.0.0.1 {
  remote-as 65010
  local-address 127.0.0.6
  passive
  multihop 2
  announce IPv4 unicast
  announce IPv6 unicast
  enforce neighbor-as yes
}
allow from any
deny to any
";

/// OpenBGPD; `None`, with a skip by name, when it is not installed: FRR has a `bgpd` too.
pub(crate) fn start_openbgpd(lab: &mut Lab, test: &str) -> Option<Pid> {
    let bgpd = PathBuf::from("/usr/sbin/bgpd");
    if !bgpd.is_file() {
        weir_tests::skip(test, "not installed: openbgpd");
        return None;
    }
    // What its unprivileged half is locked into; the package makes it when the service starts.
    lab.run(&["mkdir", "-p", "/run/openbgpd"]);
    let socket = lab.path("bgpd.sock");
    let config = lab.write("bgpd.conf", &OPENBGPD.replace("@SOCKET@", socket.to_str().unwrap()));
    lab.run(&["chmod", "600", config.to_str().unwrap()]);
    let command = [bgpd.to_str().unwrap(), "-d", "-v", "-f", config.to_str().unwrap()];
    Some(lab.spawn("openbgpd", &command))
}

pub(crate) fn bgpctl(lab: &Lab, words: &[&str]) -> String {
    let socket = lab.path("bgpd.sock");
    let mut all = vec!["bgpctl", "-s", socket.to_str().unwrap(), "-j"];
    all.extend(words);
    lab.ask(&all)
}
