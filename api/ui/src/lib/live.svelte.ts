// What happens, as weir tells it: one stream for all pages. The browser comes back by itself with the
// last event's id; `lost` means that something is missing and all is fetched anew.

import { get } from "./api";
import { brief } from "./format";
import { session } from "./state.svelte";
import type { Brief, Exporter, HostRate, Incident, Mitigation, Overview, Peer, TrafficEvent, TrafficSecond } from "./types";

/** Seconds of traffic kept. */
export const SECONDS = 3600;
/** Incidents kept, open ones first. */
const INCIDENTS_MAX = 300;
const SPARK = 90;

class Live {
  status = $state.raw<Overview | null>(null);
  incidents = $state.raw<Brief[]>([]);
  mitigations = $state.raw<Mitigation[]>([]);
  exporters = $state.raw<Exporter[]>([]);
  peers = $state.raw<Peer[]>([]);
  top = $state.raw<HostRate[]>([]);
  /** Oldest first; the array is one and the same, `tick` says that it changed. */
  seconds: TrafficSecond[] = [];
  tick = $state(0);
  connected = $state(false);
  /** Whether the lists have been fetched once. */
  loaded = $state(false);
  /** Why the lists may be old or incomplete. */
  problem = $state("");
  /** Records a second of each exporter. */
  speed = $state.raw<Record<number, number>>({});
  /** The last rates of open incidents, for small charts. */
  sparks: Record<string, number[]> = {};

  private stream: EventSource | null = null;
  private asked = 0;
  private counted = new Map<number, { at: number; records: number }>();

  open = $derived(this.incidents.filter((incident) => incident.state === "open"));

  start(): void {
    if (this.stream) return;
    const stream = new EventSource("/api/v1/live");
    this.stream = stream;
    stream.onopen = () => {
      this.connected = true;
      if (!this.loaded) void this.fetch();
    };
    stream.onerror = () => {
      this.connected = false;
      // Closed for good: signed out, or weir is away for longer.
      if (stream.readyState === EventSource.CLOSED) {
        this.stop();
        const again = (): void => {
          const back = () => session.resume().then(() => session.me && this.start());
          setTimeout(() => void back().catch(again), 2000);
        };
        again();
      }
    };
    const on = <T>(topic: string, take: (data: T) => void) =>
      stream.addEventListener(topic, (event) => take(JSON.parse((event as MessageEvent<string>).data) as T));
    on<Overview>("status", (status) => (this.status = status));
    on<Brief>("incident", (incident) => this.takeIncident(incident));
    on<Mitigation>("mitigation", (mitigation) => this.takeMitigation(mitigation));
    on<Exporter[]>("exporters", (exporters) => this.takeExporters(exporters));
    on<Peer[]>("peers", (peers) => (this.peers = peers));
    on<TrafficEvent>("traffic", (traffic) => this.takeTraffic(traffic));
    stream.addEventListener("lost", () => void this.fetch());
  }

  stop(): void {
    this.stream?.close();
    this.stream = null;
    this.connected = false;
    this.loaded = false;
  }

  /** Everything as it is now. */
  async fetch(): Promise<void> {
    const asked = ++this.asked;
    const sees = (permission: string) => session.may(permission);
    let problem = "";
    const told = <T>(list: Promise<T>) => list.catch((error: Error) => ((problem = error.message), null));
    const [incidents, closed, mitigations, traffic] = await Promise.all([
      told(get<{ incidents: Incident[] }>("/incidents?state=open&limit=200")),
      told(get<{ incidents: Incident[] }>("/incidents?state=closed&limit=10")),
      told(get<{ mitigations: Mitigation[] }>("/mitigations")),
      sees("status:read") ? told(get<{ seconds: TrafficSecond[] }>("/traffic")) : null,
    ]);
    if (asked !== this.asked) return;
    this.problem = problem;
    if (problem) setTimeout(() => this.stream && asked === this.asked && void this.fetch(), 5000);
    if (incidents) this.incidents = [...incidents.incidents, ...(closed?.incidents ?? [])].map(brief);
    if (mitigations) this.mitigations = mitigations.mitigations;
    if (traffic) {
      const first = traffic.seconds[0]?.at ?? Infinity;
      this.seconds = [...this.seconds.filter((second) => second.at < first), ...traffic.seconds];
      this.tick += 1;
    }
    // What could not be asked for is not the same as nothing.
    if (incidents && mitigations) this.loaded = true;
  }

  private takeIncident(incident: Brief): void {
    const at = this.incidents.findIndex((known) => known.id === incident.id);
    if (at >= 0) this.incidents = this.incidents.with(at, incident);
    else this.incidents = [incident, ...this.incidents].slice(0, INCIDENTS_MAX);
    const spark = (this.sparks[incident.id] ??= []);
    spark.push(incident.rate.packets_per_sec);
    if (spark.length > SPARK) spark.shift();
    if (incident.state === "closed") delete this.sparks[incident.id];
  }

  private takeMitigation(mitigation: Mitigation): void {
    const at = this.mitigations.findIndex((known) => known.id === mitigation.id);
    if (at >= 0) this.mitigations = this.mitigations.with(at, mitigation);
    else this.mitigations = [mitigation, ...this.mitigations].slice(0, 2000);
  }

  private takeExporters(exporters: Exporter[]): void {
    const now = performance.now();
    const speed: Record<number, number> = {};
    for (const exporter of exporters) {
      const before = this.counted.get(exporter.id);
      const passed = before ? (now - before.at) / 1000 : 0;
      if (before && passed < 0.5) {
        speed[exporter.id] = this.speed[exporter.id] ?? 0;
        continue;
      }
      if (before) speed[exporter.id] = Math.max(0, (exporter.records - before.records) / passed);
      this.counted.set(exporter.id, { at: now, records: exporter.records });
    }
    this.speed = speed;
    this.exporters = exporters;
  }

  private takeTraffic(traffic: TrafficEvent): void {
    const last = this.seconds.at(-1);
    if (!last || traffic.second.at > last.at) {
      this.seconds.push(traffic.second);
      if (this.seconds.length > SECONDS) this.seconds.shift();
    }
    this.top = traffic.top;
    this.tick += 1;
  }
}

export const live = new Live();

/** Runs `act` at once and then every `ms`; gives what ends it. */
export function every(ms: number, act: () => void): () => void {
  act();
  const timer = setInterval(act, ms);
  return () => clearInterval(timer);
}

/** The time, to the second, for ages and countdowns. */
class Now {
  ms = $state(Date.now());
  constructor() {
    setInterval(() => (this.ms = Date.now()), 1000);
  }
}
export const now = new Now();
