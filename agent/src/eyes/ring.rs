//! A packet ring shared with the kernel (TPACKET_V3): no system call and no wake-up per packet.
//!
//! The one place of this crate that needs unsafe code: the kernel writes blocks of packets into memory that is
//! mapped here. A block belongs to the kernel until its status word says otherwise, and again once it is given
//! back; in between it is read as plain octets, with every offset checked.

#![expect(unsafe_code, reason = "memory shared with the kernel has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Every protocol, in network order.
const ETH_P_ALL: u16 = 3_u16.to_be();

/// Octets of a block; a power of two of pages.
const BLOCK: usize = 64 * 1024;

/// Octets of a frame, which only bounds their number here.
const FRAME: usize = 2048;

/// Octets of the kernel's header of a block that are read here.
const BLOCK_HEADER: usize = 24;

/// One packet as the ring has it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When, nanoseconds since 1970.
    pub nanos: u64,
    /// Octets on the wire, from the Ethernet header on.
    pub length: u32,
    /// What was kept.
    pub kept: &'a [u8],
}

/// What the kernel counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Let through by the filter.
    pub packets: u64,
    /// Of these, not kept for want of room.
    pub dropped: u64,
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    /// A packet socket: tokio waits for any datagram socket alike.
    socket: UnixDatagram,
    map: Map,
    blocks: usize,
    next: usize,
    seen: Seen,
}

#[derive(Debug)]
struct Map {
    start: *mut u8,
    length: usize,
}

// SAFETY: the mapping has one owner, which alone reads it, and belongs to the process rather than to a thread.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned, and nothing borrows from it any more: borrows end with the ring.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

impl Ring {
    /// Opens a ring of so many blocks of 64 KiB on an interface. A block is handed over when it is full, or
    /// `linger_ms` after its first packet. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(
        interface: u32,
        filter: &[SockFilter],
        blocks: usize,
        linger_ms: u32,
    ) -> io::Result<Self> {
        // Without a protocol it receives nothing until it is bound, so nothing comes before the filter.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(filter)?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set(&socket, libc::PACKET_VERSION, &version)?;
        let number = |n: usize| libc::c_uint::try_from(n).map_err(io::Error::other);
        let length = BLOCK * blocks;
        let request = libc::tpacket_req3 {
            tp_block_size: number(BLOCK)?,
            tp_block_nr: number(blocks)?,
            tp_frame_size: number(FRAME)?,
            tp_frame_nr: number(length / FRAME)?,
            tp_retire_blk_tov: linger_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        let map = map(&socket, length)?;
        bind(&socket, interface)?;
        let socket = std::os::unix::net::UnixDatagram::from(OwnedFd::from(socket));
        let socket = UnixDatagram::from_std(socket)?;
        Ok(Self { socket, map, blocks, next: 0, seen: Seen::default() })
    }

    /// Shares its packets with the other rings of a group: each processor's go to one of them
    /// (PACKET_FANOUT_CPU).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn share(&self, group: u16) -> io::Result<()> {
        let argument = libc::PACKET_FANOUT_CPU << 16 | u32::from(group);
        set(&self.socket, libc::PACKET_FANOUT, &argument)
    }

    /// Takes packets that are not for this machine either, as long as the ring is open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn promiscuous(&self, interface: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
            mr_type: libc::c_ushort::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&self.socket, libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    /// Waits for the next block and shows its packets, oldest first; how many there were.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn next(&mut self, mut each: impl FnMut(Packet<'_>)) -> io::Result<u32> {
        while !self.is_ready() {
            self.socket.readable().await?;
            if !self.is_ready() {
                // Tells tokio that what it heard of is done with.
                let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = self.socket.try_io(Interest::READABLE, nothing);
            }
        }
        let packets = walk(self.block(), &mut each);
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.blocks;
        Ok(packets)
    }

    /// What the kernel counted so far.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn seen(&mut self) -> io::Result<Seen> {
        let mut stats = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut length =
            libc::socklen_t::try_from(size_of_val(&stats)).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` octets, the size of the structure that is passed.
        let outcome = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        // Reading sets the kernel's counters back. Packets include those dropped.
        self.seen.packets += u64::from(stats.tp_packets);
        self.seen.dropped += u64::from(stats.tp_drops);
        Ok(self.seen)
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: `next` is below the number of blocks that were mapped.
        unsafe { self.map.start.add(self.next * BLOCK) }
    }

    /// The status word of the next block, which the kernel writes too.
    fn status(&self) -> &AtomicU32 {
        const STATUS: usize = 8;
        // SAFETY: within the block, aligned to four because blocks are aligned to pages, and accessed by both
        // sides as one word only.
        unsafe { AtomicU32::from_ptr(self.start().add(STATUS).cast()) }
    }

    fn is_ready(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The next block, which must be ready.
    fn block(&self) -> &[u8] {
        // SAFETY: mapped for reading as long as `self` lives; the kernel does not write into a block that is
        // ready until its status is set back, for which `next` needs `self` mutably.
        unsafe { std::slice::from_raw_parts(self.start(), BLOCK) }
    }
}

fn set<T>(socket: &impl AsRawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: a plain structure of the kernel's interface, passed with its own size and only read.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn map(socket: &Socket, length: usize) -> io::Result<Map> {
    // SAFETY: a new mapping wherever the kernel likes, of the ring that was asked for just before.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(Map { start: start.cast(), length })
}

fn bind(socket: &Socket, interface: u32) -> io::Result<()> {
    // SAFETY: plain numbers and octets, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = ETH_P_ALL;
    address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: an address of the socket's own family, passed with its size and only read.
    let outcome =
        unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The packets of a block (`tpacket_hdr_v1`, `tpacket3_hdr`); offsets that lead out of it end the walk.
fn walk(block: &[u8], each: &mut impl FnMut(Packet<'_>)) -> u32 {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(block.get(at..at + 4)?.try_into().ok()?))
    };
    let half = |at: usize| -> Option<u16> {
        Some(u16::from_ne_bytes(block.get(at..at + 2)?.try_into().ok()?))
    };
    let at = |n: u32| usize::try_from(n).ok();
    debug_assert!(block.len() >= BLOCK_HEADER);
    let (Some(count), Some(mut offset)) = (word(12), word(16).and_then(at)) else { return 0 };
    let mut walked = 0;
    while walked < count {
        let packet = || {
            let next = at(word(offset)?)?;
            let nanos = u64::from(word(offset + 4)?) * 1_000_000_000 + u64::from(word(offset + 8)?);
            let (kept, length) = (at(word(offset + 12)?)?, word(offset + 16)?);
            let from = offset + usize::from(half(offset + 24)?);
            Some((next, Packet { nanos, length, kept: block.get(from..from + kept)? }))
        };
        let Some((next, packet)) = packet() else { break };
        each(packet);
        walked += 1;
        if next == 0 {
            break;
        }
        offset += next;
    }
    walked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_lead_out_of_a_block_end_the_walk() {
        let mut block = vec![0; 256];
        let mut put =
            |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(12, 3);
        put(16, 48);
        for (at, value) in [(48, 80), (52, 1), (56, 5), (60, 4), (64, 60), (72, 32)] {
            put(at, value);
        }
        // The second leads nowhere.
        for (at, value) in [(128, 4_000_000_000), (140, 4), (144, 60), (152, 32)] {
            put(at, value);
        }
        let mut seen = Vec::new();
        assert_eq!(walk(&block, &mut |p| seen.push((p.nanos, p.length, p.kept.len()))), 2);
        assert_eq!(seen, [(1_000_000_005, 60, 4), (0, 60, 4)]);
        assert_eq!(walk(&[0xff; 64], &mut |_| ()), 0);
    }
}
