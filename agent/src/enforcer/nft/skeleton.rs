//! The table's frame: made once, then only filled and emptied, so that learned players and counters survive
//! each new version of the rules.
//!
//! ```text
//! pre (prerouting -450)   lo, @mgmt, neighbour discovery -> accept
//!                         @svc counts what services receive, @cst what containers send, @fan to how many
//!                         @blk, @blkn -> drop
//!                         dst vmap @disp  (leased: elements time out)  -> d_* -> r_*
//!                         dst vmap @keep  (standing)                   -> s_* -> r_*
//!                         src vmap @out   (outbound, leased)           -> o_* -> r_*
//! own (output -450)       src vmap @out for what the host itself sends
//! syn_pre, syn_in         SYN cookies for services in @syn4_MSS_SCALE
//! learn_*                 sources of assured conversations with services -> @good
//! answered                @ans counts what services answer, after NAT
//! ```
//!
//! Maps of prefixes shorter than a host are named with the length, `disp4_24`: within one length none overlap,
//! which nft's interval sets do not bear.

/// weir's table; no other program's is ever touched.
pub const TABLE: &str = "weir";

/// Present in the table exactly when the frame is the one below.
pub(super) const MARK: &str = "frame_2";

/// Most sources remembered as players, per family.
const GOOD_MAX: u32 = 65_535;

/// How long a player is remembered after the last packet of an assured conversation.
const GOOD_TIMEOUT: &str = "1h";

/// Most pairs of container and destination counted, per family: who has more has too many.
const FAN_MAX: u32 = 8192;

/// How long a destination counts.
const FAN_TIMEOUT: &str = "10s";

/// The statements that make the table anew, whatever stood there.
pub(super) fn text() -> String {
    let mut text = format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n chain {MARK} {{\n }}\n \
         counter blocked {{\n }}\n"
    );
    for (v, address) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        let sets = [
            ("mgmt", address.to_owned(), "flags interval"),
            ("blk", address.to_owned(), "flags timeout"),
            ("blkn", address.to_owned(), "flags interval,timeout"),
            ("svc", format!("{address} . inet_proto . inet_service"), "counter"),
            ("ans", format!("{address} . inet_proto . inet_service"), "counter"),
            ("own", format!("{address} . inet_proto . inet_service"), ""),
            ("cst", address.to_owned(), "counter"),
        ];
        for (name, kind, rest) in sets {
            text += &format!(" set {name}{v} {{\n  type {kind}\n  {rest}\n }}\n");
        }
        text += &format!(
            " set fan{v} {{\n  type {address} . {address}\n  flags dynamic,timeout\n  \
             timeout {FAN_TIMEOUT}\n  size {FAN_MAX}\n }}\n"
        );
        text += &format!(
            " set good{v} {{\n  type {address} . inet_proto . {address} . inet_service\n  \
             flags dynamic,timeout\n  timeout {GOOD_TIMEOUT}\n  size {GOOD_MAX}\n }}\n"
        );
        for (name, flags) in
            [("disp", "  flags timeout\n"), ("keep", ""), ("out", "  flags timeout\n")]
        {
            text += &format!(" map {name}{v} {{\n  type {address} : verdict\n{flags} }}\n");
        }
    }
    let hooks = [
        ("pre", "prerouting", "-450"),
        ("own", "output", "-450"),
        ("syn_pre", "prerouting", "raw"),
        ("syn_in", "input", "filter"),
        ("learn_fwd", "forward", "filter + 10"),
        ("learn_in", "input", "filter + 10"),
        ("answered", "postrouting", "300"),
    ];
    for (name, hook, priority) in hooks {
        text += &format!(
            " chain {name} {{\n  type filter hook {hook} priority {priority}; policy accept;\n }}\n"
        );
    }
    text += "}\n";
    text
}

/// Chains that are filled anew with each version.
pub(super) const FILLED: [&str; 7] =
    ["pre", "own", "syn_pre", "syn_in", "learn_fwd", "learn_in", "answered"];
