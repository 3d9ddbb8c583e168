//! What the service manager is told (sd_notify(3)): that weir is ready, reads its file again, stops, and
//! that it is alive. Without a service manager nothing is said.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tracing::debug;

/// The service manager's end.
#[derive(Debug, Default)]
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment names it.
    pub fn of_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok();
        Self {
            to: std::env::var_os("NOTIFY_SOCKET").and_then(|socket| open(&socket)),
            watchdog: watchdog(
                text("WATCHDOG_USEC").as_deref(),
                text("WATCHDOG_PID").as_deref(),
                std::process::id(),
            ),
        }
    }

    /// How often [`Self::alive`] is to be said, at least; never when absent.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 3)
    }

    /// Sockets are bound and the first desired state is out.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration file is read again; [`Self::ready`] follows.
    pub fn reloading(&self) {
        // systemd pairs it with the READY=1 that follows by this clock.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_or(0, |t| t.tv_sec().saturating_mul(1_000_000).saturating_add(t.tv_nsec() / 1000));
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// weir was asked to stop.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// What decides still turns.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, words: &str) {
        let Some((socket, to)) = &self.to else { return };
        // Nothing depends on being heard.
        if let Err(error) = socket.send_to_addr(words.as_bytes(), to) {
            debug!(%error, words, "the service manager does not listen");
        }
    }
}

fn open(socket: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let to = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    };
    let own = UnixDatagram::unbound().ok()?;
    // A full queue must not hold anything up.
    own.set_nonblocking(true).ok()?;
    Some((own, to.ok()?))
}

/// The longest silence that the service manager bears, if it watches this process.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let patience = usec?.parse().ok().filter(|usec| *usec > 0).map(Duration::from_micros)?;
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    ours.then_some(patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_a_socket_with_a_path_and_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("weir-test-{}", std::process::id());
        let of_path = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let of_name = UnixDatagram::bind_addr(&address).unwrap();
        for (heard, socket) in
            [(of_path, path.into_os_string()), (of_name, format!("@{name}").into())]
        {
            let manager = Manager { to: open(&socket), watchdog: None };
            manager.ready();
            manager.reloading();
            let mut buffer = [0; 256];
            let read = heard.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], b"READY=1");
            let read = heard.recv(&mut buffer).unwrap();
            assert!(buffer[..read].starts_with(b"RELOADING=1\nMONOTONIC_USEC="));
        }
        Manager::default().ready();
    }

    #[test]
    fn the_watchdog_is_this_process_s_or_nobody_s() {
        let check = |usec, pid, expected: Option<u64>| {
            assert_eq!(watchdog(usec, pid, 7), expected.map(Duration::from_secs));
        };
        check(Some("30000000"), None, Some(30));
        check(Some("30000000"), Some("7"), Some(30));
        check(Some("30000000"), Some("8"), None);
        check(Some("0"), None, None);
        check(Some("soon"), None, None);
        check(None, Some("7"), None);
    }
}
