//! What thousands of groups cost a reload: `cargo bench -p weir-config`.
//!
//! One line per figure: name, value, unit, bar. 10,000 groups in a tree of depth 6, each with thresholds; of
//! the second file one group differs.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use weir_model::Millis;

/// Nanoseconds this process has spent on a core: the machine may be shared.
fn spent() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Resident memory of this process, megabytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    let kb = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}

fn file() -> String {
    let mut text = "[protect]\nprefixes = [\"10.0.0.0/12\"]\n".to_owned();
    for (len, count) in [(13_u32, 1_u32), (16, 8), (20, 128), (24, 2048), (28, 4096), (32, 3719)] {
        for i in 0..count {
            let net = Ipv4Addr::from(0x0a00_0000 + (i << (32 - len)));
            let _ = write!(
                text,
                "[[protect.group]]\nname = \"customer {len} {i}\"\nprefixes = [\"{net}/{len}\"]\n\
                 tags = {{ customer = \"{i}\" }}\n[protect.group.inbound]\nmultiplier = 2\n\
                 packets_per_sec = {}\n",
                100_000 + i
            );
        }
    }
    text
}

fn timed<T>(name: &str, bar: &str, work: impl FnOnce() -> T) -> T {
    let start = spent();
    let made = work();
    println!("{name} {:.0} ms {bar}", (spent() - start) as f64 / 1e6);
    made
}

fn main() {
    let text = file();
    let before = resident();
    let (running, _) = timed("groups_10k_read_and_checked", "-", || {
        weir_config::parse(&text).expect("it is good")
    });
    println!("groups_10k_memory_of_the_file {:.1} MB -", resident() - before);
    let other = text.replace("customer = \"4095\"", "customer = \"other\"");
    let begin = spent();
    let (file, _) = weir_config::parse(&other).expect("it is good");
    let plan =
        timed("groups_10k_compared", "-", || weir_config::plan(&running, &file).expect("it goes"));
    assert_eq!((plan.live.len(), plan.restart.len()), (1, 0), "{:?}", plan.live);
    let settings = weir_config::Settings::default();
    let protect = &plan.config.protect;
    let inventory = timed("groups_10k_made_ready", "-", || settings.inventory(protect, Millis(0)));
    println!("groups_10k_reload {:.0} ms 1000", (spent() - begin) as f64 / 1e6);
    let known = inventory.policies;
    let again = timed("groups_10k_unchanged", "-", || settings.renewed(protect, Millis(0), &known));
    assert!(std::sync::Arc::ptr_eq(&again.policies, &known));
}
