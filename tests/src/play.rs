//! A game server in a laboratory and somebody who plays on it: weir that knows the game, the exporter of the
//! router between them, and what the player has of it.

use std::ops::Range;
use std::path::Path;

use crate::lab::{Lab, Side};
use crate::seed;

/// Datagrams a second of the player.
pub const RATE: u32 = 200;

/// What weir knows of the server and of the router; the rest of a configuration follows it.
pub const CITY: &str = r#"
[protect]
prefixes = ["10.10.10.0/24"]
[[protect.service]]
address = "10.10.10.10"
port = 30120
protocol = "udp"
name = "city"
game = "FiveM"
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "127.0.0.1/32"
name = "edge"
"#;

/// Starts BIRD and waits for it; its control socket.
pub fn start_bird(lab: &mut Lab, config: &str) -> String {
    let config = text(&lab.write("bird.conf", config));
    let control = text(&lab.path("bird.ctl"));
    lab.spawn("bird", &["bird", "-f", "-c", &config, "-s", &control]);
    lab.wait_for("bird", 10, |lab| lab.path("bird.ctl").exists().then_some(()));
    control
}

/// Starts weir with [`CITY`] and the rest of a configuration, in which `@SOCKET@` stands for its socket, and
/// waits for its BGP session. It has minutes of ordinary play behind it.
pub fn start_weir(lab: &mut Lab, rest: &str) {
    let (socket, state) = (text(&lab.path("api.sock")), lab.path("state.db"));
    let rest = rest.replace("@SOCKET@", &socket);
    let config = format!("{CITY}{rest}[store]\npath = {state:?}\n");
    seed::player(&config, &state, f64::from(RATE));
    let config = text(&lab.write("weir.toml", &config));
    let binary = text(&crate::weir_binary());
    lab.spawn("weir", &[&binary, "run", "--config", &config]);
    lab.wait_for("the session", 30, |lab| {
        let peers = lab.ask(&["curl", "-s", "http://127.0.0.1:8080/api/v1/peers"]);
        peers.contains("\"established\"").then_some(())
    });
}

/// Starts an exporter (pmacctd) on an interface of the router and waits for it.
pub fn start_exporter(lab: &mut Lab, interface: &str) {
    let config = format!(
        "pcap_interface: {interface}\nplugins: sfprobe\nsampling_rate: 4\nsfprobe_agentip: 127.0.0.1\n\
         sfprobe_receiver: 127.0.0.1:2055\naggregate: src_host, dst_host\n"
    );
    let config = text(&lab.write("pmacctd.conf", &config));
    lab.spawn("exporter", &["pmacctd", "-f", &config]);
    lab.wait_for("pmacctd", 10, |lab| lab.log("exporter").contains(interface).then_some(()));
}

/// Starts the server, and the player outside; `program` is the binary `player`.
pub fn start_player(lab: &mut Lab, server: &Side, outside: &Side, program: &str) {
    lab.spawn_in(server, "server", &[program, "serve", "10.10.10.10:30120"]);
    let rate = RATE.to_string();
    lab.spawn_in(outside, "player", &[program, "play", "10.10.10.10:30120", &rate]);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A number of a line that the player wrote.
fn number(line: &str, at: usize) -> f64 {
    let number = line.split(' ').nth(at).and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no line of the player's: {line:?}"))
}

/// Whole seconds the player has told of.
pub fn told(lab: &Lab) -> usize {
    lab.log("player").lines().count()
}

/// Waits until the player has told of so many more seconds than now; the numbers of the seconds.
pub fn seconds(lab: &Lab, more: usize) -> Range<usize> {
    // The one under way may have begun before.
    let from = told(lab) + 2;
    lab.wait_for(&format!("{more} seconds of play"), 60, |lab| {
        (told(lab) >= from + more).then_some(())
    });
    from..from + more
}

/// Share of the player's datagrams that came back in these seconds, 0-1.
pub fn goodput(lab: &Lab, seconds: Range<usize>) -> f64 {
    let log = lab.log("player");
    let lines: Vec<&str> = log.lines().collect();
    let sum = |at| lines[seconds.clone()].iter().map(|line| number(line, at)).sum::<f64>();
    sum(2) / sum(1)
}

/// Octets that an interface of a side, or of the router, has had (`rx`) or sent (`tx`).
pub fn octets(lab: &Lab, side: Option<&Side>, interface: &str, direction: &str) -> f64 {
    let path = format!("/sys/class/net/{interface}/statistics/{direction}_bytes");
    let text = match side {
        Some(side) => lab.run_in(side, &["cat", &path]),
        None => lab.run(&["cat", &path]),
    };
    text.trim().parse().unwrap_or_else(|_| panic!("{path}: {text:?}"))
}
