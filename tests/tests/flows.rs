//! Records on their way from an exporter's datagram to an answer of `weir flows`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use weir_tests::process::{Archive, Weir, text};

/// NetFlow v5 of one record: 10 packets of 100 octets, 198.51.100.1 port 53 to 203.0.113.7, sampled 1:100.
fn datagram(dst_port: u16) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let up = 1_000_000_u32;
    let mut out = Vec::new();
    for half in [5_u16, 1] {
        out.extend(half.to_be_bytes());
    }
    for word in [up, u32::try_from(now).unwrap(), 0, 1] {
        out.extend(word.to_be_bytes());
    }
    out.extend([0, 0]);
    out.extend(100_u16.to_be_bytes());
    out.extend([198, 51, 100, 1, 203, 0, 113, 7, 0, 0, 0, 0]);
    out.extend([0, 3, 0, 9]);
    for word in [10_u32, 1000, up - 200, up - 100] {
        out.extend(word.to_be_bytes());
    }
    out.extend(53_u16.to_be_bytes());
    out.extend(dst_port.to_be_bytes());
    out.extend([0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[test]
fn a_record_comes_back_as_an_answer_and_weir_does_without_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("flows.sock");
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to: SocketAddr = probe.local_addr().unwrap();
    drop(probe);
    let more = format!(
        "[flows]\nsocket = {socket:?}\n[[collector.exporters]]\naddress = \"127.0.0.1/32\"\nname = \"edge1\"\n"
    );
    let home = tempfile::tempdir().unwrap();
    let path = weir_tests::process::write_config(home.path(), &more);
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replacen("127.0.0.1:0", &to.to_string(), 1)).unwrap();
    let weir = Weir::start_on(home);

    // Nobody keeps anything: the question is answered with what to do.
    let refused = weir.ask(&["flows", "udp"]);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("systemctl enable --now weir-flows"), "{said}");

    let archive = Archive::start(folder.path());
    let exporter = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let send = |port| drop(exporter.send_to(&datagram(port), to));
    let found = |weir: &Weir, filter: &str| {
        let out = weir.ask(&["flows", "--json", filter]);
        let answer: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        Some(answer).filter(|answer| answer["total"]["records"].as_u64() > Some(0))
    };
    // weir looks for the archive once a second; until then nothing is kept.
    let answer = weir.wait_for("a record", |weir| {
        send(1001);
        found(weir, "dst host 203.0.113.7 and src port 53 and exporter 127.0.0.1")
    });
    let (records, octets) = (&answer["total"]["records"], &answer["total"]["octets"]);
    assert_eq!(octets.as_u64().unwrap(), records.as_u64().unwrap() * 100_000, "scaled by 100");
    let table = text(&weir.ask(&["flows", "--by", "src,proto,in-if", "udp"]));
    assert!(table.starts_with("SRC"), "{table}");
    assert!(table.contains("198.51.100.1  udp    3"), "{table}");
    let csv = text(&weir.ask(&["flows", "--csv", "--records", "--top", "1", "dst port 1001"]));
    assert!(csv.lines().nth(1).unwrap().contains("198.51.100.1,53,203.0.113.7,1001"), "{csv}");
    let wrong = weir.ask(&["flows", "dst net banana"]);
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(said.contains(r#"at "banana": not a prefix like 203.0.113.0/24 (422"#), "{said}");

    // The archive goes and comes back: weir finds it, and what was taken is there.
    drop(archive);
    let _archive = Archive::start(folder.path());
    weir.wait_for("a record of the second life", |weir| {
        send(1002);
        found(weir, "dst port 1002")
    });
    assert!(found(&weir, "dst port 1001").is_some());
    weir.stop();
}
