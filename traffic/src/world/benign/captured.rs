//! Applications as captures show them: rates of one conversation, and lengths by their quartiles,
//! measured on nDPI's test captures (and firefall's on the CC0 recording of 2014). Figures only: no
//! packet of them is here.

use super::{FAR, NEAR, Opens, goodbye, handshake, segments};
use crate::source::Port;
use crate::world::crowd::{Shape, Talk};
use crate::world::draw::Place;

/// Shortest, quartiles, longest: layer-3 octets.
type Quartiles = [u16; 5];

/// Name, protocol, server's port (0 for one of no name), packets a second of the client and of the
/// server, lengths of the client's and of the server's.
type Application = (&'static str, u8, u16, f64, f64, Quartiles, Quartiles);

const APPLICATIONS: &[Application] = &[
    ("amqp", 6, 5672, 13.1, 13.1, [89, 91, 148, 257, 381], [52, 52, 52, 52, 52]),
    ("anyconnect", 6, 443, 2.2, 2.0, [52, 52, 169, 185, 1500], [52, 52, 52, 281, 1500]),
    ("capwap", 17, 5247, 1.0, 0.05, [79, 137, 166, 195, 456], [111, 111, 130, 130, 154]),
    ("mqtt", 6, 1883, 2.0, 2.5, [40, 40, 44, 100, 100], [40, 40, 42, 44, 126]),
    ("dnp3", 6, 20_000, 0.8, 0.5, [40, 40, 55, 64, 67], [40, 57, 57, 57, 133]),
    ("doh", 6, 443, 26.5, 17.3, [40, 40, 40, 104, 557], [40, 52, 71, 244, 1340]),
    ("doq", 17, 784, 4.3, 3.5, [58, 60, 62, 94, 1260], [67, 67, 126, 174, 1280]),
    ("fastcgi", 6, 9000, 14.0, 15.8, [52, 52, 52, 52, 1107], [52, 1500, 1500, 1500, 1500]),
    ("firefall", 17, 0, 15.3, 86.9, [39, 39, 139, 139, 1424], [39, 64, 83, 119, 1428]),
    ("forticlient", 6, 10_443, 88.0, 57.5, [52, 52, 129, 129, 1463], [52, 52, 180, 284, 1492]),
    ("git", 6, 9418, 37.1, 44.3, [52, 52, 52, 52, 579], [52, 1492, 1492, 1492, 1492]),
    ("nintendo", 17, 0, 28.6, 47.1, [88, 104, 472, 472, 872], [88, 472, 472, 472, 872]),
    ("openvpn", 17, 1194, 8.1, 4.8, [42, 132, 148, 148, 1476], [50, 129, 145, 769, 1473]),
    ("openvpn-tcp", 6, 465, 16.7, 17.9, [52, 52, 146, 317, 1076], [52, 52, 164, 231, 1500]),
    ("quic", 17, 443, 25.0, 43.9, [65, 68, 68, 68, 1378], [47, 1378, 1378, 1378, 1378]),
    ("youtube-quic", 17, 443, 36.2, 46.4, [63, 66, 66, 150, 1378], [59, 900, 1378, 1378, 1378]),
    ("s7comm", 6, 102, 7.6, 3.5, [40, 47, 52, 133, 381], [40, 40, 71, 337, 337]),
    ("smb", 6, 445, 26.0, 16.4, [40, 40, 40, 436, 516], [40, 144, 452, 524, 1500]),
    ("starcraft", 6, 1119, 32.9, 23.3, [40, 42, 57, 63, 235], [40, 40, 44, 783, 1500]),
    ("t38-fax", 17, 0, 4.2, 31.3, [44, 200, 200, 200, 200], [41, 120, 120, 120, 200]),
    ("tailscale", 17, 41_641, 1.6, 1.8, [120, 120, 138, 156, 156], [120, 120, 138, 156, 156]),
    ("telegram-call", 17, 0, 12.4, 14.4, [60, 204, 220, 236, 268], [76, 204, 220, 220, 284]),
    ("telegram-relay", 17, 0, 16.8, 0.8, [60, 188, 220, 252, 300], [76, 92, 92, 124, 124]),
    ("tor", 6, 443, 0.6, 0.7, [40, 40, 114, 626, 1500], [40, 40, 626, 626, 1500]),
    ("vnc", 6, 6900, 150.4, 64.0, [40, 67, 67, 67, 75], [40, 40, 40, 40, 74]),
    ("whatsapp-chat", 6, 5222, 0.7, 0.6, [52, 52, 52, 105, 1492], [52, 73, 88, 102, 740]),
    ("whatsapp-call", 17, 0, 19.1, 28.6, [54, 86, 92, 103, 511], [50, 52, 53, 74, 474]),
    ("zoom", 17, 8801, 15.9, 24.4, [92, 116, 116, 144, 195], [42, 116, 140, 181, 354]),
];

/// A quarter of the packets between each two of the quartiles.
fn shapes(protocol: u8, quartiles: Quartiles) -> Vec<Shape> {
    let shapes = quartiles.windows(2).map(|q| Shape::new(0.25, (q[0], q[1]))).collect();
    if protocol == 6 { segments(shapes) } else { shapes }
}

/// Many users of one application, whose server the host is, or its users are behind the host.
pub(crate) fn application(p: &mut Place<'_>) {
    let (name, protocol, port, up, down, of_client, of_server) = p.draw.pick(APPLICATIONS);
    let port = if port == 0 { p.draw.high_port() } else { port };
    let busy = p.draw.wide(0.6, 1.7);
    let (up, down) = (up * busy, down * busy);
    let busier = up.max(down);
    let users = p.peak() / busier;
    let server = p.draw.chance(0.7);
    let secs = p.draw.wide(20.0, 900.0);
    let (opens, remote, local) = if server {
        p.declare(protocol, port, "application");
        (Opens::Peer, Port::Session, Port::Fixed(port))
    } else {
        (Opens::Host, Port::Fixed(port), Port::Session)
    };
    let population = if server {
        p.draw.people(users * p.draw.wide(1.5, 20.0) + 4.0)
    } else {
        let servers = p.draw.count(1, 400);
        p.draw.machines(servers)
    };
    let client = Talk::new(up, shapes(protocol, of_client));
    let served = Talk::new(down, shapes(protocol, of_server));
    let (inbound, outbound) = if server { (client, served) } else { (served, client) };
    let (opening, closing) = if protocol == 6 {
        (handshake(opens), goodbye(opens))
    } else {
        let (first, second) = if server { (NEAR, FAR) } else { (FAR, NEAR) };
        let step = |asks: bool, after| {
            let of = if asks { of_client } else { of_server };
            let length = (of[2], of[3]);
            if asks { opens.asks(after, length) } else { opens.answers(after, length) }
        };
        (vec![step(true, (0, 0)), step(false, first), step(true, second)], Vec::new())
    };
    let crowd = p
        .crowd(name, protocol, population)
        .ports(remote, local)
        .present(p.level.clone().times(1.0 / busier), secs)
        .between(opening, closing)
        .talking(inbound, outbound);
    let role = if server { "users" } else { "users behind the host" };
    p.note(format!("{name}, port {port}/{protocol}, {users:.0} {role}"));
    p.add(crowd);
}
