//! The tap shows what is accepted, and never holds the receive path up.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use std::sync::atomic::Ordering;

use support::*;
use weir_collector::Tap;
use weir_model::Slice;

const UP: u32 = 1_000_000;

fn flood(count: u32) -> Vec<Vec<u8>> {
    let record = |n: u32| {
        let src = [198, 51, (n >> 8) as u8, n as u8];
        // Every other one is of nobody's concern here, and is archived all the same.
        let dst = if n.is_multiple_of(2) { [203, 0, 113, 7] } else { [192, 0, 2, 99] };
        v5_record(src, dst, n as u16, UP - 1500, UP - 1000)
    };
    let records: Vec<_> = (0..count).map(record).collect();
    records.chunks(24).enumerate().map(|(n, chunk)| v5(UP, 100, n as u32 * 24, chunk)).collect()
}

#[test]
fn whoever_taps_sees_every_record_and_the_slice_stays_what_it_is() {
    let (tap, state, batches) = Tap::new();
    let (mut plain, mut tapped) = (shard(&config()), shard(&config()));
    tapped.tap(tap);
    let mut slices = [Slice::default(), Slice::default()];
    for (on, expected) in [(false, 0), (true, 1024)] {
        state.on.store(on, Ordering::Relaxed);
        for datagram in flood(1024) {
            plain.datagram(router(), &datagram, NOW).unwrap();
            tapped.datagram(router(), &datagram, NOW).unwrap();
        }
        plain.seal(NOW.slot(), &mut slices[0]);
        tapped.seal(NOW.slot(), &mut slices[1]);
        assert_eq!(slices[0], slices[1]);
        let seen: Vec<_> = batches.try_iter().flatten().collect();
        assert_eq!(seen.len(), expected);
        for (n, flow) in seen.iter().enumerate() {
            assert_eq!((flow.dst_port, flow.exporter), (n as u16, router().ip()));
            assert_eq!((flow.packets, flow.sampling, flow.src_port), (10, 100, 53));
            assert_eq!(flow.end, NOW.0 - 1000);
        }
    }
}

#[test]
fn what_nobody_takes_is_dropped_and_counted() {
    let (tap, state, batches) = Tap::new();
    state.on.store(true, Ordering::Relaxed);
    let mut shard = shard(&config());
    shard.tap(tap);
    let datagrams = flood(1024);
    for _ in 0..200 {
        for datagram in &datagrams {
            shard.datagram(router(), datagram, NOW).unwrap();
        }
    }
    let kept: usize = batches.try_iter().map(|batch| batch.len()).sum();
    let lost = state.lost.load(Ordering::Relaxed) as usize;
    assert_eq!(kept + lost, 200 * 1024);
    assert_eq!(kept, 256 * 512, "as much as may wait");
}
