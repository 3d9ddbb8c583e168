//! The packet ring under load: nothing lost, next to no work.

use std::io::IoSlice;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{LinkAddr, MsgFlags, MultiHeaders, bind, sendmmsg};
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, oneshot};
use weir_agent::eyes::history;
use weir_agent::eyes::ring::Seen;

use crate::live::RELEASE;
use crate::packet::Packet;
use crate::rules::attacker;
use crate::world::{NODE4, PORT, World, inside, ip};

/// Packets in one system call.
const BATCH: usize = 64;

/// Sends frames that no host answers to, `rate` a second, for some time; how many.
fn flood(world: &World, rate: f64, time: Duration) -> u64 {
    let socket = inside(&world.outside, || {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        let mut interfaces = nix::ifaddrs::getifaddrs().unwrap();
        let link: LinkAddr = interfaces
            .find_map(|i| i.address.filter(|_| i.interface_name == "va0")?.as_link_addr().copied())
            .unwrap();
        bind(socket.as_raw_fd(), &link).unwrap();
        socket
    });
    let frames: Vec<Vec<u8>> = (0..u32::try_from(BATCH).unwrap())
        .map(|n| {
            let header = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0];
            [&header[..], &Packet::udp(attacker(NODE4, n), ip(NODE4), PORT).bytes()].concat()
        })
        .collect();
    let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|f| [IoSlice::new(f)]).collect();
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let nobody = [None; BATCH];
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        let due = start.elapsed().as_secs_f64() * rate;
        #[expect(clippy::cast_precision_loss, reason = "a few million packets")]
        let behind = due > sent as f64;
        if behind {
            let flags = MsgFlags::empty();
            let done = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nobody, [], flags);
            sent += done.map_or(0, |results| u64::try_from(results.count()).unwrap());
        } else {
            std::hint::spin_loop();
        }
    }
    sent
}

/// Follows packets on a thread of its own; hands back what was seen and how long it worked.
fn follow(interface: u32, mut done: oneshot::Receiver<()>) -> (Seen, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let (questions, asked) = mpsc::channel(1);
        let following = tokio::spawn(history::follow(interface, asked));
        let _ = (&mut done).await;
        let (question, answer) = oneshot::channel();
        questions.send(question).await.unwrap();
        let (packets, seen) = answer.await.unwrap();
        // 64 senders: the first packets of each second, and no sender twice beyond them.
        let seconds = usize::try_from(history::SECONDS).unwrap();
        assert!(
            (250..=history::PER_SECOND * seconds).contains(&packets.len()),
            "{}",
            packets.len()
        );
        assert!(packets.windows(2).all(|w| w[0].nanos <= w[1].nanos));
        drop(questions);
        following.await.unwrap().unwrap();
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        (seen, Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap()))
    })
}

#[test]
fn three_hundred_thousand_packets_a_second_cost_little_and_none_is_lost() {
    let Some(world) = World::new("agent packet ring") else { return };
    let (rate, time) = if RELEASE {
        (300_000.0, Duration::from_secs(4))
    } else {
        (60_000.0, Duration::from_secs(2))
    };
    let (tell, done) = oneshot::channel();
    let (sent, (seen, worked)) = std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            inside(&world.node, || {
                let interface = nix::net::if_::if_nametoindex("vn0").unwrap();
                follow(interface, done)
            })
        });
        // The ring must stand before the first packet that counts.
        world.node.wait_for("the ring", 10, |node| {
            let packets = node.run(&["cat", "/proc/net/packet"]);
            // Bound to an interface, for every protocol.
            packets.contains(" 0003 ").then_some(())
        });
        let sent = flood(&world, rate, time);
        tell.send(()).unwrap();
        (sent, follower.join().unwrap())
    });
    let share = worked.as_secs_f64() / time.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a few million packets")]
    let pps = sent as f64 / time.as_secs_f64();
    eprintln!(
        "{pps:.0} packets/s: {} seen, {} lost, {:.2} % of a core",
        seen.packets,
        seen.dropped,
        share * 100.0
    );
    assert!(seen.packets * 10 >= sent * 9, "{seen:?} of {sent}");
    if RELEASE {
        assert!(seen.packets >= sent, "{seen:?} of {sent}");
        assert_eq!(seen.dropped, 0);
        assert!(pps >= 0.9 * rate, "the sender made only {pps:.0}");
        assert!(share <= 0.03, "{share}");
    }
}
