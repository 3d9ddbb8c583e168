// Addresses and prefixes as numbers.

function address(text: string): { bits: number; value: bigint } | null {
  if (!text.includes(":")) {
    const parts = text.split(".").map(Number);
    if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part < 256))) return null;
    return { bits: 32, value: parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
  }
  const [head = "", tail] = text.split("::");
  const words = (of: string) => of.split(":").filter(Boolean);
  const [left, right] = [words(head), words(tail ?? "")];
  const gap = 8 - left.length - right.length;
  if (gap < 0 || (tail === undefined && gap)) return null;
  const all = [...left, ...Array<string>(gap).fill("0"), ...right];
  if (all.some((word) => !/^[0-9a-f]{1,4}$/i.test(word))) return null;
  return { bits: 128, value: all.reduce((sum, word) => sum * 65536n + BigInt("0x" + word), 0n) };
}

function net(text: string): { bits: number; value: bigint; length: number } | null {
  const [host = "", length] = text.split("/");
  const found = address(host);
  return found && { ...found, length: length === undefined ? found.bits : Number(length) };
}

/** Whether a prefix holds an address or all of another prefix. */
export function contains(outer: string, inner: string): boolean {
  const [a, b] = [net(outer), net(inner)];
  if (!a || !b || a.bits !== b.bits || b.length < a.length) return false;
  const rest = BigInt(a.bits - a.length);
  return a.value >> rest === b.value >> rest;
}
