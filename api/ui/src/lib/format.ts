// Numbers, times, rules and names for people. Rates are those of the wire: SI, never binary.

import type { Action, Brief, Incident, Match, Measure, Mitigation, Range, Rate } from "./types";

const UNITS = ["", "k", "M", "G", "T"];

/** `1.24 M`: three digits, whatever the size. */
export function si(value: number): string {
  if (!Number.isFinite(value)) return "–";
  let scaled = Math.abs(value);
  let unit = 0;
  while (scaled >= 999.5 && unit < UNITS.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  const digits = scaled >= 100 || (unit === 0 && Number.isInteger(scaled)) ? 0 : scaled >= 10 ? 1 : 2;
  return `${value < 0 ? "-" : ""}${scaled.toFixed(digits)}${unit ? " " + UNITS[unit] : ""}`;
}

const unit = (value: number, name: string) => {
  const text = si(value);
  return /[a-zA-Z]$/.test(text) ? text + name : `${text} ${name}`;
};
export const bits = (value: number) => unit(value, "bit/s");
export const packets = (value: number) => unit(value, "pkt/s");
export const rate = (value: Rate) => `${packets(value.packets_per_sec)} · ${bits(value.bits_per_sec)}`;

/** `37 %`; small shares keep a digit. */
export function percent(share: number): string {
  const value = share * 100;
  return `${value !== 0 && Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

const two = (value: number) => String(value).padStart(2, "0");

let utc = localStorage.getItem("weir.utc") === "1";
export const isUtc = () => utc;
export function setUtc(on: boolean): void {
  utc = on;
  localStorage.setItem("weir.utc", on ? "1" : "0");
}

/** `14:03:27`. */
export function clock(ms: number, tenths = false): string {
  const at = new Date(ms);
  const [h, m, s] = utc
    ? [at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()]
    : [at.getHours(), at.getMinutes(), at.getSeconds()];
  return `${two(h)}:${two(m)}:${two(s)}${tenths ? "." + Math.floor(at.getUTCMilliseconds() / 100) : ""}`;
}

/** The beginning of a day as the reader's zone counts it, `2026-11-20`; `NaN` when it is none. */
export const dayBegins = (day: string) => new Date(`${day}T00:00:00${utc ? "Z" : ""}`).getTime();
/** Where the next day begins: not always 24 hours later. */
export function dayEnds(day: string): number {
  const end = new Date(dayBegins(day));
  if (utc) end.setUTCDate(end.getUTCDate() + 1);
  else end.setDate(end.getDate() + 1);
  return end.getTime();
}

/** `2026-11-20 14:03:27`, in the zone the reader chose. */
export function date(ms: number): string {
  const at = new Date(ms);
  const [y, m, d] = utc
    ? [at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate()]
    : [at.getFullYear(), at.getMonth(), at.getDate()];
  return `${y}-${two(m + 1)}-${two(d)} ${clock(ms)}`;
}

/** `4 m 12 s`: two places, no more. */
export function span(ms: number): string {
  const secs = Math.max(0, Math.round(ms / 1000));
  if (secs < 60) return `${secs} s`;
  if (secs < 3600) return `${Math.floor(secs / 60)} m ${secs % 60} s`;
  if (secs < 86_400) return `${Math.floor(secs / 3600)} h ${Math.floor((secs % 3600) / 60)} m`;
  return `${Math.floor(secs / 86_400)} d ${Math.floor((secs % 86_400) / 3600)} h`;
}

/** `+0.4 s`, `+2 m 3 s`: how long after the step before. */
export function latency(ms: number): string {
  return "+" + (ms < 10_000 ? (ms / 1000).toFixed(1) + " s" : span(ms));
}

export const FAMILIES: Record<string, string> = {
  "udp-flood": "UDP flood",
  "syn-flood": "SYN flood",
  "tcp-flood": "TCP flood",
  "http-flood": "HTTP flood",
  "icmp-flood": "ICMP flood",
  "dns-flood": "DNS flood",
  "fragment-flood": "Fragment flood",
  "multi-vector": "Multi-vector",
  unknown: "Unknown attack",
};
export const family = (id: string) => FAMILIES[id] ?? id;

const METRICS: Record<string, string> = {
  "packets-per-sec": "pkt/s",
  "bits-per-sec": "bit/s",
  "syns-per-sec": "SYNs/s",
  "udp-off-service-per-sec": "UDP pkt/s off service ports",
  "icmp-per-sec": "ICMP pkt/s",
  "fragments-per-sec": "fragments/s",
  "sources-per-sec": "new sources/s",
  shape: "shape of the traffic",
  cusum: "cumulative sum above the mean",
  signature: "packets matching a signature",
};
export const metric = (id: string) => METRICS[id] ?? id;
const UNIT_OF: Record<string, string> = { "syns-per-sec": "SYN", "icmp-per-sec": "pkt", "fragments-per-sec": "frag", "sources-per-sec": "src" };
/** A value of a metric with its unit. */
export function measured(id: string, value: number): string {
  if (id === "bits-per-sec") return bits(value);
  if (id === "packets-per-sec" || id === "udp-off-service-per-sec" || id === "signature") return packets(value);
  return id === "shape" || id === "cusum" ? si(value) : unit(value, (UNIT_OF[id] ?? "") + "/s");
}

export const PROTOCOLS: Record<number, string> = { 1: "ICMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 58: "ICMPv6" };
export const protocol = (number: number) => PROTOCOLS[number] ?? `protocol ${number}`;

/** `203.0.113.7` for a host, `203.0.113.0/24` for a prefix. */
export function target(net: string): string {
  return net.includes(":") ? net.replace(/\/128$/, "") : net.replace(/\/32$/, "");
}
export const isHost = (net: string) => target(net) !== net || !net.includes("/");

const range = (value: Range) => (value.from === value.to ? `${value.from}` : `${value.from}–${value.to}`);
const FLAGS = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
const flags = (mask: number) => FLAGS.filter((_, bit) => (mask >> bit) & 1).join("+") || "none";

/** Which packets, in words; the destination left out on request. */
export function packetsOf(match: Match, withTarget = true): string {
  const parts: string[] = [];
  if (match.protocols?.length) parts.push(match.protocols.map(protocol).join(", "));
  if (match.src) parts.push("from " + match.src);
  if (match.src_ports?.length) parts.push("from port " + match.src_ports.map(range).join(", "));
  if (match.dst_ports?.length) parts.push("to port " + match.dst_ports.map(range).join(", "));
  if (match.icmp_types?.length) parts.push("type " + match.icmp_types.join(", "));
  if (match.icmp_codes?.length) parts.push("code " + match.icmp_codes.join(", "));
  if (match.tcp_flags?.length) parts.push("flags " + match.tcp_flags.map((f) => `${flags(f.set)} of ${flags(f.mask)}`).join(" or "));
  if (match.lengths?.length) parts.push("length " + match.lengths.map(range).join(", "));
  if (match.dscps?.length) parts.push("DSCP " + match.dscps.join(", "));
  if (match.fragment) parts.push(match.fragment.replace("-", " "));
  const what = parts.join(", ") || "everything";
  return withTarget ? `${what} → ${target(match.dst)}` : what;
}

export function action(what: Action): string {
  if (what === "drop") return "drop";
  if ("rate-limit" in what) return "limit to " + bits(what["rate-limit"].bytes_per_sec * 8);
  if ("rate-limit-packets" in what) return "limit to " + packets(what["rate-limit-packets"].packets_per_sec);
  if ("mark" in what) return "mark with DSCP " + what.mark.dscp;
  const to = what.redirect;
  if (to.copy) return "copy to " + to.copy;
  return "redirect to " + (to["next-hop"] ?? `${to["route-target"]?.asn}:${to["route-target"]?.value}`);
}

/** A measure in a line. */
export function measure(what: Measure, withTarget = true): string {
  const rule = what["flow-spec"];
  if (rule) return `${action(rule.action)}: ${packetsOf(rule.packets, withTarget)}`;
  if (what.blackhole) return "black-hole " + target(what.blackhole);
  if (what.divert) return "divert " + target(what.divert);
  return "scrub " + target(what.scrub ?? "");
}

export const RUNGS: Record<string, string> = { mark: "mark", "rate-limit": "rate limit", drop: "drop", redirect: "redirect", divert: "divert", rtbh: "black hole", scrub: "scrub" };
export const rung = (id: string | null) => (id ? (RUNGS[id] ?? id) : "nothing yet");

/** Whether a router or node has it: nothing else is "in force". */
export const inForce = (of: Mitigation) => of.state === "active" && of.peers.length > 0;

/** `UDP flood on`, or `from` when the host itself sends it. */
export const titled = (of: { family: string; direction: string }) => `${family(of.family)} ${of.direction === "outbound" ? "from" : "on"}`;

/** What the live stream would say of an incident. */
export function brief(of: Incident): Brief {
  const { verdict: v, mitigations } = of;
  return {
    id: of.id,
    state: of.state,
    opened: of.opened,
    closed: of.closed,
    target: v.target,
    direction: v.direction,
    family: v.family,
    confidence: v.confidence,
    rate: v.rate,
    peak: v.peak,
    discarded: v.discarded,
    legitimate: v.legitimate,
    reason: v.reason,
    rung: of.rung,
    reached: of.reached ?? null,
    held: of.held,
    proposed: mitigations.filter((m) => m.state === "proposed").map((m) => m.id),
    active: mitigations.filter(inForce).length,
    summary: v.summary,
  };
}

/** How far over the threshold: what the severity bars show. */
export const severity = (of: { reason: { value: number; threshold: number } }) =>
  of.reason.threshold > 0 ? of.reason.value / of.reason.threshold : 1;
