// Requests to weir. Errors are problem details (RFC 9457); a session that ended sends to the sign-in.

export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

let onSignedOut: () => void = () => {};

/** What happens when weir no longer knows who asks. */
export function whenSignedOut(act: () => void): void {
  onSignedOut = act;
}

async function request(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
  const init: RequestInit = { method, headers: { "X-Weir-Request": "dashboard", ...headers } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, "Content-Type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch("/api/v1" + path, init);
  } catch {
    throw new Problem(0, "weir does not answer");
  }
  if (response.ok) return response;
  let detail = response.statusText;
  try {
    detail = ((await response.json()) as { detail?: string }).detail ?? detail;
  } catch {
    // Not weir's own answer: a proxy's, perhaps.
  }
  if (response.status === 401) onSignedOut();
  throw new Problem(response.status, detail);
}

export async function get<T>(path: string): Promise<T> {
  return (await request("GET", path)).json() as Promise<T>;
}

/** Something that changes: `null` when weir answers without words. */
export async function send<T = unknown>(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<T> {
  const response = await request(method, path, body, headers);
  return (response.status === 204 ? null : await response.json()) as T;
}

/** A command that must not be carried out twice, however often the button is pressed. */
export function command<T = unknown>(path: string, body?: unknown): Promise<T> {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return send<T>("POST", path, body, { "Idempotency-Key": key });
}

/** Reads a setting, changes it and writes it back; fails when somebody else was faster. Answers what is probably not meant. */
export async function change<T>(name: string, make: (value: T | null) => T): Promise<string[]> {
  const found = await get<{ version: number; value: T | null }>("/settings/" + name);
  const kept = await send<{ warnings?: string[] }>("PUT", "/settings/" + name, make(found.value ?? null), { "If-Match": `"${found.version}"` });
  return kept.warnings ?? [];
}

/** `?a=1&b=2` of what is set. */
export function query(values: Record<string, string | number | undefined | null>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== "") params.set(name, String(value));
  }
  const text = params.toString();
  return text && "?" + text;
}
