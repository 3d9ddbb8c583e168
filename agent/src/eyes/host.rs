//! The host's own health, from files that need no privilege.

use std::path::Path;

use crate::protocol::NodeStats;

/// Reads everything under a root, `/` but in tests. A file that is absent or says nothing counts as 0.
pub fn read(root: &Path) -> NodeStats {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let number = |path: &str| text(path).trim().parse().unwrap_or(0);
    let (rx_bytes, rx_packets, tx_bytes, tx_packets) = interfaces(&text("proc/net/dev"));
    NodeStats {
        conntrack: number("proc/sys/net/netfilter/nf_conntrack_count"),
        conntrack_max: number("proc/sys/net/netfilter/nf_conntrack_max"),
        softnet_dropped: softnet_dropped(&text("proc/net/softnet_stat")),
        cpu_pressure: pressure(&text("proc/pressure/cpu")),
        memory_pressure: pressure(&text("proc/pressure/memory")),
        io_pressure: pressure(&text("proc/pressure/io")),
        rx_bytes,
        rx_packets,
        tx_bytes,
        tx_packets,
    }
}

/// `some avg10=0.12 ...`, percent.
pub(crate) fn pressure(text: &str) -> f64 {
    let field = text.lines().find_map(|l| l.strip_prefix("some "));
    let value = field.and_then(|l| l.split(' ').find_map(|f| f.strip_prefix("avg10=")));
    value.and_then(|v| v.parse().ok()).unwrap_or(0.0)
}

/// Second column of each processor's line, hexadecimal.
fn softnet_dropped(text: &str) -> u64 {
    let dropped = |line: &str| {
        let field = line.split_ascii_whitespace().nth(1)?;
        u64::from_str_radix(field, 16).ok()
    };
    text.lines().filter_map(dropped).sum()
}

/// Octets and packets received and sent by all interfaces but loopback.
fn interfaces(text: &str) -> (u64, u64, u64, u64) {
    let mut sum = (0, 0, 0, 0);
    for line in text.lines() {
        let Some((name, fields)) = line.split_once(':') else { continue };
        let fields: Vec<u64> =
            fields.split_ascii_whitespace().filter_map(|f| f.parse().ok()).collect();
        if let ([rx_bytes, rx_packets, ..], Some([tx_bytes, tx_packets])) =
            (fields.as_slice(), fields.get(8..10))
            && name.trim() != "lo"
        {
            sum.0 += rx_bytes;
            sum.1 += rx_packets;
            sum.2 += tx_bytes;
            sum.3 += tx_packets;
        }
    }
    sum
}

/// Names of the interfaces that default routes of either family leave by: where attacks come in.
pub fn default_interfaces(route: &str, route6: &str) -> Vec<String> {
    let v4 = route.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        default.then(|| fields.first().map(|f| (*f).to_owned())).flatten()
    });
    let v6 = route6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let default = fields.get(1) == Some(&"00") && fields.get(9) != Some(&"lo");
        default.then(|| fields.get(9).map(|f| (*f).to_owned())).flatten()
    });
    let mut names: Vec<String> = v4.chain(v6).filter(|n| n != "lo").collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        assert!((pressure("some avg10=1.50 avg60=0.1\nfull avg10=9\n") - 1.5).abs() < 1e-9);
        assert_eq!(softnet_dropped("00 0000000a 0\n00 00000001 0\n"), 11);
        let dev = "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0\n  eth0: 100 2 0 0 0 0 0 0 300 4 0 0\n";
        assert_eq!(interfaces(dev), (100, 2, 300, 4));
        let route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth1\t00000000\t0102A8C0\t3\t0\t0\t0\t00000000\n\
                     eth2\t0002A8C0\t0\t1\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(default_interfaces(route, ""), ["eth1"]);
        assert_eq!(read(Path::new("/nonexistent")), NodeStats::default());
    }
}
