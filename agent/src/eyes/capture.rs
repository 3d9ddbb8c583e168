//! The packets of an incident: the last ones before it, then the first few thousand towards the attacked
//! addresses, chosen by a classic BPF filter in the kernel. The ring is closed when there are enough, so a flood
//! costs no more than they do.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use socket2::SockFilter;

use super::history::Kept;
use super::pcapng::Pcapng;
use super::ring::{Ring, Seen};

/// Octets kept of each packet.
pub const SNAP: u32 = 128;

/// Most packets of an incident in a capture. With those from before it, 128 octets each and their headers, a file
/// stays below 1.9 MB.
pub const PACKETS_MAX: usize = 5000;

/// Longest capture.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Blocks of 64 KiB of the ring: 2 MiB, more than a capture has.
const BLOCKS: usize = 32;

/// How long a packet may wait for others, milliseconds.
const LINGER_MS: u32 = 100;

/// Most addresses that a filter names.
const TARGETS_MAX: usize = 16;

/// Captures until there are [`PACKETS_MAX`] packets or the time is over, behind what was `before`. `None` when
/// there is nothing at all.
///
/// # Errors
/// What the kernel says; CAP_NET_RAW is needed.
pub async fn capture(
    interface: (&str, u32),
    targets: &[IpAddr],
    before: (Vec<Kept>, Seen),
    comment: &str,
) -> io::Result<Option<Vec<u8>>> {
    let mut ring = Ring::open(interface.1, &filter(interface.1, targets), BLOCKS, LINGER_MS)?;
    let mut file = Pcapng::new(interface.0, SNAP, comment);
    let (before, seen_before) = before;
    let mut last = 0;
    for kept in &before {
        last = kept.nanos;
        file.packet(kept.nanos, kept.octets(), kept.length);
    }
    let end = tokio::time::Instant::now() + TIME_MAX;
    let mut received = 0;
    while received < PACKETS_MAX {
        let next = ring.next(|packet| {
            if received < PACKETS_MAX {
                received += 1;
                last = packet.nanos.max(last);
                file.packet(packet.nanos, packet.kept, packet.length);
            }
        });
        let Ok(done) = tokio::time::timeout_at(end, next).await else { break };
        done?;
    }
    if received == 0 && before.is_empty() {
        return Ok(None);
    }
    let seen = ring.seen()?;
    let all = seen.packets + seen_before.packets;
    Ok(Some(file.finish(last, all, seen.dropped + seen_before.dropped)))
}

/// Packets that come in by the interface for one of the targets. An Ethernet header has 14 octets, the
/// destination stands at 16 of an IPv4 header and at 24 of an IPv6 header.
fn filter(interface: u32, targets: &[IpAddr]) -> Vec<SockFilter> {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const INTERFACE: u32 = 0xffff_f008;
    let op = |code, k, jt, jf| SockFilter::new(code, jt, jf, k);
    let mut program =
        vec![op(LOAD_WORD, INTERFACE, 0, 0), op(JUMP_EQUAL, interface, 1, 0), op(RETURN, 0, 0, 0)];
    for target in targets.iter().take(TARGETS_MAX) {
        let (kind, at, octets) = match target {
            IpAddr::V4(a) => (0x0800, 14 + 16, a.octets().to_vec()),
            IpAddr::V6(a) => (0x86dd, 14 + 24, a.octets().to_vec()),
        };
        let words: Vec<u32> =
            octets.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]])).collect();
        // What is left of this target's part, counted from behind the jump.
        let mut left = u8::try_from(2 * words.len() + 1).unwrap_or(0);
        program.push(op(LOAD_HALF, 12, 0, 0));
        program.push(op(JUMP_EQUAL, kind, 0, left));
        for (word, offset) in words.into_iter().zip((at..).step_by(4)) {
            left = left.saturating_sub(2);
            program.push(op(LOAD_WORD, offset, 0, 0));
            program.push(op(JUMP_EQUAL, word, 0, left));
        }
        program.push(op(RETURN, SNAP, 0, 0));
    }
    program.push(op(RETURN, 0, 0, 0));
    program
}
