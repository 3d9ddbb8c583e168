//! From a game panel to a rule: a server is created in the panel, its port gets a baseline, an attack on
//! that port is named with the game and the server, and the rule spares the port's players.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../panel/tests/stub/mod.rs"]
mod stub;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use stub::{KEY, Stub, StubServer};
use weir::replay::Player;
use weir_collector::ExporterConfig;
use weir_config::Config;
use weir_model::Secret;
use weir_model::{Inventory, Match, Measure, Millis};
use weir_panel::client::{Client, Timeouts};
use weir_panel::config::PanelConfig;
use weir_panel::{Action, Event, Games, Names, PanelSnapshot, Sync};
use weir_traffic::Scene;

const EPOCH: Millis = Millis::from_secs(1_800_000_000);

/// When traffic begins: a pass that a webhook asks for comes ten seconds after the one before, and is to
/// fall into the peace before the attack.
const TRAFFIC: Millis = Millis(EPOCH.0 + 5_000);

/// A panel's synchronisation under the player's clock.
struct Panel {
    stub: Stub,
    client: Client,
    config: PanelConfig,
    sync: Sync,
    wake: Millis,
    changed: bool,
}

impl Panel {
    fn new() -> Self {
        let stub = Stub::start(true);
        stub.world().eggs.push((30, "FiveM".into()));
        let config = PanelConfig::new("main", &stub.url(), KEY);
        let client = Client::new(&stub.url(), Secret::new(KEY), Timeouts::default());
        let sync = Sync::new(&config, KEY, 1);
        let mut panel = Self { stub, client, config, sync, wake: EPOCH, changed: false };
        panel.event(Event::Start(None), EPOCH);
        panel
    }

    fn event(&mut self, event: Event, now: Millis) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.sync.step(event, now) {
                match action {
                    Action::WakeAt(at) => self.wake = at,
                    Action::Apply(_) => self.changed = true,
                    Action::Get { request, path } => events.push(match self.client.get(&path) {
                        Ok(reply) => Event::Reply { request, reply },
                        Err(failure) => Event::NoReply { request, failure },
                    }),
                }
            }
        }
    }

    /// The inventory, when the panel said something new by `now`.
    fn until(&mut self, now: Millis, base: &Inventory) -> Option<Arc<Inventory>> {
        if now >= self.wake {
            self.event(Event::Wake, now);
        }
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let listing = self.sync.listing()?;
        let names = Names::default();
        let games = Games::default();
        let snapshot = PanelSnapshot::build(listing, &self.config, &games, &base.protected, &names);
        let never = base.never_touch.clone();
        let inventory = Inventory::new(base.protected.clone(), never, snapshot.services);
        Some(Arc::new(inventory.with(snapshot.groups, Vec::new())))
    }
}

fn exporter(index: usize) -> SocketAddr {
    let last = u8::try_from(index + 1).unwrap();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 50_000)
}

#[test]
fn a_server_made_in_the_panel_is_named_and_its_players_are_spared() {
    let scene = Scene::demo(1);
    let truth = &scene.attacks[0];
    let victim = truth.target.addr();
    let mut config = Config::default();
    config.protect.prefixes = scene.inventory.protected.clone();
    for index in 0..scene.exporters.len() {
        config.collector.exporters.push(ExporterConfig::new(exporter(index).ip().into()));
    }
    let base = config.protect.inventory();
    assert!(base.services.is_empty(), "nothing is declared by hand");

    let mut panel = Panel::new();
    panel.stub.world().servers = vec![StubServer::new(1, "old", 1, "203.0.113.10", 25565)];
    let mut player = Player::new(&config, EPOCH);
    if let Some(inventory) = panel.until(EPOCH, &base) {
        player.set_inventory(&inventory);
    }
    let server = StubServer::new(2, "los santos", 30, &victim.to_string(), 30120);
    panel.stub.world().servers.push(server);
    // What a webhook would do.
    panel.event(Event::Hint, EPOCH + 500);
    let mut learnt = None;
    for datagram in scene.stream(TRAFFIC) {
        let now = TRAFFIC + datagram.at_ms();
        player.until(now);
        if let Some(inventory) = panel.until(now, &base) {
            player.set_inventory(&inventory);
        }
        if learnt.is_none() && player.core().detector().watches_service(victim, 17, 30120) {
            learnt = Some(now);
        }
        player.datagram(exporter(datagram.exporter), &datagram.payload);
    }
    player.until(TRAFFIC + 120_000);
    let outcome = player.finish();
    let attack = TRAFFIC + truth.start_us / 1000;
    assert!(learnt.is_some_and(|at| at < attack), "the port had no baseline before the attack");

    let incident = outcome.incidents.iter().find(|i| i.verdict.target == truth.target).unwrap();
    let text = weir::text::incident(incident, EPOCH);
    assert!(text.contains("FiveM, server 'los santos'"), "{text}");
    assert!(text.contains("30120"), "{text}");
    assert_eq!(incident.group.as_deref(), Some("main/fra-1"));
    assert!(!incident.mitigations.is_empty(), "{text}");
    for mitigation in &incident.mitigations {
        let Measure::FlowSpec(filter) = &mitigation.measure else { panic!("wide measure: {text}") };
        assert!(!hits_a_player(&filter.packets, victim), "{text}");
    }
}

/// A player's packet: a random high source port to the game's port, 100 octets of UDP.
fn hits_a_player(packets: &Match, victim: IpAddr) -> bool {
    let within = |ranges: &[weir_model::Range], value| {
        ranges.is_empty() || ranges.iter().any(|r| r.contains(value))
    };
    packets.dst.contains(&victim)
        && packets.fragment.is_none()
        && (packets.protocols.is_empty() || packets.protocols.contains(&17))
        && within(&packets.dst_ports, 30120)
        && within(&packets.src_ports, 51_234)
        && within(&packets.lengths, 100)
}
