//! Game servers in containers: a real Docker in the node's namespace, containers as Wings makes them.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weir_model::Direction;

use crate::live::{Live, incident, mitigation};
use crate::packet::Packet;
use crate::rules::attacker;
use crate::world::{NODE4, PORT, ip, within};

/// The daemon, until dropped.
struct Docker {
    daemon: Child,
    socket: String,
    folder: std::path::PathBuf,
}

impl Docker {
    /// Not by `ip netns exec`, which would hide the control groups.
    fn new(live: &Live) -> Self {
        let folder = live.world.node.path("docker");
        std::fs::create_dir(&folder).unwrap();
        let socket = format!("unix://{}", live.world.node.path("docker.sock").display());
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let daemon = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", live.world.node.namespace()))
            .args([
                "dockerd",
                "--storage-driver",
                "vfs",
                "--userland-proxy=false",
                "--bridge",
                "none",
            ])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["-H", &socket])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self { daemon, socket, folder };
        live.world.node.wait_for("dockerd", 30, |_| {
            docker.command(&["version"]).output().unwrap().status.success().then_some(())
        });
        docker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.socket]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let out = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "docker {arguments:?}: {said}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// An image of one program, made from this machine's own.
    fn image(&self) {
        let root = self.folder.join("image");
        for file in ["/bin/sleep", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        {
            let to = root.join(&file[1..]);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(file, to).unwrap();
        }
        let tar = self.folder.join("image.tar");
        let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.unwrap().success());
        self.run(&["import", tar.to_str().unwrap(), "tiny"]);
        self.run(&["network", "create", "--subnet", "172.21.0.0/16", "pterodactyl_nw"]);
    }

    fn serve(&self, server: &str, port: u16) {
        let publish = format!("{NODE4}:{port}:{port}/udp");
        self.run(&[
            "run",
            "-d",
            "--name",
            server,
            "--network",
            "pterodactyl_nw",
            "-p",
            &publish,
            "--label",
            "ContainerType=server_process",
            "--label",
            "Service=Pterodactyl",
            "tiny",
            "/bin/sleep",
            "300",
        ]);
    }

    fn address(&self, server: &str) -> String {
        let what = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.run(&["inspect", "-f", what, server])
    }

    /// A socket inside a container.
    fn socket(&self, server: &str) -> UdpSocket {
        let process = self.run(&["inspect", "-f", "{{.State.Pid}}", server]);
        within(&format!("/proc/{process}/ns/net"), || UdpSocket::bind("0.0.0.0:0").unwrap())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for server in ["server-a", "server-b"] {
            let _ = self.command(&["rm", "-f", server]).output();
        }
        let pid = self.daemon.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.daemon.wait();
        for folder in ["data", "exec"] {
            let _ = Command::new("umount").arg("-qR").arg(self.folder.join(folder)).status();
        }
    }
}

/// Sends so many packets a second to the world outside until told to stop.
fn send(socket: &UdpSocket, per_sec: f64, stop: &AtomicBool) {
    let to = SocketAddr::new(ip("198.51.100.1"), 9);
    let (start, mut sent) = (Instant::now(), 0.0);
    while !stop.load(Ordering::Relaxed) {
        if start.elapsed().as_secs_f64() * per_sec > sent {
            // Refused by the far end: nobody listens there.
            let _ = socket.send_to(&[0; 64], to);
            sent += 1.0;
        } else {
            std::thread::yield_now();
        }
    }
}

/// What the kernel limits at the door of the bridge.
fn limited(live: &Live) -> String {
    live.world.node.ask(&["nft", "list", "map", "inet", "weir", "out4"])
}

#[test]
fn a_limit_follows_the_server_through_a_real_docker() {
    const TEST: &str = "agent docker";
    let absent: Vec<&str> = ["dockerd", "docker", "nsenter"]
        .into_iter()
        .filter(|p| crate::lab::find_program(p).is_none())
        .collect();
    if !absent.is_empty() {
        crate::skip(TEST, &format!("not installed: {}", absent.join(", ")));
        return;
    }
    let Some(mut live) = Live::new(TEST, "docker = \"docker.sock\"") else { return };
    // Docker writes its own.
    live.world.node.run(&["nft", "delete", "table", "ip", "nat"]);
    let docker = Docker::new(&live);
    docker.image();
    docker.serve("server-a", PORT);
    docker.serve("server-b", PORT + 1);
    let (a, b) = (docker.address("server-a"), docker.address("server-b"));
    live.wait_report("both servers", |r| {
        let known = |server: &str, address: &str, port: u16| {
            r.containers.iter().any(|c| {
                c.server == server
                    && c.addresses == [ip(address)]
                    && c.ports.iter().any(|p| p.address == ip(NODE4) && p.port == port)
                    && c.veth.is_some()
            })
        };
        known("server-a", &a, PORT) && known("server-b", &b, PORT + 1)
    });
    // Rules for the node's address hold before Docker's own NAT.
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    let over = Duration::from_millis(20);
    live.world.flood(200, over, |n| Packet::udp(attacker(NODE4, n), ip(NODE4), PORT));
    live.wait_report("the drops", |r| {
        r.rules.iter().any(|rule| rule.id == "m1" && rule.dropped.packets == 200)
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let from = docker.socket("server-a");
        let stop = &stop;
        scope.spawn(move || send(&from, 3000.0, stop));
        // Also when an assertion fails, or the scope would wait for ever.
        let _end = OnDrop(stop);
        live.wait_report("what it sends", |r| {
            r.containers.iter().any(|c| c.server == "server-a" && c.packets_per_sec > 1000.0)
        });
        live.incidents = vec![incident(Direction::Outbound)];
        live.want(&[]);
        live.world.node.wait_for("the limit at its door", 15, |_| {
            let map = limited(&live);
            (map.contains(&a) && !map.contains(&b)).then_some(())
        });
        live.wait_report("the limit at work", |r| {
            r.rules.iter().any(|rule| rule.id == "i7.out" && rule.dropped.packets > 500)
        });
    });
    // They restart the other way round, and Docker hands out addresses in order.
    docker.run(&["stop", "-t", "0", "server-a", "server-b"]);
    docker.run(&["start", "server-b"]);
    docker.run(&["start", "server-a"]);
    assert_eq!((docker.address("server-a"), docker.address("server-b")), (b.clone(), a.clone()));
    live.world.node.wait_for("the limit at the new door", 15, |_| {
        let map = limited(&live);
        (map.contains(&b) && !map.contains(&a)).then_some(())
    });
    live.incidents.clear();
    live.want_and_wait(&[]);
    assert!(!limited(&live).contains("172.21"), "{}", limited(&live));
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
