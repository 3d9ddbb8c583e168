use super::*;
use crate::flowspec::Afi;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    frame(kind, body).unwrap()
}

fn first(octets: &[u8]) -> Result<Option<Message>, Notification> {
    let mut framer = Framer::default();
    framer.push(octets);
    framer.next_message()
}

#[test]
fn a_stream_is_cut_at_any_place() {
    let mut stream = keepalive().to_vec();
    stream.extend(message(kind::NOTIFICATION, &[6, 2, 2, b'o', b'k']));
    stream.extend(route_refresh(Family::Ipv6FlowSpec));
    for step in 1..stream.len() {
        let mut framer = Framer::default();
        let mut seen = Vec::new();
        for part in stream.chunks(step) {
            framer.push(part);
            while let Some(message) = framer.next_message().unwrap() {
                seen.push(message);
            }
        }
        let notification = Notification { code: 6, subcode: 2, data: vec![2, b'o', b'k'] };
        assert_eq!(notification.to_string(), "6/2 administrative shutdown: ok");
        assert_eq!(
            seen,
            [
                Message::Keepalive,
                Message::Notification(notification),
                Message::RouteRefresh(Some(Family::Ipv6FlowSpec)),
            ]
        );
    }
}

#[test]
fn bad_headers_are_answered_as_the_rfc_says() {
    let check = |octets: &[u8], code: u8, subcode: u8| {
        let error = first(octets).unwrap_err();
        assert_eq!((error.code, error.subcode), (code, subcode));
    };
    check(&[0; 19], 1, 1);
    let with = |length: u16, kind: u8| {
        let mut octets = vec![0xff; 16];
        octets.extend(length.to_be_bytes());
        octets.push(kind);
        octets
    };
    check(&with(18, 4), 1, 2);
    check(&with(20, 4), 1, 2);
    check(&with(4097, 2), 1, 2);
    check(&with(28, 1), 1, 2);
    check(&with(19, 9), 1, 3);
}

#[test]
fn opens_of_real_routers_are_read() {
    let open = |params: &[u8]| {
        let mut body = vec![4, 0xfd, 0xfc, 0, 9, 10, 0, 0, 20];
        body.extend(params);
        first(&message(kind::OPEN, &body))
    };
    let short = |caps: &[u8]| {
        let len = u8::try_from(caps.len()).unwrap();
        let mut params = vec![len + 2, 2, len];
        params.extend(caps);
        match open(&params) {
            Ok(Some(Message::Open(open))) => open,
            other => panic!("{other:?}"),
        }
    };
    let asn4 = [65, 4, 0xfa, 0x56, 0xea, 0x0a];
    // A family of tomorrow, and capabilities with lengths of their own, cost only themselves.
    for odd in [&[1, 4, 0, 1, 0, 73][..], &[2, 1, 0], &[1, 3, 0, 1, 0], &[200, 0]] {
        let read = short(&[odd, &asn4].concat());
        assert_eq!((read.asn, read.as4), (4_200_000_010, true), "{odd:?}");
    }
    let read = short(&[1, 4, 0, 2, 0, 133, 64, 6, 0x80, 120, 0, 2, 133, 0x80, 2, 0]);
    assert_eq!(read.families.iter().collect::<Vec<_>>(), [Family::Ipv6FlowSpec]);
    let restart = read.graceful_restart.unwrap();
    assert!(restart.restarting && read.route_refresh);
    assert_eq!(restart.time_secs, 120);
    // Without multiprotocol capabilities: IPv4 unicast.
    assert!(short(&asn4).families.contains(Family::Ipv4Unicast));
    // RFC 9072.
    let extended = [255, 255, 0, 9, 2, 0, 6, 65, 4, 0, 0, 0xfd, 0xfc];
    let Ok(Some(Message::Open(read))) = open(&extended) else { panic!() };
    assert_eq!((read.asn, read.as4), (65020, true));
    // Cut short.
    assert_eq!(open(&[9, 2, 7, 65]).unwrap_err().code, codes::OPEN);
}

#[test]
fn opens_that_cannot_be_accepted_are_answered() {
    let check = |version: u8, hold: u16, id: [u8; 4], subcode: u8| {
        let mut body = vec![version, 0xfd, 0xfc];
        body.extend(hold.to_be_bytes());
        body.extend(id);
        body.push(0);
        let error = first(&message(kind::OPEN, &body)).unwrap_err();
        assert_eq!((error.code, error.subcode), (codes::OPEN, subcode));
    };
    check(3, 90, [10, 0, 0, 1], 1);
    check(4, 2, [10, 0, 0, 1], 6);
    check(4, 90, [0; 4], 3);
}

#[test]
fn what_weir_says_of_itself_reads_back() {
    let settings = OpenSettings {
        asn: 4_200_000_010,
        hold_secs: 90,
        id: [10, 0, 0, 1].into(),
        families: Families::ALL,
        restart_secs: Some(120),
        restarting: true,
        long_lived_secs: Some(3600),
    };
    let Ok(Some(Message::Open(open))) = first(&settings.write().unwrap()) else { panic!() };
    assert_eq!(open.asn, settings.asn);
    assert_eq!((open.as4, open.route_refresh, open.long_lived), (true, true, true));
    assert_eq!(open.families, Families::ALL);
    let restart = GracefulRestart {
        restarting: true,
        notification: true,
        time_secs: 120,
        families: Families::ALL,
    };
    assert_eq!(open.graceful_restart, Some(restart));
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|o| format!("{o:02x}")).collect()
}

#[test]
fn updates_are_written_to_the_octet() {
    let check = |octets: Vec<u8>, body: &str| {
        assert_eq!(usize::from(octets[16]) << 8 | usize::from(octets[17]), octets.len());
        assert_eq!(hex(&octets[HEADER..]), body);
    };
    let ebgp = Attributes {
        prepend: Some(65010),
        as4: true,
        communities: vec![0xffff_029a],
        ..Attributes::default()
    };
    let net = "203.0.113.7/32".parse().unwrap();
    check(
        announce_unicast(net, [192, 0, 2, 1].into(), &ebgp).unwrap(),
        "0000001b40010100400206020100\
         00fdf2400304c0000201c00804ffff029a20cb007107",
    );
    check(withdraw_unicast(net).unwrap(), "000520cb0071070000");
    let ibgp = Attributes { local_pref: 200, as4: true, ..Attributes::default() };
    let nlri = [6, 1, 32, 203, 0, 113, 7];
    check(
        announce_flow(Afi::Ipv4, &nlri, &ibgp).unwrap(),
        "0000001d800e0c0001850000060120cb007107 4001010040020040 0504000000c8"
            .replace(' ', "")
            .as_str(),
    );
    check(withdraw_flow(Afi::Ipv4, &nlri).unwrap(), "0000000d800f0a000185060120cb007107");
    check(end_of_rib(Family::Ipv4Unicast).unwrap(), "00000000");
    check(end_of_rib(Family::Ipv6FlowSpec).unwrap(), "00000006800f03000285");
    let old = Attributes { prepend: Some(4_200_000_010), ..Attributes::default() };
    check(
        announce_unicast(net, [192, 0, 2, 1].into(), &old).unwrap(),
        "0000001b 400101004002040201 5ba0 400304c0000201 c0110602 01fa56ea0a 20cb007107"
            .replace(' ', "")
            .as_str(),
    );
}

#[test]
fn the_routes_stand_before_what_could_be_wrong_about_them() {
    let attributes = Attributes { communities: vec![1], as4: true, ..Attributes::default() };
    let next_hop = "100::1".parse().unwrap();
    for octets in [
        announce_flow(Afi::Ipv6, &[1, 2], &attributes).unwrap(),
        announce_unicast("2001:db8::7/128".parse().unwrap(), next_hop, &attributes).unwrap(),
    ] {
        // No withdrawn routes; then the first attribute: flags and type.
        assert_eq!(octets[HEADER..HEADER + 2], [0, 0]);
        assert_eq!(octets[HEADER + 5], 14, "{}", hex(&octets));
    }
}

#[test]
fn a_hard_reset_carries_its_cause() {
    let hard = Notification::shutdown("bye").hard();
    assert_eq!((hard.code, hard.subcode), (codes::CEASE, cease::HARD_RESET));
    assert_eq!(hard.cause(), (codes::CEASE, cease::SHUTDOWN, &[3, b'b', b'y', b'e'][..]));
    assert_eq!(hard.to_string(), "6/9 hard reset, 6/2 administrative shutdown: bye");
    let bare = Notification::new(codes::CEASE, cease::HARD_RESET);
    assert_eq!(bare.cause(), (codes::CEASE, cease::HARD_RESET, &[][..]));
}

#[test]
fn long_attributes_keep_their_length() {
    let nlri = vec![0; 300];
    let attributes =
        Attributes { communities: (0..90).collect(), as4: true, ..Attributes::default() };
    let octets = announce_flow(Afi::Ipv6, &nlri, &attributes).unwrap();
    let update = ReceivedUpdate::read(&octets[HEADER..]).unwrap();
    assert_eq!(update.communities.len(), 90);
    assert_eq!(update.reach.unwrap().nlri.len(), 300);
    let huge = Attributes { communities: (0..2000).collect(), ..attributes };
    assert!(matches!(announce_flow(Afi::Ipv6, &nlri, &huge), Err(WriteError::TooLong(_))));
}

#[test]
fn damaged_updates_are_named() {
    let check = |body: &[u8], error| assert_eq!(ReceivedUpdate::read(body), Err(error));
    check(&[], UpdateError::Truncated);
    check(&[0, 9, 0, 0], UpdateError::Truncated);
    check(&[0, 0, 0, 9, 0], UpdateError::Truncated);
    check(&[0, 0, 0, 2, 0x40, 1], UpdateError::Truncated);
    check(&[0, 0, 0, 4, 0x40, 3, 1, 9], UpdateError::Attribute(3));
    check(&[0, 0, 0, 0, 33, 1, 2, 3, 4, 5], UpdateError::Prefix(33));
    check(&[0, 0, 0, 0, 32, 1], UpdateError::Truncated);
}
