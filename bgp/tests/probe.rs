//! Tests of a peer by hand, against receivers of every temper, over real TCP on loopback.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weir_bgp::config::{Config, PeerConfig};
use weir_bgp::receiver::{self, Event};
use weir_bgp::speaker::probe;
use weir_bgp::wire::{Family, Framer, Message, Notification, OpenSettings, keepalive};
use weir_model::{PeerProbe, ProbeStage};

/// A speaker's configuration with one peer behind this port.
fn config(port: u16) -> Config {
    let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
    let mut peer = PeerConfig::new("edge", "127.0.0.1".parse().unwrap(), 65020);
    peer.port = port;
    config.peers.push(peer);
    config
}

async fn tested(listener: &TcpListener) -> PeerProbe {
    let config = config(listener.local_addr().unwrap().port());
    probe(&config, &config.peers[0]).await
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn open(asn: u32, families: &[Family]) -> Vec<u8> {
    let settings = OpenSettings {
        asn,
        hold_secs: 30,
        id: Ipv4Addr::new(10, 0, 0, 2),
        families: families.iter().copied().collect(),
        restart_secs: None,
        restarting: false,
        long_lived_secs: None,
    };
    settings.write().unwrap()
}

/// Every message until the other side hangs up.
async fn heard(stream: &mut TcpStream) -> Vec<Message> {
    let (mut framer, mut octets, mut list) = (Framer::default(), [0; 4096], Vec::new());
    while let Ok(n @ 1..) = stream.read(&mut octets).await {
        framer.push(&octets[..n]);
        while let Ok(Some(message)) = framer.next_message() {
            list.push(message);
        }
    }
    list
}

/// A peer that says this after weir's OPEN; what weir says, and what the test found.
async fn against(words: Vec<u8>, hang_up: bool) -> (Vec<Message>, PeerProbe) {
    let listener = listener().await;
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut header = [0; 19];
        stream.read_exact(&mut header).await.unwrap();
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        stream.read_exact(&mut vec![0; length - header.len()]).await.unwrap();
        stream.write_all(&words).await.unwrap();
        if hang_up {
            stream.shutdown().await.unwrap();
        }
        heard(&mut stream).await
    };
    tokio::join!(peer, tested(&listener))
}

fn says(probe: &PeerProbe, words: &str) {
    assert!(probe.findings.iter().any(|f| f.contains(words)), "{words}: {probe:?}");
}

#[tokio::test]
async fn a_good_peer_is_told_from_its_open_and_hears_of_no_route() {
    let listener = listener().await;
    let (events_in, mut events) = mpsc::channel(8);
    let config = config(listener.local_addr().unwrap().port());
    let served =
        tokio::spawn(receiver::serve(listener, 65020, Ipv4Addr::new(10, 0, 0, 2), events_in));
    for _ in 0..3 {
        let found = probe(&config, &config.peers[0]).await;
        assert_eq!((found.stage, found.good), (ProbeStage::Accepted, true), "{found:?}");
        assert_eq!(
            found.families,
            ["ipv4-unicast", "ipv6-unicast", "ipv4-flowspec", "ipv6-flowspec"]
        );
        assert_eq!(found.missing, [""; 0]);
        assert_eq!(found.from, Some("127.0.0.1".parse().unwrap()));
        let open = found.open.as_ref().unwrap();
        assert_eq!((open.asn, open.id), (65020, Ipv4Addr::new(10, 0, 0, 2)));
    }
    served.abort();
    let _ = served.await;
    while let Some(event) = events.recv().await {
        // The receiver counts from the OPEN on; nothing is announced, not even the end of nothing.
        match event {
            Event::Up { .. } => {}
            Event::Down(why) => assert!(why.contains("administrative shutdown"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_test_says_open_and_takes_leave_and_nothing_else() {
    let mut words = open(65020, &Family::ALL);
    words.extend(keepalive());
    let (heard, found) = against(words, false).await;
    assert!(found.good, "{found:?}");
    assert!(
        matches!(&heard[..], [Message::Notification(why)] if (why.code, why.subcode) == (6, 2)),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_family_that_is_missing_is_named() {
    let mut words = open(65020, &[Family::Ipv4Unicast, Family::Ipv6Unicast]);
    words.extend(keepalive());
    let (_, found) = against(words, false).await;
    assert_eq!((found.stage, found.good), (ProbeStage::Accepted, false));
    assert_eq!(found.missing, ["ipv4-flowspec", "ipv6-flowspec"]);
    says(&found, "does not offer ipv4-flowspec, ipv6-flowspec");
}

#[tokio::test]
async fn another_as_than_configured_is_named() {
    let mut words = open(65099, &Family::ALL);
    words.extend(keepalive());
    let (_, found) = against(words, false).await;
    assert_eq!((found.stage, found.good), (ProbeStage::OpenReceived, false));
    says(&found, "it says that it is AS65099, the configuration says remote_as = 65020");
}

#[tokio::test]
async fn a_refusal_says_what_the_peer_needs() {
    let (_, found) = against(Notification::new(2, 2).write(), true).await;
    assert_eq!((found.stage, found.good), (ProbeStage::Connected, false));
    says(
        &found,
        "it refuses: 2/2 bad peer AS; it needs a neighbour 127.0.0.1 with remote AS 65010",
    );
    let mut words = open(65020, &Family::ALL);
    words.extend(Notification::new(6, 5).write());
    let (_, found) = against(words, true).await;
    assert_eq!((found.stage, found.good), (ProbeStage::OpenReceived, false));
    says(&found, "6/5 connection rejected");
}

#[tokio::test]
async fn who_hangs_up_or_is_no_router_is_told_apart() {
    let (_, found) = against(Vec::new(), true).await;
    says(&found, "hung up without a word: most likely it has not a neighbour 127.0.0.1");
    let (heard, found) = against(b"SSH-2.0-OpenSSH_9.2 and more octets\r\n".to_vec(), false).await;
    says(&found, "is this the right port?");
    assert!(matches!(&heard[..], [Message::Notification(why)] if why.code == 1), "{heard:?}");
    let (_, found) = against(open(65020, &Family::ALL), true).await;
    assert_eq!((found.stage, found.good), (ProbeStage::OpenReceived, false));
    says(&found, "hung up after its OPEN");
}

#[tokio::test]
async fn who_cannot_be_reached_or_is_to_dial_is_told_apart() {
    let port = listener().await.local_addr().unwrap().port();
    let mut config = config(port);
    let found = probe(&config, &config.peers[0]).await;
    assert_eq!((found.stage, found.good), (ProbeStage::Unreachable, false));
    says(&found, "refuses connections to port");
    config.peers[0].local_address = Some("203.0.113.77".parse().unwrap());
    says(&probe(&config, &config.peers[0]).await, "is no address of this machine");
    config.peers[0].password_file = Some("/nonexistent/weir".into());
    says(&probe(&config, &config.peers[0]).await, "password_file");
    config.peers[0].passive = true;
    config.listen = Some("127.0.0.1:1790".parse().unwrap());
    let found = probe(&config, &config.peers[0]).await;
    assert_eq!(found.stage, ProbeStage::NotTried);
    says(&found, "is to dial");
}
