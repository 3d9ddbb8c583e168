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
    peer.password = Some(weir_bgp::config::Secret::new("secret".into()));
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
