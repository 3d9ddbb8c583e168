//! A listening TCP socket, also on an address that this machine does not have yet: at boot weir may be up
//! before its interfaces are.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Calls that the kernel holds for us.
const BACKLOG: i32 = 1024;

/// Listens there. When the address is not this machine's, it is listened on all the same and the log says
/// so: connections come as soon as the address does.
///
/// # Errors
/// When the port is taken or must not be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(bind(address, None)?)
}

/// As [`listen`], outside of a runtime. `before` is the socket whose place it takes, which stays open: what
/// calls there is still heard until it is closed.
///
/// # Errors
/// As [`listen`].
pub fn bind(
    address: SocketAddr,
    before: Option<&std::net::TcpListener>,
) -> io::Result<std::net::TcpListener> {
    // One of the two may hold the other's address: both are needed for a moment, and by nobody else.
    let before = before.map(SockRef::from);
    let share = |on| before.as_ref().map_or(Ok(()), |before| before.set_reuse_port(on));
    share(true)?;
    let bound = bind_beside(address, before.is_some());
    share(false)?;
    bound
}

fn bind_beside(address: SocketAddr, beside: bool) -> io::Result<std::net::TcpListener> {
    let socket = match open(address, false, beside) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            tracing::warn!(%address, "this machine has no such address yet; weir listens until it comes");
            open(address, true, beside)?
        }
        other => other?,
    };
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

fn open(address: SocketAddr, anyway: bool, beside: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(beside)?;
    match address {
        SocketAddr::V4(_) if anyway => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) if anyway => socket.set_freebind_v6(true)?,
        _ => {}
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_not_there_yet_is_listened_on() {
        // TEST-NET-3 and the documentation prefix: nobody's.
        for address in ["203.0.113.77:0", "[2001:db8::77]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let error = open(address, false, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
            assert_eq!(listen(address).unwrap().local_addr().unwrap().ip(), address.ip());
        }
        let taken = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let again = listen(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_socket_takes_the_place_of_another_that_stays_open_meanwhile() {
        let old = bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let at = old.local_addr().unwrap();
        let wide = SocketAddr::from(([0, 0, 0, 0], at.port()));
        assert_eq!(bind(wide, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let new = bind(wide, Some(&old)).unwrap();
        assert!(std::net::TcpStream::connect(at).is_ok());
        drop(old);
        assert!(std::net::TcpStream::connect(at).is_ok());
        assert!(bind(at, None).is_err(), "neither is shared with anybody else");
        drop(new);
    }
}
