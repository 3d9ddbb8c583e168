use super::*;

const GOOD: &str = r#"
[protect]
prefixes = ["203.0.113.0/24", "2001:db8:113::/48"]
never_touch = ["203.0.113.1/32"]

[[protect.service]]
address = "203.0.113.7"
port = 25565
protocol = "tcp"
name = "lobby"
game = "Minecraft"

[collector]
listen = ["127.0.0.1:2055"]

[[collector.exporters]]
address = "192.0.2.1/32"
name = "edge1"
"#;

fn errors(text: &str) -> String {
    match parse(text) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_good_file_parses_and_survives_its_own_dump() {
    let (config, warnings) = parse(GOOD).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.mitigator.mode, weir_model::Mode::Observe, "weir starts by observing");
    let inventory = config.protect.inventory();
    assert_eq!(inventory.services.len(), 1);
    let dumped = dump(&config).unwrap();
    let (again, _) = parse(&dumped).unwrap();
    assert_eq!(dump(&again).unwrap(), dumped);
}

#[test]
fn an_unknown_key_names_its_line() {
    let text = errors("[collector]\nlisen = []\n");
    assert!(text.contains("lisen") && text.contains("line 2"), "{text}");
}

#[test]
fn contradictions_are_all_named() {
    let text = errors(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n\
         [[protect.service]]\naddress = \"198.51.100.1\"\nport = 80\nprotocol = \"tcp\"\n\
         [api.tls]\ncert = \"/etc/weir/cert.pem\"\n",
    );
    assert!(text.contains("198.51.100.1:80") && text.contains("cert and key"), "{text}");
}

#[test]
fn a_peer_without_prefixes_is_refused() {
    let text = errors(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n\
         [[bgp.peer]]\nname = \"edge1\"\naddress = \"192.0.2.1\"\nremote_as = 65010\n",
    );
    assert!(text.contains("protect.prefixes is empty"), "{text}");
}

/// Every key of a table and of the tables in it.
fn keys(table: &toml::Table, found: &mut Vec<String>) {
    for (key, value) in table {
        found.push(key.clone());
        let lists = value.as_array().into_iter().flatten();
        for table in lists.chain([value]).filter_map(toml::Value::as_table) {
            keys(table, found);
        }
    }
}

#[test]
fn every_bgp_setting_is_documented_with_its_default() {
    let document = include_str!("../../docs/bgp.md");
    let (_, example) = document.split_once("```toml\n").unwrap();
    let (example, rest) = example.split_once("```").unwrap();
    let text = format!("[protect]\nprefixes = [\"203.0.113.0/24\"]\n{example}");
    let (config, _) = parse(&text).unwrap();
    // Settings without a default do not show in a dump unless they are set.
    let mut bgp = config.bgp.unwrap();
    bgp.listen = "0.0.0.0:179".parse().ok();
    let peer = &mut bgp.peers[0];
    (peer.local_as, peer.max_rules) = (Some(65011), Some(100));
    peer.local_address = "192.0.2.10".parse().ok();
    peer.password = Some(weir_model::Secret::new("secret"));
    let adapter = &mut bgp.adapters[0];
    adapter.control = Some("/run/bird/bird.ctl".into());
    bgp.rpki.as_mut().unwrap().origin_as = Some(65010);
    let mut found = Vec::new();
    keys(&toml::Table::try_from(&bgp).unwrap(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for key in found {
        assert!(
            rest.contains(&format!("`{key}`")) || rest.contains(&format!("bgp.{key}]")),
            "{key}"
        );
    }
}

#[test]
fn every_channel_of_the_documentation_can_be_pasted() {
    let document = include_str!("../../docs/notifications.md");
    let blocks = document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut named = std::collections::BTreeSet::new();
    for block in blocks.filter(|block| block.contains("[[notify.channel]]")) {
        let text = format!("[protect]\nprefixes = [\"203.0.113.0/24\"]\n{block}");
        let (config, _) = parse(&text).unwrap_or_else(|error| panic!("{block}: {error}"));
        named.extend(config.notify.channels.into_iter().map(|channel| channel.service));
    }
    for service in weir_notify::services(None).unwrap().keys() {
        // Rocket.Chat's differs from Mattermost's in its name alone.
        assert!(named.contains(service) || service == "rocketchat", "{service} has no block");
        assert!(document.contains(&format!("`{service}`")), "{service} is not in the table");
    }
}

#[test]
fn what_is_wrong_with_a_channel_is_said_at_its_place() {
    let text = errors(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[notify.channel]]\nname = \"noc\"\nservice = \"ntfy\"\n",
    );
    assert!(text.contains("line 3"), "{text}");
    assert!(text.contains("notify.channel \"noc\": secrets.topic is missing"), "{text}");
    let twice = errors(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[mitigator.webhook]]\nname = \"noc\"\n\
         url = \"https://example.net\"\n[[notify.channel]]\nname = \"noc\"\nservice = \"ntfy\"\n\
         secrets = { topic = \"x\" }\n",
    );
    assert!(twice.contains("a webhook or a scrubber has the same name"), "{twice}");
}

const PEER: &str = "[bgp]\nlocal_as = 65010\nrouter_id = \"192.0.2.10\"\n[[bgp.peer]]\nname = \"edge1\"\n\
                    address = \"192.0.2.1\"\nremote_as = 65010\n";

#[test]
fn what_run_would_refuse_is_refused_at_its_place() {
    let prefixes = "[protect]\nprefixes = [\"203.0.113.0/24\"]\n";
    let check = |more: &str, expected: &str| {
        let text = errors(&format!("{prefixes}{more}"));
        assert!(text.contains(expected), "{more}: {text}");
    };
    let peer = |more: &str, expected: &str| check(&format!("{PEER}{more}\n"), expected);
    peer("hold_time_secs = 2", "line 10, column 1: bgp.peer \"edge1\": hold_time_secs: must be");
    peer("passive = true", "line 10, column 1: bgp.peer \"edge1\": passive: bgp.listen is not set");
    peer("families = []", "bgp.peer \"edge1\": families: is empty");
    peer("next_hop4 = \"0.0.0.0\"", "next_hop4");
    check(
        &PEER.replace("remote_as = 65010", "remote_as = 0"),
        "line 9, column 1: bgp.peer \"edge1\"",
    );
    check(
        "[log]\nlevel = \"verbose\"\n",
        "line 4, column 1: log.level: \"verbose\" is none of off",
    );
    check("[log]\nlevel = \"info,weir_bgp=chatty\"\n", "\"chatty\"");
    check("[log]\nlevel = \"\"\n", "log.level");
    check("[store]\npath = \"\"\n", "store.path is empty");
    assert_eq!(errors(&format!("{prefixes}[log]\nlevel = \"warn, weir_bgp=Debug\"\n")), "ok");
    let twice = "[collector]\nlisten = [\"0.0.0.0:2055\", \"0.0.0.0:2055\"]\n";
    check(
        twice,
        "line 4, column 1: collector.listen: UDP 0.0.0.0:2055 is taken by collector.listen",
    );
    check(
        "[collector]\nlisten_tcp = [\"127.0.0.1:8080\"]\n",
        "api.listen: TCP 127.0.0.1:8080 is taken",
    );
    check(
        "[agents]\nlisten = \"[::]:8080\"\n",
        "agents.listen: TCP [::]:8080 is taken by api.listen",
    );
    let none = "[[collector.exporters]]\naddress = \"192.0.2.1/32\"\nsampling = 0\n";
    check(
        none,
        "line 5, column 1: collector.exporters \"192.0.2.1/32\": sampling must be at least 1",
    );
    check("[detector]\nmultiplier = nan\n", "line 4, column 1: detector.multiplier = NaN");
    check(
        "[detector.floors]\nsyns_per_sec = 0\n",
        "line 4, column 1: detector.floors.syns_per_sec",
    );
}

#[test]
fn files_that_do_not_open_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("weir.toml"), folder.path().join("edge1.key"));
    let text = format!(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n{PEER}password_file = {key:?}\n\
         [api]\nlisten = \"0.0.0.0:8443\"\n[api.tls]\ncert = \"/nonexistent/c.pem\"\nkey = \"/nonexistent/k.pem\"\n\
         [[mitigator.webhook]]\nname = \"ops\"\nurl = \"https://example.net\"\nsecret_file = \"/nonexistent/hook\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let wrong = || load(&file).unwrap_err().to_string();
    let said = wrong();
    let at = |line: usize| format!("{}:{line}:1: ", file.display());
    assert!(
        said.contains(&format!("{}bgp.peer \"edge1\": password_file: {}", at(10), key.display())),
        "{said}"
    );
    assert!(said.contains("api.tls: /nonexistent/c.pem"), "{said}");
    assert!(said.contains("mitigator.webhook \"ops\": secret_file: /nonexistent/hook"), "{said}");
    for key_text in ["", "x".repeat(81).as_str()] {
        std::fs::write(&key, key_text).unwrap();
        assert!(wrong().contains("must hold 1-80 octets"), "{key_text}");
    }
    std::fs::write(&key, "secret\n").unwrap();
    assert!(!wrong().contains("password_file"), "{}", wrong());
}

#[test]
fn a_group_says_thresholds_in_several_ways() {
    let group = |more: &str| {
        let text = format!(
            "{GOOD}\n[[protect.group]]\nname = \"acme\"\nprefixes = [\"203.0.113.0/26\"]\n{more}\n"
        );
        parse(&text).map(|(config, _)| config).map_err(|error| error.to_string())
    };
    let inbound = |value: &str| group(&format!("[protect.group.inbound]\nbits_per_sec = {value}"));
    for value in [
        "\"auto\"",
        "\"off\"",
        "2_000_000_000",
        "2.5e9",
        "{ floor = 1_000, ceiling = 5_000, multiplier = 4 }",
        "{ multiplier = 0.5 }",
    ] {
        let config = inbound(value).unwrap_or_else(|error| panic!("{value}: {error}"));
        let dumped = dump(&config).unwrap();
        assert_eq!(parse(&dumped).unwrap().0.protect, config.protect, "{dumped}");
    }
    let check = |found: Result<Config, String>, wanted: &str| {
        let why = found.unwrap_err();
        assert!(why.contains(wanted), "{wanted}: {why}");
    };
    check(inbound("\"never\""), "\"auto\", \"off\", a number a second, or a table");
    check(inbound("{ flor = 3 }"), "\"auto\", \"off\", a number a second, or a table");
    check(inbound("0"), "at least 1");
    check(inbound("nan"), "at least 1");
    check(inbound("{ floor = 5, ceiling = 3 }"), "the floor is above the ceiling");
    check(inbound("{}"), "expected multiplier, floor or ceiling");
    check(inbound("{ multiplier = 0.0 }"), "0.1-1000");
    check(group("[protect.group.outbound]\nmultiplier = 1e9"), "0.1-1000");
    check(group("[protect.group.outbound]\nicmp_per_sec = 3"), "icmp_per_sec");
    check(group("parent = \"nobody\""), "parent \"nobody\": there is no such group");
    check(group("template = \"acme\""), "its template has prefixes");
    check(group("parent = \"acme\""), "inherits from itself");
    check(group("notify = [\"\"]"), "names of channels");
    check(group("tags = { queue = \"a\\nb\" }"), "tags: at most 16");
    check(group("[[protect.group]]\nname = \"gentle\""), "no group inherits from it");
    let all = "template = \"gentle\"\nlearning = \"observe-only\"\nclass = \"customer-line\"\nnotify = [\"ops\"]\n\
        tags = { customer = \"4711\" }\n[[protect.group]]\nname = \"gentle\"\nnever = []";
    let config = group(all).unwrap();
    assert_eq!(parse(&dump(&config).unwrap()).unwrap().0.protect, config.protect);
}

#[test]
fn metrics_of_an_operators_own_are_checked_and_measured() {
    let file = |metric: &str| {
        format!(
            "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[protect.group]]\nname = \"voice\"\n\
             prefixes = [\"203.0.113.0/26\"]\n[[detector.metric]]\nname = \"sip\"\n{metric}\n"
        )
    };
    let good = "match = \"udp dst port 5060\"\npackets_per_sec = 5_000\ngroups = [\"voice\"]";
    let (config, warnings) = parse(&file(good)).unwrap();
    let own = config.inventory();
    assert_eq!(own.metrics.list()[0].packets.to_string(), "proto 17 dport 5060");
    assert!(!warnings.iter().any(|w| w.0.contains("sip")), "{warnings:?}");
    let again = read_dump(&dump(&config).unwrap()).unwrap();
    assert_eq!(again.detector, config.detector);
    let (_, warnings) = parse(&file(&good.replace("[\"voice\"]", "[\"voic\"]"))).unwrap();
    let missing = "detector.metric \"sip\": there is no group \"voic\" in the file";
    assert!(warnings.iter().any(|w| w.0 == missing), "{warnings:?}");
    let check = |metric: &str, error: &str| {
        let found = parse(&file(metric)).unwrap_err().to_string();
        assert!(found.contains(error), "{metric}: {found}");
    };
    let threshold = "\npackets_per_sec = \"auto\"";
    check(
        &format!("match = \"udp port 5060\"{threshold}"),
        "line 8, column 9: at \"port\": say src port or dst port",
    );
    check(&format!("match = \"dport 5060\"{threshold}"), "ports need protocols that have any");
    check(
        &format!("match = \"udp dscp 46\"{threshold}"),
        "detector.metric \"sip\": match: flow records do not tell the DSCP",
    );
    check("match = \"udp\"", "detector.metric \"sip\": it needs packets_per_sec or bits_per_sec");
    check("match = \"udp\"\npackets_per_sec = 99", "packets_per_sec: at least 100");
    check("match = \"udp\"\npackets_per_sec = 0", "a threshold is at least 1");
    check(&format!("match = \"udp\"{threshold}\nrate = 5"), "unknown field `rate`");
}

#[test]
fn totals_of_groups_are_read_dumped_and_few() {
    let group = |n: usize, total: &str| {
        format!(
            "[[protect.group]]\nname = \"g{n}\"\nprefixes = [\"203.0.{}.{}/32\"]\n{total}",
            n / 256,
            n % 256
        )
    };
    let total = "[protect.group.total]\ninbound = { packets_per_sec = \"auto\", bits_per_sec = 2e9 }\n\
        outbound = { bits_per_sec = { multiplier = 2, floor = 5e8 } }\n";
    let read = |groups: &str| parse(&format!("[protect]\nprefixes = [\"203.0.0.0/16\"]\n{groups}"));
    let (config, _) = read(&group(1, total)).unwrap();
    let own = config.protect.groups[0].total.unwrap();
    assert_eq!(own.inbound.bits_per_sec, Some(weir_model::Threshold::Fixed(2e9)));
    assert_eq!(read_dump(&dump(&config).unwrap()).unwrap().protect, config.protect);
    let error = |groups: &str| read(groups).unwrap_err().to_string();
    assert!(
        error(&group(1, "total = { inbound = { syns_per_sec = 1 } }\n")).contains("unknown field")
    );
    assert!(
        error(&group(1, "total = { inbound = { bits_per_sec = 0 } }\n")).contains("at least 1")
    );
    let least =
        "service_least_bits_per_sec = \"auto\"\ntotal = { least_bits_per_sec = 5_000_000 }\n";
    let (config, _) = read(&group(1, least)).unwrap();
    let own = &config.protect.groups[0];
    assert_eq!(own.service_least_bits_per_sec, Some(weir_model::Least::Auto));
    assert_eq!(own.total.unwrap().least_bits_per_sec, Some(weir_model::Least::Fixed(5e6)));
    assert_eq!(read_dump(&dump(&config).unwrap()).unwrap().protect, config.protect);
    let wrong = error(&group(1, "service_least_bits_per_sec = \"on\"\n"));
    assert!(wrong.contains("\"auto\", \"off\", or a number"), "{wrong}");
    let many: String = (0..1025).map(|n| group(n, total)).collect();
    assert!(error(&many).contains("total: at most 1024 groups with one"));
}

#[test]
fn an_allow_list_whose_file_is_not_there_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let (file, list) = (folder.path().join("weir.toml"), folder.path().join("cdn.txt"));
    let text = format!(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[protect.allow]]\nname = \"cdn\"\nfile = {list:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    let warned =
        || load(&file).unwrap().1.iter().any(|w| w.0.contains("protect.allow \"cdn\": file"));
    assert!(warned());
    std::fs::write(&list, "198.51.100.0/24\n").unwrap();
    assert!(!warned());
}
