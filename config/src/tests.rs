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
