//! The packets of an incident: the first few thousand towards the attacked addresses, chosen by a classic BPF
//! filter in the kernel. The socket is closed when there are enough, so a flood costs no more than they do.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::SockFilter;

use super::pcapng::Pcapng;
use super::sampler::packet_socket;
use super::sflow::frame_length;

/// Octets kept of each packet.
pub const SNAP: u32 = 128;

/// Most packets of a capture: 128 octets each and their headers stay below 900 KB.
pub const PACKETS_MAX: usize = 5000;

/// Longest capture.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Most addresses that a filter names.
const TARGETS_MAX: usize = 16;

/// Captures until there are [`PACKETS_MAX`] packets or the time is over. `None` when nothing came.
///
/// # Errors
/// What the kernel says; CAP_NET_RAW is needed.
pub async fn capture(
    interface: (&str, u32),
    targets: &[IpAddr],
    comment: &str,
) -> io::Result<Option<Vec<u8>>> {
    let packets = packet_socket(&filter(interface.1, targets))?;
    let mut file = Pcapng::new(interface.0, SNAP, comment);
    let mut buffer = [0; SNAP as usize];
    let end = tokio::time::Instant::now() + TIME_MAX;
    let mut received = 0;
    let mut last = 0;
    while received < PACKETS_MAX {
        let Ok(length) = tokio::time::timeout_at(end, packets.recv(&mut buffer)).await else {
            break;
        };
        let kept = buffer.get(..length?).unwrap_or_default();
        last = nanos();
        let whole = frame_length(kept).unwrap_or(0);
        file.packet(last, kept, whole.max(u32::try_from(kept.len()).unwrap_or(0)));
        received += 1;
    }
    if received == 0 {
        return Ok(None);
    }
    Ok(Some(file.finish(last, u64::try_from(received).unwrap_or(u64::MAX), 0)))
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
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
