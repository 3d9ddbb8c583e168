// The dashboard in a real browser, against a running weir that gets flows over loopback and has a session
// with a real BGP daemon. `tests/tests/browser.rs` starts everything and this; by hand it is of no use.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { WEIR_URL: url, WEIR_LOG: log, WEIR_PLAY: player, WEIR_FLOWS: flows, WEIR_SCREENS: screens, WEIR_CHROMIUM: browserPath } = process.env;
// What a busy machine and an unoptimised build cannot miss; a release build is held to two seconds.
const SHOWN_MS = Number(process.env.WEIR_SHOWN_MS ?? 15_000);
const PASSWORD = "a long enough password";
const VICTIM = "203.0.113.7";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const started = Date.now();
const say = (text) => console.log(`${((Date.now() - started) / 1000).toFixed(1).padStart(6)} ${text}`);

// The traffic.
const play = spawn(player, [flows], { stdio: ["pipe", "pipe", "inherit"] });
const answers = createInterface({ input: play.stdout })[Symbol.asyncIterator]();
async function traffic(word) {
  play.stdin.write(word + "\n");
  return Number((await answers.next()).value);
}

const gobgp = (...words) => execFileSync("gobgp", ["--host", "127.0.0.2", "--port", "50052", ...words], { encoding: "utf8" });
const rules = () => Object.keys(JSON.parse(gobgp("global", "rib", "-a", "ipv4-flowspec", "-j").trim() || "{}"));
async function until(what, look, ms = 15_000) {
  const end = Date.now() + ms;
  for (;;) {
    if (look()) return;
    assert.ok(Date.now() < end, `${what}: not within ${ms} ms`);
    await new Promise((next) => setTimeout(next, 50));
  }
}

const browser = await chromium.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});

const complaints = [];
/** What a page may complain of besides, while it is made to. */
let provoked = /^$/;
/** A page whose every complaint is kept. Refusals are the browser's to mention and ours to expect. */
async function open(options) {
  const context = await browser.newContext({ baseURL: url, reducedMotion: "reduce", timezoneId: "UTC", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => {
    const expected = /status of (401|403)/.test(message.text()) || provoked.test(message.text());
    if (["error", "warning"].includes(message.type()) && !expected) complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error.stack ?? error}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) complaints.push(`asks ${request.url()}`);
  });
  return page;
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
  const serious = violations.filter((v) => v.impact === "serious" || v.impact === "critical");
  const text = serious.map((v) => `${v.id}: ${v.help}\n    ${v.nodes.slice(0, 4).map((n) => `${n.target}: ${n.failureSummary?.split("\n").slice(1).join("; ")}`).join("\n    ")}`);
  assert.equal(serious.length, 0, `axe on ${what}:\n  ${text.join("\n  ")}`);
}

async function fits(page, what) {
  const [wide, window] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
  assert.ok(wide <= window, `${what} is ${wide} wide in a window of ${window}`);
}

const shoot = (page, name) => page.screenshot({ path: `${screens}/${name}.png`, animations: "disabled" });
const button = (page, name) => page.getByRole("button", { name, exact: true });
/** The question that stands before something that takes something away: what it says, and the answer. */
async function answer(page, says, press) {
  const dialog = page.getByRole("dialog");
  await dialog.getByText(says).first().waitFor();
  await dialog.getByRole("button", { name: press, exact: true }).click();
  await dialog.waitFor({ state: "detached" });
}

async function signIn(page, name) {
  await page.goto("/");
  await page.getByLabel("Account").fill(name);
  await page.getByLabel("Password").fill(PASSWORD);
  await button(page, "Sign in").click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

try {
  // First run.
  const page = await open({ viewport: { width: 1360, height: 860 }, colorScheme: "dark" });
  await page.goto("/");
  await page.getByLabel("Code from the log").waitFor();
  await accessible(page, "the first step");
  const code = /"?\bcode"?[=:]"?([^\s",]+)/.exec(readFileSync(log, "utf8"))?.[1];
  assert.ok(code, "the log has a code");
  await page.getByLabel("Code from the log").fill(code);
  await page.getByLabel("Name").fill("olga");
  await page.getByLabel("Password, at least 12 characters").fill(PASSWORD);
  await page.getByLabel("Repeat password").fill(PASSWORD);
  await button(page, "Create account").click();
  await page.getByText("203.0.113.0/24").first().waitFor();
  await button(page, "Next: flows").click();
  await page.getByText("Waiting for flows").waitFor();
  await traffic("begin");
  await page.getByText("Flows arrive.").waitFor();
  await page.getByRole("cell", { name: "border-2" }).waitFor();
  await shoot(page, "setup");
  await accessible(page, "waiting for flows");
  await button(page, "Next: BGP sessions").click();
  await page.getByText("established").waitFor({ timeout: 30_000 });
  await button(page, "Test").click();
  await page.getByText("the session is up; nothing was sent").waitFor();
  await accessible(page, "a tested peer");
  await button(page, "Next: observe mode").click();
  await page.getByText("observe", { exact: true }).waitFor();
  await button(page, "Go to the overview").click();
  await page.getByText("No attack at present.").waitFor();
  await page.getByText("Observe mode.").waitFor();
  say("first run");

  // From observing to asking.
  await page.goto("/#/settings");
  await page.getByRole("row", { name: /Approval required/ }).getByRole("button").click();
  await button(page, "Change").click();
  await page.getByRole("row", { name: /Approval required.*current/ }).waitFor();

  const add = (label) => page.locator("form", { has: page.getByLabel(label, { exact: true }) }).getByRole("button", { name: "Add" }).click();
  // A channel, set while weir runs: nobody listens there, and the key is never shown again.
  await page.getByLabel("Name").fill("night");
  await page.getByLabel("Webhook address").fill("http://127.0.0.1:9/t0ken");
  await page.getByLabel("Signing key").fill("hunter2");
  await page.getByLabel("Events (empty: all)").fill("announce, withdraw");
  await add("Signing key");
  const channel = page.getByRole("row", { name: /^night/ });
  await channel.getByText("http://127.0.0.1:9, signed: announce, withdraw").waitFor();
  assert.ok(!/t0ken|hunter2/.test(await page.content()), "credentials are not read back");
  await channel.getByRole("button", { name: "Disable" }).click();
  await channel.getByText("disabled", { exact: true }).waitFor();
  await channel.getByRole("button", { name: "Test" }).click();
  await page.getByText("Test message sent.").waitFor();
  await accessible(page, "settings with a channel");
  await channel.getByRole("button", { name: "Remove" }).click();
  await answer(page, "This channel receives no more notifications", "Remove night");
  await channel.waitFor({ state: "detached" });

  // What is protected stays so until the question is answered.
  await page.getByPlaceholder("203.0.113.0/24").fill("192.0.2.0/24");
  await page.locator("form", { has: page.getByPlaceholder("203.0.113.0/24") }).getByRole("button", { name: "Add" }).click();
  const guarded = page.getByRole("row", { name: /^192\.0\.2\.0\/24/ });
  await guarded.getByRole("button", { name: "Remove" }).click();
  await accessible(page, "the question before a prefix is removed");
  await answer(page, "192.0.2.0/24: no longer protected.", "Cancel");
  const prefixes = () => page.evaluate(async () => (await (await fetch("/api/v1/settings/prefixes")).json()).value);
  assert.ok((await prefixes()).includes("192.0.2.0/24"), "nothing happened yet");
  await guarded.getByRole("button", { name: "Remove" }).click();
  await answer(page, "192.0.2.0/24: no longer protected.", "Remove 192.0.2.0/24");
  await guarded.waitFor({ state: "detached" });
  assert.ok(!(await prefixes()).includes("192.0.2.0/24"), "removed");
  const overridden = page.getByRole("row", { name: /^prefixes/ });
  await overridden.getByRole("button", { name: "Clear" }).click();
  await answer(page, "The configuration file applies again", "Clear");
  await overridden.getByText("from the file").waitFor();

  // Settings that cannot be asked for are not "None".
  provoked = /status of 503/;
  await page.route(/\/api\/v1\/(settings|users|me\/sessions)$/, (route) => route.fulfill({ status: 503, json: { detail: "weir is away" } }));
  for (const name of ["settings", "people", "account"]) {
    await page.goto("/#/overview");
    await page.goto("/#/" + name);
    await page.getByRole("alert").getByText("weir is away").waitFor();
    assert.equal(await page.locator("main").getByText("None.", { exact: true }).count(), 0, `${name} says none`);
  }
  await page.unroute(/\/api\/v1\/(settings|users|me\/sessions)$/);
  provoked = /^$/;
  await page.goto("/#/settings");
  await overridden.waitFor();

  // A group and an exclusion, likewise; a change is undone and done again.
  await page.getByLabel("Group", { exact: true }).fill("acme");
  await page.getByLabel("Prefixes", { exact: true }).fill("203.0.113.0/28");
  await page.getByLabel("Never black-holed").check();
  await add("Group");
  await page.getByRole("row", { name: /^acme never black hole 203\.0\.113\.0\/28/ }).waitFor();
  const why = page.getByLabel("Reason", { exact: true });
  await why.fill("the resolver");
  await page.locator("form", { has: why }).getByLabel("Prefix", { exact: true }).fill("203.0.113.1/32");
  await add("Reason");
  const excluded = page.getByRole("row", { name: /^203\.0\.113\.1\/32 the resolver/ });
  await excluded.getByText("no attack so far").waitFor();
  const changes = page.getByRole("row", { name: /^exclusions/ });
  await changes.getByRole("button", { name: "Undo" }).click();
  await answer(page, "203.0.113.1/32: weir may announce rules and black holes for it again.", "Undo");
  await excluded.waitFor({ state: "detached" });
  await changes.getByRole("button", { name: "Undo" }).click();
  await answer(page, "The previous value applies again", "Undo");
  await excluded.waitFor();
  await accessible(page, "settings with a group and an exclusion");
  await page.waitForTimeout(300);
  await page.evaluate(() => scrollTo(0, 0));
  await shoot(page, "settings");
  await page.goto("/#/overview");

  // An attack appears.
  await page.getByText("203.0.113.10").first().waitFor();
  const begun = await traffic("attack");
  const article = page.getByRole("article").filter({ hasText: VICTIM });
  await article.waitFor();
  const shown = Date.now() - begun;
  say(`the attack is on the overview ${shown} ms after its first packet`);
  assert.ok(shown < SHOWN_MS, `${shown} ms`);
  await article.getByText("the threshold of").waitFor();
  await button(page, "Approve").first().waitFor();
  await page.waitForTimeout(4000);
  await shoot(page, "overview");
  await accessible(page, "the overview");

  // Its page explains it.
  await article.getByRole("link", { name: new RegExp(VICTIM) }).first().click();
  await page.getByRole("heading", { name: "Why this was detected" }).waitFor();
  await page.getByRole("heading", { level: 1, name: new RegExp(`flood on ${VICTIM}`) }).waitFor();
  await page.getByText("ntp amplification").first().waitFor();
  await page.getByRole("heading", { name: "Timeline" }).waitFor();
  await page.getByText("fivem-7").first().waitFor();
  await page.getByRole("link", { name: "acme" }).waitFor();
  assert.match(await page.locator(".panel", { hasText: "Why this was detected" }).last().innerText(), /Threshold[\s\S]*Reported by[\s\S]*border-3/);
  const drawn = (of) => of.evaluate(() => {
    const canvas = document.querySelector("canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(pixels.buffer)).size;
  });
  assert.ok((await drawn(page)) > 20, "the chart has lines");

  // Approving announces to a real router.
  assert.deepEqual(rules(), []);
  await button(page, "Approve").first().click();
  await page.getByText("Collateral").last().waitFor();
  await page.getByText("Announces", { exact: true }).waitFor();
  await shoot(page, "approve");
  await accessible(page, "the question before approving");
  await page.getByRole("dialog").getByRole("button", { name: "Approve", exact: true }).click();
  await until("a rule in gobgpd", () => rules().some((rule) => rule.includes(VICTIM)));
  await page.getByRole("cell", { name: "edge", exact: true }).first().waitFor();
  say("approved: " + rules()[0]);
  await page.waitForTimeout(3000);
  await shoot(page, "incident");
  await accessible(page, "the incident");

  await button(page, "Hold").click();
  await page.locator("h1 ~ .tag", { hasText: "held" }).waitFor();
  await button(page, "Release").click();
  await button(page, "Hold").waitFor();
  await page.getByLabel("Note").fill("Upstream knows. Ticket 4711.");
  await button(page, "Add note").click();
  await page.getByText("Ticket 4711").waitFor();

  // A harder step is taken after its effect was shown, and not before.
  const [rule] = rules();
  await button(page, "Next step").click();
  await page.getByRole("dialog").getByText("Withdraws", { exact: true }).or(page.getByRole("dialog").getByRole("alert")).waitFor();
  await accessible(page, "the question before the next step");
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.deepEqual(rules(), [rule], "the rule stays");
  const hole = { adds: [{ blackhole: VICTIM + "/32" }], removes: [], normal_share: 1, services: [] };
  await page.route("**/api/v1/dry-run", (route) => route.fulfill({ json: hole }));
  const asked = [];
  page.on("request", (request) => request.url().endsWith("/skip") && asked.push(request.url()));
  await button(page, "Next step").click();
  await page.getByRole("dialog").getByText(`${VICTIM} becomes unreachable`).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Black-hole " + VICTIM, exact: true }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.unroute("**/api/v1/dry-run");
  assert.deepEqual(asked, []);

  // Withdrawing removes it.
  await button(page, "Withdraw").first().click();
  await page.getByRole("dialog").getByRole("button", { name: "Withdraw", exact: true }).click();
  await until("no rule in gobgpd", () => rules().length === 0);
  await page.getByRole("cell", { name: /withdrawn/ }).first().waitFor();
  say("withdrawn");

  // Lists and the file.
  await page.goto("/#/incidents");
  await page.getByRole("row", { name: new RegExp(VICTIM) }).waitFor();
  await accessible(page, "incidents");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  const csv = readFileSync(await download.path(), "utf8");
  assert.match(csv.split("\n")[0], /target/);
  assert.ok(csv.includes(VICTIM), csv);
  // Whoever sends an attack does not suffer it.
  await page.route(/\/api\/v1\/incidents\?/, async (route) => {
    const found = await (await route.fetch()).json();
    for (const one of found.incidents) Object.assign(one, { id: "9" + one.id }).verdict.direction = "outbound";
    await route.fulfill({ json: found });
  });
  await page.goto("/#/overview");
  await page.goto("/#/incidents");
  await page.getByRole("row", { name: new RegExp(`flood from ${VICTIM}`) }).waitFor();
  await page.unroute(/\/api\/v1\/incidents\?/);
  await page.getByLabel("Search", { exact: true }).fill("no such words");
  await page.getByText("No incidents match these filters.").waitFor();

  // Search without a mouse.
  await page.keyboard.press("Escape");
  await page.locator("main").focus();
  await page.keyboard.press("/");
  await page.keyboard.type("fivem-7");
  await page.getByRole("option", { name: /fivem-7/ }).first().waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: VICTIM }).waitFor();
  await page.getByRole("row", { name: /pkt\/s/ }).first().waitFor();

  for (const name of ["live", "mitigations", "bgp", "hosts", `hosts/${VICTIM}`, "exporters", "nodes", "settings", "people", "audit", "account"]) {
    await page.goto("/#/" + name);
    await page.locator("main h1").waitFor();
    await page.waitForTimeout(300);
    await accessible(page, name);
    if (name === "live") {
      await page.waitForTimeout(1200);
      await shoot(page, "live");
    }
    if (name === "exporters") await shoot(page, "exporters");
    if (name === `hosts/${VICTIM}`) {
      const rows = await page.locator("tbody tr", { hasText: "pkt/s" }).allInnerTexts();
      assert.ok(rows.length > 1 && new Set(rows.map((row) => row.split("\t").slice(0, 2).join())).size === rows.length, rows.join("\n"));
      assert.ok(!rows.some((row) => /\d %/.test(row)), rows.join("\n"));
      // A week is a week, however little of it is on record.
      await button(page, "7 d").click();
      const chart = page.getByRole("figure", { name: /^Traffic of .* \d{4}-\d\d-\d\d .* to / });
      await page.waitForFunction(() => {
        const [from, to] = [...(document.querySelector("figure.chart")?.getAttribute("aria-label") ?? "").matchAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g)].map((found) => Date.parse(found[0] + "Z"));
        return to - from === 7 * 86_400_000;
      });
      await chart.locator("canvas").hover();
      await chart.locator(".readout").getByText(/\d{4}-\d\d-\d\d/).waitFor();
    }
  }
  await page.goto("/#/audit");
  await button(page, "Verify the chain").click();
  await page.getByText("The chain is whole:").waitFor();
  await page.getByRole("cell", { name: "mitigation.approve" }).first().waitFor();
  say("every page");

  // The order of the busiest hosts stands still under the pointer.
  await page.goto("/#/live");
  const list = page.getByRole("group", { name: "Busiest hosts" });
  await list.getByRole("link").first().hover();
  const order = await list.locator("td.mono > a:first-child").allInnerTexts();
  await page.waitForTimeout(2500);
  assert.deepEqual(await list.locator("td.mono > a:first-child").allInnerTexts(), order);

  // Somebody who may only read.
  await page.goto("/#/people");
  await button(page, "New account").click();
  const form = page.getByRole("dialog");
  await form.getByLabel("Name").fill("rita");
  await form.getByLabel("Role").selectOption("readonly");
  await form.getByLabel("Password, at least 12 characters").fill(PASSWORD);
  await form.getByRole("button", { name: "Create" }).click();
  await page.getByRole("cell", { name: "rita" }).waitFor();
  await button(page, "Sign out").click();
  await page.getByLabel("Account").waitFor();
  await accessible(page, "signing in");

  const reader = await open({ viewport: { width: 1360, height: 860 }, colorScheme: "light" });
  await signIn(reader, "rita");
  await reader.getByRole("article").getByRole("link", { name: new RegExp(VICTIM) }).first().click();
  await reader.getByRole("heading", { name: "Ladder" }).waitFor();
  for (const act of ["Approve", "Skip", "Hold", "Withdraw", "Add note"]) assert.equal(await button(reader, act).count(), 0, act);
  assert.equal(await reader.getByRole("link", { name: "Users and tokens" }).count(), 0);
  const refused = await reader.evaluate(async () => {
    const id = location.hash.split("/")[2];
    const init = { method: "POST", headers: { "X-Weir-Request": "1", "Content-Type": "application/json" }, body: '{"on":true}' };
    return (await fetch(`/api/v1/incidents/${id}/hold`, init)).status;
  });
  assert.equal(refused, 403);
  await accessible(reader, "the incident, light");
  await shoot(reader, "light");
  for (const name of ["overview", "live", "exporters"]) {
    await reader.goto("/#/" + name);
    await reader.locator("main h1").waitFor();
    await accessible(reader, name + ", light");
  }
  await reader.context().close();
  say("a reader cannot act");

  // A day is a day of the zone that is shown.
  const far = await open({ timezoneId: "America/New_York" });
  await signIn(far, "olga");
  const day = async (zone) => {
    await button(far, zone === "UTC" ? "local time" : "UTC").click();
    await far.goto("/#/overview");
    const [request] = await Promise.all([far.waitForRequest(/\/incidents\?.*from=/), far.goto("/#/incidents?day=2026-11-20")]);
    const { from, to } = Object.fromEntries(new URL(request.url()).searchParams);
    return [new Date(Number(from)).toISOString(), (Number(to) - Number(from)) / 3_600_000];
  };
  assert.deepEqual(await day("UTC"), ["2026-11-20T00:00:00.000Z", 24]);
  assert.deepEqual(await day("local"), ["2026-11-20T05:00:00.000Z", 24]);
  await far.context().close();

  // On a phone.
  const phone = await open({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark" });
  await signIn(phone, "olga");
  await fits(phone, "the overview");
  await accessible(phone, "the overview on a phone");
  await button(phone, "Menu").click();
  await phone.getByRole("link", { name: /Incidents/ }).click();
  await phone.getByRole("heading", { level: 1, name: "Incidents" }).waitFor();
  await fits(phone, "incidents");
  await phone.getByRole("row", { name: new RegExp(VICTIM) }).getByRole("link").first().click();
  await phone.getByRole("heading", { name: "Ladder" }).waitFor();
  await fits(phone, "the incident");
  await button(phone, "Hold").tap();
  await button(phone, "Release").tap();
  await button(phone, "Hold").waitFor();
  await phone.evaluate(() => scrollTo(0, 0));
  await shoot(phone, "phone");

  // It ends.
  await traffic("calm");
  await phone.goto("/#/overview");
  await phone.getByText("No attack at present.").waitFor({ timeout: 40_000 });
  say("the end of the attack is shown");
  // What was done is not forgotten, and the attack is measured by the threshold of its time.
  const baselines = [];
  phone.on("request", (request) => request.url().endsWith("/hosts/" + VICTIM) && baselines.push(request.url()));
  await phone.locator(".panel", { hasText: "Recently closed" }).getByRole("link", { name: new RegExp(VICTIM) }).first().click();
  await phone.locator("main .tag.closed").first().waitFor();
  await phone.getByText("hardest step active so far").waitFor();
  await phone.waitForTimeout(1200);
  assert.deepEqual(baselines, []);
  await phone.context().close();

  // An attack on all hosts of a prefix: its chart is theirs together, and an exclusion in it counts it.
  const desk = await open({ viewport: { width: 1360, height: 860 }, colorScheme: "dark" });
  await signIn(desk, "olga");
  await traffic("carpet");
  await desk.getByRole("article").filter({ hasText: "203.0.113.0/24" }).getByRole("link").first().click({ timeout: 40_000 });
  await desk.getByRole("heading", { name: "Traffic and baseline, all hosts of the prefix" }).waitFor();
  const highest = () => desk.evaluate(async () => {
    const { points } = await (await fetch("/api/v1/prefixes/203.0.113.0/24/series")).json();
    return Math.max(0, ...points.map((point) => point.bits_per_sec));
  });
  let high = 0;
  for (const end = Date.now() + 15_000; high < 600e6 && Date.now() < end; await desk.waitForTimeout(250)) high = await highest();
  assert.ok(high > 600e6, `the prefix carried ${high} bit/s`);
  await desk.waitForTimeout(2500);
  assert.ok((await drawn(desk)) > 20, "the prefix's chart has lines");
  await accessible(desk, "the incident of a prefix");
  await shoot(desk, "carpet");
  await desk.goto("/#/settings");
  await desk.getByRole("row", { name: /^203\.0\.113\.1\/32 the resolver/ }).getByText(/[1-9] attacks?, last/).waitFor();
  await traffic("calm");
  say(`an attack on a prefix: ${(high / 1e9).toFixed(2)} Gbit/s on its chart`);

  assert.deepEqual(complaints, []);
  say("no complaint in the console");
} catch (error) {
  for (const [n, page] of browser.contexts().flatMap((context) => context.pages()).entries()) {
    await page.screenshot({ path: `${screens}/failed-${n}.png` }).catch(() => null);
    console.error(page.url(), await page.locator("main").last().innerText({ timeout: 1000 }).catch(() => ""));
  }
  console.error(complaints.join("\n"));
  throw error;
} finally {
  await browser.close();
  play.stdin.end();
  play.kill();
}
