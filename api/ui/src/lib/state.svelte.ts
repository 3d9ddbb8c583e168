// Who is signed in, which page is shown, and in what light.

import { get, Problem, whenSignedOut } from "./api";
import { isUtc, setUtc } from "./format";
import type { About, Me } from "./types";

class Session {
  me = $state<Me | null>(null);
  about = $state<About | null>(null);
  /** Weir waits for its first account. */
  setup = $state(false);
  loading = $state(true);
  error = $state("");
  /** Why `about` may be old. */
  aboutProblem = $state("");

  may(permission: string): boolean {
    return this.me?.permissions.includes(permission) ?? false;
  }

  async start(): Promise<void> {
    whenSignedOut(() => (this.me = null));
    try {
      this.setup = (await get<{ needed: boolean }>("/setup")).needed;
      if (!this.setup) await this.resume();
      this.error = "";
    } catch (error) {
      this.error = (error as Error).message;
    }
    this.loading = false;
  }

  async resume(): Promise<void> {
    try {
      this.enter(await get<Me>("/me"));
    } catch (error) {
      // Only weir itself says that somebody is signed out; that it does not answer says nothing.
      if (!(error instanceof Problem) || (error.status !== 401 && error.status !== 403)) throw error;
      this.me = null;
    }
  }

  enter(me: Me): void {
    this.me = me;
    this.setup = false;
    void this.refresh();
  }

  async refresh(): Promise<void> {
    if (!this.may("status:read")) return;
    try {
      this.about = await get<About>("/about");
      this.aboutProblem = "";
    } catch (error) {
      this.aboutProblem = (error as Error).message;
    }
  }
}

export const session = new Session();

/** `#/incidents/abc?x=1`: path and query of the page. */
class Route {
  path = $state<string[]>([]);
  query = $state(new URLSearchParams());

  constructor() {
    this.read();
    addEventListener("hashchange", () => this.read());
  }

  private read(): void {
    const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    this.path = path.split("/").filter(Boolean).map(decodeURIComponent);
    this.query = new URLSearchParams(query);
  }

  get page(): string {
    return this.path[0] ?? "overview";
  }

  /** Puts filters into the address without a step in the history. */
  replaceQuery(values: Record<string, string>): void {
    const params = new URLSearchParams();
    for (const [name, value] of Object.entries(values)) if (value) params.set(name, value);
    const text = params.toString();
    history.replaceState(null, "", `#/${this.path.map(encodeURIComponent).join("/")}${text && "?" + text}`);
    this.query = params;
  }
}

export const route = new Route();

export function go(to: string): void {
  location.hash = "#/" + to;
}

type Theme = "auto" | "dark" | "light";

class Look {
  theme = $state<Theme>((localStorage.getItem("weir.theme") as Theme | null) ?? "auto");
  /** Rises when colours or times change, so that charts are drawn anew. */
  version = $state(0);
  utc = $state(isUtc());

  constructor() {
    this.apply();
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => (this.version += 1));
  }

  turn(): void {
    this.theme = this.theme === "auto" ? "dark" : this.theme === "dark" ? "light" : "auto";
    localStorage.setItem("weir.theme", this.theme);
    this.apply();
  }

  turnZone(): void {
    this.utc = !this.utc;
    setUtc(this.utc);
    this.version += 1;
  }

  private apply(): void {
    if (this.theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = this.theme;
    this.version += 1;
  }
}

export const look = new Look();

/** Words that come and go: what was done, or why it was not. */
class Toasts {
  list = $state<{ id: number; text: string; bad: boolean }[]>([]);
  private next = 0;

  say(text: string, bad = false): void {
    const id = this.next++;
    this.list = [...this.list.slice(-3), { id, text, bad }];
    setTimeout(() => this.drop(id), bad ? 10_000 : 5_000);
  }

  drop(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();

/** Does something and says how it went; `true` when it went well. */
export async function attempt(what: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    toasts.say(what);
    return true;
  } catch (error) {
    toasts.say((error as Error).message, true);
    return false;
  }
}
