use super::*;
use crate::config::{Override, RoleRule};
use crate::listing::Egg;
use crate::parse;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/", $name, ".json"))
    };
}

fn listing(flavour: Flavour) -> Listing {
    let (nodes, eggs, pages): (&[u8], Vec<Egg>, [&[u8]; 2]) = match flavour {
        Flavour::Pterodactyl => (
            fixture!("pterodactyl/nodes"),
            parse::nests(fixture!("pterodactyl/nests_include_eggs")).unwrap().rows.concat(),
            [
                fixture!("pterodactyl/servers_include_allocations.page1"),
                fixture!("pterodactyl/servers_include_allocations.page2"),
            ],
        ),
        Flavour::Pelican => (
            fixture!("pelican/nodes"),
            parse::eggs(fixture!("pelican/eggs")).unwrap(),
            [
                fixture!("pelican/servers_include_allocations.page1"),
                fixture!("pelican/servers_include_allocations.page2"),
            ],
        ),
    };
    let mut eggs = eggs;
    eggs.sort_by_key(|e| e.id);
    Listing {
        flavour,
        taken: Millis(0),
        nodes: parse::nodes(nodes).unwrap().rows,
        eggs,
        servers: pages.iter().flat_map(|p| parse::servers(p).unwrap().rows).collect(),
        users: Vec::new(),
    }
}

fn build(listing: &Listing, change: impl FnOnce(&mut PanelConfig)) -> PanelSnapshot {
    let mut config = PanelConfig::new("main", "https://panel.example.net", "ptla_0123456789abcdef");
    change(&mut config);
    let protected = ["203.0.113.0/24", "2001:db8:10::/48"]
        .iter()
        .map(|t| t.parse().unwrap())
        .collect::<PrefixSet>();
    let mut names = Names::default();
    names.set("fra-game-01.example.net", vec!["203.0.113.10".parse().unwrap()]);
    names.set("ams2.example.net", vec!["203.0.113.41".parse().unwrap()]);
    PanelSnapshot::build(listing, &config, &Games::default(), &protected, &names)
}

fn lines(snapshot: &PanelSnapshot) -> Vec<String> {
    let line = |a: &AllocationView| {
        let role = format!("{} {} {}", a.role.role, a.role.protocols, a.role.confidence);
        match a.unmapped {
            Some(why) => format!("{}:{} {role} UNMAPPED {}", a.server, a.port, why.as_str()),
            None => {
                let at: Vec<String> = a.addresses.iter().map(ToString::to_string).collect();
                format!("{}:{} {role} {} {:?}", a.server, a.port, at.join(","), a.via.unwrap())
            }
        }
    };
    snapshot.allocations.iter().map(line).collect()
}

#[test]
fn the_fixtures_of_both_panels_are_mapped_alike() {
    let expected = [
        "1:25565 game tcp 90 203.0.113.10 Address",
        "1:19132 unknown both 0 203.0.113.10 Address",
        "2:28015 game udp 90 203.0.113.10 Address",
        "2:28016 rcon tcp 90 203.0.113.10 Address",
        "2:28017 query udp 90 203.0.113.10 Address",
        "2:28082 app tcp 90 203.0.113.10 Address",
        "3:25565 game tcp 85 2001:db8:10::10 Address",
        "3:25565 game tcp 90 203.0.113.11 Address",
        "4:2456 game udp 90 203.0.113.40 Alias",
        "4:2457 query udp 85 203.0.113.40 Alias",
        "5:9987 voice udp 90 203.0.113.41 AliasName",
        "6:3306 unknown both 0 UNMAPPED a loopback address, for containers of the node only",
    ];
    for flavour in [Flavour::Pterodactyl, Flavour::Pelican] {
        let snapshot = build(&listing(flavour), |_| {});
        assert_eq!(lines(&snapshot), expected, "{flavour:?}");
        assert_eq!(snapshot.unmapped().count(), 1);
        assert_eq!((snapshot.nodes[0].mapped, snapshot.nodes[0].unmapped), (8, 0));
        assert_eq!((snapshot.nodes[1].mapped, snapshot.nodes[1].unmapped), (3, 1));
        assert!(snapshot.services.is_sorted());
        assert_eq!(snapshot.conflicts, 0);
        // Server 3 is suspended, server 4 is being installed.
        assert_eq!(snapshot.quiet.len(), 4);
    }
}

#[test]
fn system_ports_are_the_panels_and_always_protected() {
    let snapshot = build(&listing(Flavour::Pelican), |_| {});
    let daemon: Vec<String> = snapshot
        .services
        .iter()
        .filter(|s| s.game == "Panel daemon")
        .map(|s| format!("{}:{}/{} {}", s.address, s.port, s.protocol, s.name))
        .collect();
    assert_eq!(
        daemon,
        [
            "203.0.113.10:443/6 node fra-game-01",
            "203.0.113.10:2022/6 node fra-game-01",
            "203.0.113.10:8080/6 node fra-game-01",
            "203.0.113.40:443/6 node ams-game-02",
            "203.0.113.40:2022/6 node ams-game-02",
            "203.0.113.40:8080/6 node ams-game-02",
        ]
    );
    // A node behind a proxy: its name leads elsewhere, its allocations do not.
    let mut moved = listing(Flavour::Pelican);
    moved.nodes[0].fqdn = "node.cdn.example".into();
    let snapshot = build(&moved, |_| {});
    assert!(snapshot.nodes[0].system_mapped);
    assert!(snapshot.services.iter().any(|s| s.port == 2022 && s.address.is_ipv6()));
}

#[test]
fn rules_of_the_operator_go_first() {
    let snapshot = build(&listing(Flavour::Pterodactyl), |c| {
        c.roles = vec![
            RoleRule {
                name: "geyser".into(),
                server: Some("1a7ce997".into()),
                port: Some(19132),
                role: Some(Role::Game),
                protocols: Some(Protocols::UDP),
                ..RoleRule::default()
            },
            RoleRule {
                name: "ours".into(),
                egg: Some("valheim".into()),
                game: Some("conan".into()),
                ..RoleRule::default()
            },
            RoleRule {
                name: "selects nothing".into(),
                role: Some(Role::Web),
                ..RoleRule::default()
            },
        ];
        c.overrides = vec![Override {
            node: "ams-game-02".into(),
            ip: Some("127.0.0.1".parse().unwrap()),
            addresses: vec!["203.0.113.77".parse().unwrap(), "192.0.2.1".parse().unwrap()],
        }];
    });
    let lines = lines(&snapshot);
    assert_eq!(lines[1], "1:19132 game udp 100 203.0.113.10 Address");
    assert_eq!(lines[8], "4:2456 game udp 100 203.0.113.40 Alias");
    assert_eq!(lines[11], "6:3306 unknown both 0 203.0.113.77 Override");
    assert_eq!(snapshot.servers[3].game, "Conan Exiles");
    assert_eq!(snapshot.allocations[1].role.source, Source::Operator);
}

#[test]
fn groups_follow_the_mode() {
    let per_node = build(&listing(Flavour::Pelican), |_| {});
    let address = "203.0.113.41".parse().unwrap();
    assert_eq!(per_node.group_of(address).unwrap().name, "main/ams-game-02");
    let central = build(&listing(Flavour::Pelican), |c| c.mode = Mode::Central);
    assert_eq!(central.groups.len(), 1);
    assert_eq!(central.group_of(address).unwrap().name, "main");
    assert_eq!(central.group_of("203.0.113.200".parse().unwrap()), None);
}

#[test]
fn an_incident_finds_its_server() {
    let snapshot = build(&listing(Flavour::Pelican), |_| {});
    let at = |protocol, port| Endpoint { address: "203.0.113.10".parse().unwrap(), protocol, port };
    assert_eq!(snapshot.server_at(at(17, 28015)).unwrap().name, "EU Main 2x");
    assert_eq!(snapshot.server_at(at(6, 28015)), None, "UDP to that game only");
}

#[test]
fn two_servers_on_one_port_are_a_conflict_and_the_running_one_is_named() {
    let mut twice = listing(Flavour::Pelican);
    let mut second = twice.servers[2].clone();
    second.id = 9;
    second.name = "runs".into();
    second.state = ServerState::Normal;
    second.allocations = vec![Allocation { id: 900, ..second.allocations[1].clone() }];
    second.primary = Some(900);
    twice.servers.push(second);
    let snapshot = build(&twice, |_| {});
    assert_eq!(snapshot.conflicts, 1);
    let at: IpAddr = "203.0.113.11".parse().unwrap();
    let named = snapshot.services.iter().find(|s| s.address == at && s.port == 25565).unwrap();
    assert_eq!(named.name, "runs");
}

#[test]
fn what_is_seen_is_suggested_never_applied() {
    let snapshot = build(&listing(Flavour::Pelican), |_| {});
    let seen = |_, port| match port {
        19132 => Observation { days: 9, tcp_days: 0, udp_days: 8 },
        25565 => Observation { days: 9, tcp_days: 9, udp_days: 0 },
        _ => Observation { days: 9, tcp_days: 2, udp_days: 0 },
    };
    let suggestions = snapshot.suggestions(seen);
    assert_eq!(suggestions.len(), 1, "{suggestions:?}");
    assert_eq!((suggestions[0].allocation, suggestions[0].protocols), (102, Protocols::UDP));
    let unchanged = snapshot.allocations.iter().find(|a| a.id == 102).unwrap();
    assert_eq!(unchanged.role.protocols, Protocols::BOTH);
}

#[test]
fn what_is_expected_follows_the_operators_windows() {
    use crate::config::Expectation;
    use weir_model::ExpectedTraffic;

    let snapshot = build(&listing(Flavour::Pelican), |_| {});
    let wipe = Expectation {
        server: "*".to_owned(),
        why: "wipe".to_owned(),
        weekdays: vec![4],
        from_minute: 18 * 60,
        minutes: 60,
    };
    let surges = |minute: u32| {
        let expected = snapshot.expected(std::slice::from_ref(&wipe), minute);
        let silent = expected.iter().filter(|e| e.traffic == ExpectedTraffic::Silence).count();
        assert_eq!(silent, snapshot.quiet.len(), "a server that does not run has no surge");
        expected.len() - silent
    };
    let thursday = 3 * 1440 + 18 * 60;
    assert_eq!(surges(thursday - 1), 0);
    assert!(surges(thursday) > 0);
    assert_eq!(surges(thursday + 60), 0);
}
