//! The dashboard in a real browser: first run, an attack, its page, approving and withdrawing at a real
//! router, a reader who cannot act, a phone. What is done and looked for stands in
//! `api/ui/test/browser.mjs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use weir_tests::lab::{GOBGP, GOBGP_RULES, Lab, find_program};
use weir_tests::skip;

const PROGRAMS: &[&str] = &["ip", "timeout", "node", "chromium", "gobgpd", "gobgp"];

/// The longest that the browser may take, seconds.
const SECONDS_MAX: u64 = 210;

const WEIR: &str = r#"
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "127.0.0.11/32"
name = "border-1"
[[collector.exporters]]
address = "127.0.0.12/32"
name = "border-2"
[[collector.exporters]]
address = "127.0.0.13/32"
name = "border-3"
[detector]
end_quiet_secs = 5
[mitigator]
mode = "observe"
[[mitigator.ladder]]
rung = "rate-limit"
above_bits_per_sec = 100000000
hold_secs = 3
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 500000000
hold_secs = 3
[[mitigator.ladder]]
rung = "rtbh"
above_bits_per_sec = 5000000000
hold_secs = 60
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "edge"
address = "127.0.0.2"
port = 1790
remote_as = 65020
families = ["ipv4-unicast", "ipv4-flowspec"]
[api]
listen = "127.0.0.1:8080"
socket = ""
[protect]
prefixes = ["203.0.113.0/24", "2001:db8:113::/48"]
"#;

/// The services of the evening that is played.
fn services() -> String {
    let scene = weir_traffic::Scene::demo(1);
    let entry = |service: &weir_model::Service| {
        let protocol = if service.protocol == 6 { "tcp" } else { "udp" };
        format!(
            "[[protect.service]]\naddress = \"{}\"\nport = {}\nprotocol = \"{protocol}\"\nname = {:?}\ngame = {:?}\n",
            service.address, service.port, service.name, service.game
        )
    };
    scene.inventory.services.iter().map(entry).collect()
}

#[test]
fn the_dashboard_shows_explains_and_obeys() {
    let test = "the_dashboard_shows_explains_and_obeys";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/ui/test/browser.mjs");
    if !script.with_file_name("../node_modules/playwright-core").is_dir() {
        skip(test, "not installed: playwright-core (npm ci in api/ui)");
        return;
    }
    let Some(mut lab) = Lab::new(test, PROGRAMS) else { return };
    let gobgp = lab.write("gobgpd.toml", &format!("{GOBGP}{GOBGP_RULES}"));
    lab.spawn(
        "gobgpd",
        &[
            "gobgpd",
            "-f",
            gobgp.to_str().unwrap(),
            "--api-hosts",
            "127.0.0.2:50052",
            "--pprof-disable",
        ],
    );
    let store = lab.path("state.db");
    let config = format!("{WEIR}{}[store]\npath = {store:?}\n", services());
    let config = lab.write("weir.toml", &config);
    let weir = weir_tests::weir_binary();
    lab.spawn("weir", &[weir.to_str().unwrap(), "run", "--config", config.to_str().unwrap()]);
    lab.wait_for("the setup code", 30, |lab| lab.log("weir").contains("code").then_some(()));
    lab.wait_for("weir", 30, |lab| lab.log("weir").contains("ready").then_some(()));

    // Pictures for the documentation, when asked for.
    let screens = std::env::var_os("WEIR_SCREENS").map_or_else(|| lab.path("screens"), Into::into);
    std::fs::create_dir_all(&screens).unwrap();
    let setting = |name: &str, value: &Path| format!("{name}={}", value.display());
    let seconds = SECONDS_MAX.to_string();
    // An unoptimised build on a busy machine shows what happens, not how fast.
    let shown = if cfg!(debug_assertions) { "15000" } else { "2000" };
    let pid = lab.spawn(
        "browser",
        &[
            "timeout",
            "--kill-after=5",
            &seconds,
            "env",
            "WEIR_URL=http://127.0.0.1:8080",
            "WEIR_FLOWS=127.0.0.1:2055",
            &format!("WEIR_SHOWN_MS={shown}"),
            &setting("WEIR_LOG", &lab.path("weir.log")),
            &setting("WEIR_PLAY", &weir.with_file_name("play")),
            &setting("WEIR_SCREENS", &screens),
            &setting("WEIR_CHROMIUM", &find_program("chromium").unwrap()),
            "node",
            script.to_str().unwrap(),
        ],
    );
    let code = lab.wait_for_end(pid, SECONDS_MAX + 10);
    assert_eq!(code, Some(0), "{}\n{}", lab.log("browser"), lab.logs());
}
