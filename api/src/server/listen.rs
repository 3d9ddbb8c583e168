//! A listening TCP socket, also on an address that this machine does not have yet: at boot weir may be up
//! before its interfaces are.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Calls that the kernel holds for us.
const BACKLOG: i32 = 1024;

/// Listens there. When the address is not this machine's, it is listened on all the same and the log says
/// so: connections come as soon as the address does.
///
/// # Errors
/// When the port is taken or must not be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match open(address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            tracing::warn!(%address, "this machine has no such address yet; weir listens until it comes");
            open(address, true)?
        }
        other => other?,
    };
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn open(address: SocketAddr, anyway: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
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
            let error = open(address, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
            assert_eq!(listen(address).unwrap().local_addr().unwrap().ip(), address.ip());
        }
        let taken = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let again = listen(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
}
