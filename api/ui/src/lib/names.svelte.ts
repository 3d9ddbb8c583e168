// Whose address it is, as the inventory says: asked once for each, remembered for the page's life.

import { get, query } from "./api";
import { session } from "./state.svelte";
import type { Service } from "./types";

const KEPT_MAX = 500;

class Names {
  private known = $state<Record<string, Service[]>>({});
  private failed = $state<Record<string, string>>({});
  private asked = new Set<string>();

  /** Declared services of a host or prefix; empty until they are known. */
  of(net: string): Service[] {
    if (!this.asked.has(net) && session.may("hosts:read") && this.asked.size < KEPT_MAX) {
      this.asked.add(net);
      void get<{ services: Service[] }>("/services" + query({ target: net, limit: 20 }))
        .then((found) => (this.known[net] = found.services))
        .catch((error: Error) => (this.failed[net] = error.message));
    }
    return this.known[net] ?? [];
  }

  /** What to say when there are none: that there are none, or that nobody knows. */
  none(net: string, words: string): string {
    return this.known[net] ? words : (this.failed[net] ?? "Not known.");
  }

  /** `lobby (Minecraft)`, or nothing. */
  text(net: string): string {
    const services = this.of(net);
    const names = [...new Set(services.map((s) => s.name || s.game).filter(Boolean))];
    const games = [...new Set(services.map((s) => s.game).filter(Boolean))];
    if (!names.length) return "";
    const more = names.length > 2 ? ` and ${names.length - 2} more` : "";
    return names.slice(0, 2).join(", ") + more + (games.length && games[0] !== names[0] ? ` (${games.slice(0, 2).join(", ")})` : "");
  }
}

export const names = new Names();
