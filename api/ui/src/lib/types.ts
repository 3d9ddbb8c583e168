// What the API answers, as far as the pages use it; `openapi.json` says the rest.

export interface Rate {
  packets_per_sec: number;
  bits_per_sec: number;
}
export type Mode = "observe" | "approve" | "auto";
export type Rung = "mark" | "rate-limit" | "drop" | "redirect" | "divert" | "rtbh" | "scrub";
export type Role = "owner" | "admin" | "analyst" | "readonly" | "tenant";

export interface Me {
  name: string;
  role: Role;
  via: string;
  permissions: string[];
  prefixes: string[];
}

export interface Range {
  from: number;
  to: number;
}
export interface Match {
  dst: string;
  src?: string;
  protocols?: number[];
  dst_ports?: Range[];
  src_ports?: Range[];
  icmp_types?: number[];
  icmp_codes?: number[];
  tcp_flags?: { mask: number; set: number }[];
  lengths?: Range[];
  dscps?: number[];
  fragment?: string;
}
export type Action =
  | "drop"
  | { "rate-limit": { bytes_per_sec: number } }
  | { "rate-limit-packets": { packets_per_sec: number } }
  | { redirect: { "route-target"?: { asn: number; value: number }; "next-hop"?: string; copy?: string } }
  | { mark: { dscp: number } };
export interface Measure {
  "flow-spec"?: { packets: Match; action: Action };
  blackhole?: string;
  scrub?: string;
  divert?: string;
}
export type MitigationState = "simulated" | "proposed" | "active" | "withdrawn" | "refused";
export interface Mitigation {
  id: number;
  originator: { incident?: string; operator?: string };
  measure: Measure;
  rung: Rung;
  state: MitigationState;
  since: number;
  expires: number;
  ended: number | null;
  peers: string[];
  note: string;
}

/** A metric of an operator's own. */
export interface OwnMeasure {
  name: string;
  unit: string;
  match: string;
}
export interface Reason {
  metric: string;
  value: number;
  baseline: number;
  multiplier: number;
  threshold: number;
  window_ms: number;
  samples: number;
  sampling: number;
  exporters: string[];
  service: [number, number] | null;
  own?: OwnMeasure;
}
export interface Vector {
  family: string;
  subtype: string;
  share: number;
  rate: Rate;
  src_ports: number[];
  dst_ports: number[];
}
export interface Candidate {
  packets: Match;
  coverage: number;
  coverage_low: number;
  collateral: number;
  collateral_high: number;
  rate: Rate;
  normal_bytes_per_sec: number;
}
export interface Goodput {
  now: Rate;
  normal: Rate;
  expected_samples: number;
}
export interface Verdict {
  at: number;
  target: string;
  direction: string;
  family: string;
  vectors: Vector[];
  confidence: number;
  evidence_groups: number;
  separable: boolean;
  rate: Rate;
  peak: Rate;
  excess: Rate;
  discarded: Rate;
  legitimate: Goodput | null;
  sources: number;
  reason: Reason;
  candidates: Candidate[];
  top_sources: { value: string; share: number }[];
  summary: string;
}
export interface TimelineEntry {
  at: number;
  kind: string;
  text: string;
}
export interface Incident {
  id: string;
  state: "open" | "closed";
  group?: string;
  opened: number;
  closed: number | null;
  verdict: Verdict;
  rung: Rung | null;
  /** The hardest step that a router or node was seen to have. */
  reached?: Rung | null;
  held: boolean;
  mitigations: Mitigation[];
  timeline: TimelineEntry[];
}
export interface Note {
  id: number;
  at: number;
  who: string;
  text: string;
}
export interface Feedback {
  at: number;
  who: string;
  kind: "attack" | "false-positive";
  comment: string;
  exclusion: { packets: Match[]; why: string; expires: number } | null;
}
export interface IncidentPage extends Incident {
  next: { kind: "judge" | "step-down" | "withdraw" | "close"; at: number } | null;
  notes: Note[];
  feedback: Feedback | null;
}

/** An incident as the live stream tells it. */
export interface Brief {
  id: string;
  state: "open" | "closed";
  opened: number;
  closed: number | null;
  target: string;
  direction: string;
  family: string;
  confidence: number;
  rate: Rate;
  peak: Rate;
  discarded: Rate;
  legitimate: Goodput | null;
  reason: Reason;
  rung: Rung | null;
  reached: Rung | null;
  held: boolean;
  proposed: number[];
  active: number;
  summary: string;
}

export interface Overview {
  at: number;
  mode: Mode;
  stance: { mode: Mode; brake: boolean; by: string; at: number; file: Mode } | null;
  incidents_open: number;
  mitigations_active: number;
  mitigations_proposed: number;
  exporters_ok: number;
  exporters_silent: number;
  exporters_without_sampling: number;
  peers_up: number;
  peers: number;
  store: { part: string; since: number; error: string; waiting: number }[];
  uplinks: {
    name: string;
    exporter: string;
    capacity_bits_per_sec: number;
    inbound_bits_per_sec: number;
    outbound_bits_per_sec: number;
    known: boolean;
  }[];
  conditions: { kind: string; subject: string; since: number; text: string }[];
}

export interface Exporter {
  id: number;
  address: string;
  name: string;
  protocol: string | null;
  last_seen: number;
  datagrams: number;
  records: number;
  decode_errors: number;
  drops: { reason: string; count: number }[];
  unknown_templates: number;
  lost: number;
  templates: number;
  sampling: number;
  sampling_source: string;
  lag_ms: number;
  clock_skew_ms: number;
}
export interface Peer {
  name: string;
  address: string;
  asn: number;
  state: string;
  since: number;
  families: string[];
  announced: number;
  flaps: number;
  last_error: string | null;
  bfd: { state: string; lost: number; error: string | null } | null;
}

export interface HostRate {
  host: string;
  now: Rate;
  peak: Rate;
}
export interface HostBaseline {
  metric: string;
  direction: string;
  now: number;
  mean: number;
  p99: number;
  level: number;
  threshold: number;
  source: string;
  seconds: number;
  own?: OwnMeasure;
}
export interface HostBaselines {
  host: string;
  watched: boolean;
  since: number;
  learning: boolean;
  suspect: boolean;
  baselines: HostBaseline[];
}
/** A threshold within bounds of what is learned. */
export interface Bounds {
  multiplier?: number;
  floor?: number;
  ceiling?: number;
}
/** What counts for an address: one value, and whose word it is. */
export interface PolicyValue {
  key: string;
  value: string | number | string[] | Bounds | null;
  source: string;
  in_force: number | null;
}
export interface Policy {
  address: string;
  prefix: string | null;
  groups: string[];
  values: PolicyValue[];
}
export interface Point {
  at: number;
  packets_per_sec: number;
  packets_per_sec_max: number;
  bits_per_sec: number;
  bits_per_sec_max: number;
}

/** One second of everything protected. */
export interface TrafficSecond {
  at: number;
  classes: Rate[];
  services: Rate;
  discarded: Rate;
}
export interface TrafficEvent {
  second: TrafficSecond;
  top: HostRate[];
}

export interface LadderStep {
  rung: Rung;
  above_bits_per_sec: number | null;
  above_packets_per_sec: number | null;
  hold_secs: number;
  how?: string;
}
export interface Unlisted {
  address: string;
  datagrams: number;
  last_seen: number;
}
export interface About {
  version: string;
  started: number;
  flow_listeners: string[];
  protected: string[];
  never_touch: string[];
  infrastructure: { address: string; part: string; name: string }[];
  services: number;
  ladder: LadderStep[];
  socket_drops: number;
  unlisted: Unlisted[];
}
export interface AllowChange {
  prefixes: number;
  added: string[];
  removed: string[];
  added_count: number;
  removed_count: number;
  since: number;
}
export interface AllowList {
  name: string;
  prefixes: number;
  first: string[];
  what: string;
  source: string;
  read: number | null;
  stale: boolean;
  error: string;
  failures: number;
  pending: AllowChange | null;
}
export interface Service {
  address: string;
  protocol: number;
  port: number;
  name: string;
  game: string;
}
export interface DryRun {
  adds: Measure[];
  removes: Measure[];
  normal_share: number | null;
  services: Service[];
}
export interface Setting {
  name: string;
  version: number;
  at: number | null;
  who: string | null;
  value: unknown;
  file: unknown;
  can_undo: boolean;
  before?: unknown;
  spared?: { prefix: string; attacks: number; last: number }[];
}
export interface Exclusion {
  prefix: string;
  why?: string;
  until?: number | null;
}
export interface Group {
  name: string;
  /** Absent of a group that only serves others as parent or template. */
  prefixes?: string[];
  mode?: Mode;
  never?: Rung[];
  learning?: string;
  inbound?: object;
  outbound?: object;
}
export interface PeerProbe {
  stage: string;
  good: boolean;
  from: string | null;
  connect_ms: number | null;
  open: { asn: number; id: string; hold_secs: number; families: string[] } | null;
  findings: string[];
}
export interface Channel {
  name: string;
  address: string;
  enabled: boolean;
  events: string[];
  secret_set: boolean;
}
export interface User {
  name: string;
  role: Role;
  prefixes: string[];
  totp: boolean;
  disabled: boolean;
  created: number;
}
export interface Token {
  id: number;
  name: string;
  role: Role;
  scopes: string[] | null;
  prefixes: string[];
  networks: string[];
  created: number;
  created_by: string;
  expires: number | null;
  used: number | null;
}
export interface AuditEntry {
  seq: number;
  at: number;
  who: string;
  via: string;
  address: string;
  action: string;
  target: string;
  before: string | null;
  after: string | null;
  hash: string;
}
export interface Session {
  id: number;
  created: number;
  seen: number;
  address: string;
  agent: string;
  current: boolean;
}
export interface Agent {
  name: string;
  agent: string | null;
  addresses: string[];
  joined: number;
  last_seen: number | null;
  connected: boolean;
  level: string | null;
  current: boolean;
  rules: number;
  dropped_packets: number;
  failures: string[];
}
export interface AgentDetail {
  apply_ms: number | null;
  neighbours: string[];
  rules: { id: string; state: string; why: string | null; dropped_packets: number; passed_packets: number }[];
  services: { address: string; protocol: number; port: number; received_packets: number; answered_packets: number }[];
  containers: { server: string; packets_per_sec: number; destinations: number; limited: boolean }[];
  conntrack_percent: number | null;
  softnet_dropped: number;
  pressure: [number, number, number];
  events: { at: number; kind: string; text: string }[];
}
export interface Panel {
  name: string;
  connection: string;
  alarms: string[];
  error: string | null;
  last_success: number | null;
  held: number;
  servers: number;
  unmapped: number;
  services: number;
  conflicts: number;
  nodes: { id: number; name: string; mapped: number; unmapped: number }[];
}
export interface PanelServer {
  uuid: string;
  name: string;
  node: string;
  customer: string | null;
  game: string;
  ports: { port: number; addresses: string[]; unmapped: string | null }[];
}
