//! Socket options of BGP that no safe wrapper has: TCP MD5 signatures (RFC 2385) and the minimum
//! TTL of GTSM (RFC 5082). Linux only, as weir is. Neither needs a privilege.
#![expect(unsafe_code, reason = "setsockopt with structures of the kernel")]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};

use weir_model::Secret;

/// Longest key that the kernel takes, octets.
const KEY_MAX: usize = 80;

/// Octets of `struct sockaddr_storage`.
const ADDRESS: usize = 128;

/// TTL of packets that have crossed no router.
const TTL_MAX: c_int = 255;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C, align(8))]
struct Md5Signature {
    /// `struct sockaddr_storage`: family in the machine's order, port 0, address.
    address: [u8; ADDRESS],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: c_int,
    key: [u8; KEY_MAX],
}

fn set<T>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `fd` is open for the length of the borrow; `value` is valid for reads of `length`
    // octets, and the kernel does not keep the pointer.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signs segments to `peer` and refuses those from it that are not signed. `ipv6_socket` says that
/// the socket is of IPv6, where an IPv4 peer is named by its mapped address.
///
/// # Errors
/// As the kernel says: without TCP MD5 in it, or with a key of more than 80 octets.
pub(super) fn md5(
    fd: BorrowedFd<'_>,
    ipv6_socket: bool,
    peer: IpAddr,
    key: &Secret,
) -> io::Result<()> {
    let key = key.expose().as_bytes();
    if key.len() > KEY_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut signature = Md5Signature {
        address: [0; ADDRESS],
        flags: 0,
        prefix_len: 0,
        key_len: u16::try_from(key.len()).map_err(io::Error::other)?,
        interface: 0,
        key: [0; KEY_MAX],
    };
    signature.key[..key.len()].copy_from_slice(key);
    // `sockaddr_in`: family (2), port (2), address (4). `sockaddr_in6`: family (2), port (2),
    // flow information (4), address (16).
    let mut put = |family: c_int, at: usize, octets: &[u8]| {
        let family = libc::sa_family_t::try_from(family).unwrap_or_default();
        signature.address[..2].copy_from_slice(&family.to_ne_bytes());
        signature.address[at..at + octets.len()].copy_from_slice(octets);
    };
    match (ipv6_socket, peer) {
        (false, IpAddr::V4(a)) => put(libc::AF_INET, 4, &a.octets()),
        (true, IpAddr::V4(a)) => put(libc::AF_INET6, 8, &Ipv6Addr::octets(&a.to_ipv6_mapped())),
        (_, IpAddr::V6(a)) => put(libc::AF_INET6, 8, &a.octets()),
    }
    set(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

/// Sends with TTL 255, as a peer with GTSM asks for.
///
/// # Errors
/// As the kernel says.
pub(super) fn send_ttl_max(fd: BorrowedFd<'_>, ipv6_socket: bool) -> io::Result<()> {
    if ipv6_socket {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &TTL_MAX)?;
    }
    // An IPv6 socket may carry IPv4 too.
    set(fd, libc::IPPROTO_IP, libc::IP_TTL, &TTL_MAX)
}

/// Takes packets with TTL 255 only: no one beyond the link can send them.
///
/// # Errors
/// As the kernel says.
pub(super) fn receive_ttl_max(fd: BorrowedFd<'_>, ipv6_socket: bool) -> io::Result<()> {
    if ipv6_socket {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &TTL_MAX)?;
    }
    set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, &TTL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_layout_is_kept() {
        assert_eq!(size_of::<Md5Signature>(), 216);
    }
}
