use weir_model::Millis;

use super::*;

fn vrp(net: &str, max_len: u8, asn: u32) -> Vrp {
    Vrp { net: net.parse().unwrap(), max_len, asn }
}

#[test]
fn validity_is_that_of_rfc_6811() {
    let mut table = Table::default();
    for v in [
        vrp("203.0.113.0/24", 24, 65010),
        vrp("198.51.100.0/24", 32, 65010),
        vrp("192.0.2.0/24", 24, 65020),
        vrp("2001:db8::/32", 48, 65010),
        vrp("0.0.0.0/0", 0, 65099),
    ] {
        table.insert(v);
    }
    let check = |net: &str, origin, expected| {
        assert_eq!(table.validity(net.parse().unwrap(), origin), expected, "{net} {origin}");
    };
    check("203.0.113.0/24", 65010, Validity::Valid);
    check("203.0.113.7/32", 65010, Validity::TooLong);
    check("198.51.100.7/32", 65010, Validity::Valid);
    check("192.0.2.7/32", 65010, Validity::WrongOrigin);
    check("2001:db8:1::/48", 65010, Validity::Valid);
    check("2001:db8:1::7/128", 65010, Validity::TooLong);
    check("2001:db9::/48", 65010, Validity::NotFound);
    check("10.0.0.0/8", 65010, Validity::WrongOrigin);
    // AS 0 is never valid (RFC 6483 §4).
    table.insert(vrp("2001:db9::/32", 128, 0));
    assert_eq!(table.validity("2001:db9::/48".parse().unwrap(), 0), Validity::WrongOrigin);
}

fn pdu(version: u8, kind: u8, session: u16, body: &[u8]) -> Vec<u8> {
    let mut out = vec![version, kind];
    out.extend(session.to_be_bytes());
    out.extend(u32::try_from(8 + body.len()).unwrap().to_be_bytes());
    out.extend(body);
    out
}

#[test]
fn messages_are_read_and_lies_are_named() {
    let mut reader = Reader::default();
    let mut stream = pdu(1, 3, 7, &[]);
    stream.extend(pdu(1, 4, 0, &[1, 24, 32, 0, 203, 0, 113, 0, 0, 0, 0xfd, 0xf2]));
    stream.extend(pdu(1, 9, 0, &[0; 40]));
    stream.extend(pdu(1, 7, 7, &[0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 7]));
    let mut seen = Vec::new();
    for octet in stream {
        reader.push(&[octet]);
        while let Some(pdu) = reader.next_pdu().unwrap() {
            seen.push(pdu);
        }
    }
    assert_eq!(
        seen,
        [
            Pdu::CacheResponse { session: 7 },
            Pdu::Prefix { announce: true, vrp: vrp("203.0.113.0/24", 32, 65010) },
            Pdu::Other,
            Pdu::EndOfData { session: 7, serial: 5, timing: Some([9, 8, 7]) },
        ]
    );
    let check = |octets: &[u8], error| {
        let mut reader = Reader::default();
        reader.push(octets);
        assert_eq!(reader.next_pdu(), Err(error));
    };
    check(&pdu(2, 3, 7, &[]), PduError::Version(2));
    check(&pdu(1, 3, 7, &[0]), PduError::Length { kind: 3, length: 9 });
    check(&[1, 10, 0, 0, 0xff, 0, 0, 0], PduError::Length { kind: 10, length: 0xff00_0000 });
    check(&pdu(1, 4, 0, &[1, 33, 33, 0, 0, 0, 0, 0, 0, 0, 0, 1]), PduError::Prefix);
    check(&pdu(1, 4, 0, &[1, 24, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1]), PduError::Prefix);
}

#[test]
fn a_cache_that_hangs_up_on_old_numbers_is_asked_for_everything() {
    let mut s = Session::default();
    step(&mut s, 0, Input::Tick);
    // Not there yet: tried again soon.
    step(&mut s, 0, Input::Closed);
    assert_eq!(step(&mut s, 10, Input::Tick), "connect");
    step(&mut s, 10, Input::Connected);
    step(&mut s, 10, Input::Pdu(Pdu::CacheResponse { session: 7 }));
    let end = Pdu::EndOfData { session: 7, serial: 5, timing: Some([60, 10, 600]) };
    assert_eq!(step(&mut s, 10, Input::Pdu(end)), "replace 0");
    // Restarted: a connection that ends without a query says nothing of the numbers.
    step(&mut s, 20, Input::Closed);
    step(&mut s, 30, Input::Tick);
    assert_eq!(step(&mut s, 30, Input::Connected), "serial query 5");
    step(&mut s, 30, Input::Closed);
    step(&mut s, 40, Input::Tick);
    assert_eq!(step(&mut s, 40, Input::Connected), "reset query");
}

/// A session, and what it did, in words.
fn step(session: &mut Session, now: u64, input: Input) -> String {
    let mut out = Vec::new();
    session.handle(Millis(now * 1000), input, &mut out);
    let words = out.iter().map(|o| match o {
        Output::Send(octets) if octets[1] == 2 => "reset query".to_owned(),
        Output::Send(octets) => format!("serial query {}", octets[11]),
        Output::Replace(table) => format!("replace {}", table.len()),
        Output::Change(list) => format!("change {}", list.len()),
        other => format!("{other:?}").to_lowercase(),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_data_follows_the_cache_and_grows_old() {
    let mut s = Session::default();
    let prefix = |announce| Input::Pdu(Pdu::Prefix { announce, vrp: vrp("10.0.0.0/8", 8, 1) });
    let end =
        |serial| Input::Pdu(Pdu::EndOfData { session: 7, serial, timing: Some([60, 10, 600]) });
    let response = |session| Input::Pdu(Pdu::CacheResponse { session });
    assert_eq!(step(&mut s, 0, Input::Tick), "connect");
    assert_eq!(step(&mut s, 0, Input::Connected), "reset query");
    assert_eq!(step(&mut s, 0, response(7)), "");
    assert_eq!(step(&mut s, 0, prefix(true)), "");
    assert_eq!(step(&mut s, 0, end(5)), "replace 1");
    // After the refresh time it asks; a notification makes it ask at once.
    assert_eq!(step(&mut s, 60, Input::Tick), "serial query 5");
    step(&mut s, 60, response(7));
    assert_eq!(step(&mut s, 60, end(5)), "");
    let news = Input::Pdu(Pdu::SerialNotify { session: 7, serial: 6 });
    assert_eq!(step(&mut s, 70, news), "serial query 5");
    step(&mut s, 70, response(7));
    step(&mut s, 70, prefix(false));
    assert_eq!(step(&mut s, 70, end(6)), "change 1");
    // Another session's numbers mean nothing.
    assert_eq!(step(&mut s, 130, Input::Tick), "serial query 6");
    assert_eq!(step(&mut s, 130, response(8)), "reset query");
    step(&mut s, 130, response(8));
    assert_eq!(step(&mut s, 130, end(1)), "replace 0");
    // The cache is gone: retries, and in the end nothing is known.
    assert_eq!(step(&mut s, 140, Input::Closed), "");
    assert_eq!(s.deadline(), Some(Millis(150_000)));
    assert_eq!(step(&mut s, 150, Input::Tick), "connect");
    step(&mut s, 150, Input::Closed);
    assert_eq!(step(&mut s, 730, Input::Tick), "forget, connect");
    assert_eq!(step(&mut s, 730, Input::Connected), "reset query");
}
