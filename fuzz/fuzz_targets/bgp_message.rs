//! Everything that a BGP peer can send: framing, OPEN, NOTIFICATION, ROUTE-REFRESH, UPDATE.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_bgp::flowspec::{self, Afi, TrafficAction};
use weir_bgp::wire::{Framer, Message, ReceivedUpdate};

fn update(body: &[u8]) {
    let Ok(update) = ReceivedUpdate::read(body) else { return };
    let _ = update.end_of_rib();
    for community in &update.extended {
        let _ = TrafficAction::decode(*community).map(TrafficAction::to_action);
    }
    for mp in [update.reach, update.unreach].into_iter().flatten() {
        let _ = mp.nets6();
        for afi in [Afi::Ipv4, Afi::Ipv6] {
            assert!(flowspec::decode_all(afi, mp.nlri).count() <= mp.nlri.len());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    // The body of an UPDATE by itself: a fuzzer seldom writes sixteen octets of 0xff.
    update(data);
    let Some((step, data)) = data.split_first() else { return };
    for head in [&[][..], &[0xff; 16][..]] {
        let octets = [head, data].concat();
        let mut framer = Framer::default();
        'stream: for part in octets.chunks(usize::from(*step).max(1)) {
            framer.push(part);
            loop {
                match framer.next_message() {
                    Ok(Some(Message::Update(body))) => update(&body),
                    Ok(Some(Message::Notification(n))) => drop(n.to_string()),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(answer) => {
                        assert!((21..=4096).contains(&answer.write().len()));
                        break 'stream;
                    }
                }
            }
        }
    }
});
