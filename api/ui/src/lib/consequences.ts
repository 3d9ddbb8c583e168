// What a change of a setting takes away, in sentences, so that it can be said before it is done.

import { measure, RUNGS, target } from "./format";
import { contains } from "./nets";
import type { Brief, Channel, Exclusion, Group, LadderStep, Mitigation } from "./types";

/** What is under way while somebody changes a setting. */
export interface Present {
  open: Brief[];
  mitigations: Mitigation[];
}

const many = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;
const dst = (m: Mitigation) => m.measure["flow-spec"]?.packets.dst ?? m.measure.blackhole ?? m.measure.scrub ?? m.measure.divert ?? "";
const active = (present: Present, hit: (net: string) => boolean) => present.mitigations.filter((m) => m.state === "active" && hit(dst(m)));
const withdrawn = (found: Mitigation[]) => (found.length ? [`${many(found.length, "mitigation")} withdrawn: ${found.map((m) => measure(m.measure)).join("; ")}.`] : []);

function prefixes(before: string[], after: string[], present: Present): string[] {
  const gone = before.filter((net) => !after.includes(net));
  const lost = (net: string) => gone.some((prefix) => contains(prefix, net)) && !after.some((prefix) => contains(prefix, net));
  const left = gone.filter(lost);
  if (!left.length) return [];
  const attacked = present.open.filter((incident) => lost(incident.target));
  return [
    `${left.join(", ")}: no longer protected. No attack on it is detected, and nothing is announced for it.`,
    ...(attacked.length ? [`Under attack at this moment: ${attacked.map((i) => target(i.target)).join(", ")}.`] : []),
    ...withdrawn(active(present, lost)),
  ];
}

function exclusions(before: (Exclusion | string)[], after: (Exclusion | string)[], present: Present): string[] {
  const of = (list: (Exclusion | string)[]) => list.map((item) => (typeof item === "string" ? item : item.prefix));
  const [was, is] = [of(before), of(after)];
  const free = was.filter((net) => !is.includes(net));
  const fresh = is.filter((net) => !was.includes(net));
  return [
    ...(free.length ? [`${free.join(", ")}: weir may announce rules and black holes for it again.`] : []),
    ...withdrawn(active(present, (net) => fresh.some((prefix) => contains(prefix, net) || contains(net, prefix)))),
  ];
}

function groups(before: Group[], after: Group[]): string[] {
  return before.flatMap((group) => {
    const now = after.find((other) => other.name === group.name);
    const limits = [
      ...(group.mode && now?.mode !== group.mode ? [`"${group.mode} at most" no longer holds`] : []),
      ...(!now && (group.inbound || group.outbound || group.learning) ? ["its thresholds and learning no longer hold"] : []),
      ...(group.never ?? []).filter((rung) => !now?.never?.includes(rung)).map((rung) => `${RUNGS[rung] ?? rung} is allowed`),
    ];
    if (now && !limits.length) return [];
    return [`${now ? group.name : `The group ${group.name} is gone`}: ${limits.join(", ") || "its incidents are no longer labelled"} for ${(group.prefixes ?? []).join(", ") || "the groups that inherit from it"}.`];
  });
}

/** What is taken away; empty when nothing is. */
export function consequences(name: string, before: unknown, after: unknown, present: Present): string[] {
  const [was, is] = [(before ?? []) as never[], (after ?? []) as never[]];
  if (!Array.isArray(was) || !Array.isArray(is)) return [];
  if (name === "prefixes") return prefixes(was, is, present);
  if (name === "exclusions") return exclusions(was, is, present);
  if (name === "groups") return groups(was, is);
  const lost = (key: "name" | "rung") => (was as (Channel & LadderStep)[]).filter((item) => !(is as (Channel & LadderStep)[]).some((other) => other[key] === item[key]));
  if (name === "channels") return lost("name").map((channel) => `${channel.name}: receives no more notifications.`);
  if (name === "ladder") return lost("rung").map((step) => `${RUNGS[step.rung] ?? step.rung}: no longer a step.`);
  return [];
}
