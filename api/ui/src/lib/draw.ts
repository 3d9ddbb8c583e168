// Time series on a canvas. A chart library brings a third of the whole dashboard's size for what stands
// here: lines and layers over seconds, a band, dashed levels, marks, two axes.

import { clock, si } from "./format";
import type { Point } from "./types";

export interface Line {
  label: string;
  color: string;
  /** Share of the line's colour that the area under it has, or down to the line `to`. */
  fill?: number;
  /** The line at which the area ends; the axis when absent. */
  to?: number;
  dash?: number[];
  width?: number;
}
export interface Mark {
  at: number;
  label: string;
  color: string;
}
/** Seconds since 1970, then a list of values for each line. */
export type Data = (number | null)[][];

const LEFT = 66;
const BOTTOM = 20;
const TOP = 8;
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800];

/** 1, 2 or 5 times a power of ten, so that about `wanted` steps reach `max`. */
export function step(max: number, wanted: number): number {
  const raw = max / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const times = raw / power;
  return (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10) * power;
}

/** Index of the value nearest to `x`. */
export function nearest(xs: (number | null)[], x: number): number {
  let low = 0;
  let high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((xs[middle] ?? 0) < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - (xs[low - 1] ?? 0) < (xs[low] ?? 0) - x ? low - 1 : low;
}

/** One value a second or a minute as lines, broken where there is none: weir was down, or the host silent. */
export function series(points: Point[], packets: boolean): { xs: number[]; ys: (number | null)[]; most: (number | null)[] } {
  const xs: number[] = [];
  const ys: (number | null)[] = [];
  const most: (number | null)[] = [];
  const steps = points.slice(1).map((point, n) => point.at - points[n]!.at).sort((a, b) => a - b);
  const usual = steps[steps.length >> 1] ?? Infinity;
  points.forEach((point, n) => {
    const before = points[n - 1];
    if (before && point.at - before.at > usual * 2.5) {
      xs.push((before.at + usual) / 1000);
      ys.push(null);
      most.push(null);
    }
    xs.push(point.at / 1000);
    ys.push(packets ? point.packets_per_sec : point.bits_per_sec);
    most.push(packets ? point.packets_per_sec_max : point.bits_per_sec_max);
  });
  return { xs, ys, most };
}

export interface Drawn {
  /** The time under a place, seconds. */
  timeAt: (pixel: number) => number;
}

/** Draws everything anew: a few thousand points take less than a millisecond. */
export function draw(canvas: HTMLCanvasElement, data: Data, lines: Line[], marks: Mark[], at: number | null, window?: [number, number]): Drawn {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const ctx = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  const css = (name: string) => style.getPropertyValue(name).trim();
  ctx.scale(scale, scale);
  ctx.font = "11px " + style.fontFamily;

  const xs = data[0] ?? [];
  const [first, last] = window ?? [xs[0] ?? 0, xs.at(-1) ?? 1];
  const long = Math.max(last - first, 1);
  let most = 0;
  for (const ys of data.slice(1)) for (const y of ys) if (y !== null && y > most) most = y;
  const top = most > 0 ? most * 1.12 : 1;
  const [plotWidth, plotHeight] = [width - LEFT - 4, height - TOP - BOTTOM];
  const px = (x: number) => LEFT + ((x - first) / long) * plotWidth;
  const py = (y: number) => TOP + plotHeight - (y / top) * plotHeight;

  // Axes.
  ctx.strokeStyle = css("--line");
  ctx.fillStyle = css("--muted");
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  const rise = step(top, Math.max(2, plotHeight / 42));
  for (let y = 0; y <= top; y += rise) {
    ctx.beginPath();
    ctx.moveTo(LEFT, Math.round(py(y)) + 0.5);
    ctx.lineTo(width - 4, Math.round(py(y)) + 0.5);
    ctx.stroke();
    ctx.fillText(si(y), LEFT - 6, py(y));
  }
  ctx.textAlign = "center";
  ctx.textBaseline = "alphabetic";
  const each = SECONDS.find((s) => plotWidth / (long / s) >= 76) ?? long;
  for (let x = Math.ceil(first / each) * each; x <= last; x += each) {
    const place = px(x);
    if (place > LEFT + 20 && place < width - 26) ctx.fillText(each >= 86400 ? new Date(x * 1000).toISOString().slice(5, 10) : clock(x * 1000).slice(0, each < 60 ? 8 : 5), place, height - 5);
  }

  // Lines, the first on the ground of the others.
  lines.forEach((line, n) => {
    const ys = data[n + 1] ?? [];
    const down = line.to === undefined ? null : data[line.to + 1];
    ctx.strokeStyle = css(line.color);
    ctx.lineWidth = line.width ?? 1.5;
    ctx.setLineDash(line.dash ?? []);
    ctx.lineJoin = "round";
    let from = 0;
    while (from < xs.length) {
      // A gap in what is known is a gap in the line.
      while (from < xs.length && ys[from] === null) from += 1;
      let end = from;
      while (end < xs.length && ys[end] !== null && ys[end] !== undefined) end += 1;
      if (end === from) break;
      ctx.beginPath();
      for (let i = from; i < end; i += 1) ctx.lineTo(px(xs[i]!), py(ys[i]!));
      ctx.stroke();
      if (line.fill) {
        for (let i = end - 1; i >= from; i -= 1) ctx.lineTo(px(xs[i]!), py(down?.[i] ?? 0));
        ctx.globalAlpha = line.fill;
        ctx.fillStyle = css(line.color);
        ctx.fill();
        ctx.globalAlpha = 1;
      }
      from = end;
    }
  });

  // Marks; labels that would cover each other go down a row.
  ctx.textAlign = "left";
  ctx.lineWidth = 1;
  /** Where the last label of each row ends. */
  const ends = new Array<number>(5).fill(-Infinity);
  for (const mark of marks) {
    const x = px(mark.at / 1000);
    if (x < LEFT - 1 || x > width) continue;
    ctx.strokeStyle = ctx.fillStyle = css(mark.color);
    ctx.setLineDash([4, 3]);
    ctx.beginPath();
    ctx.moveTo(x, TOP);
    ctx.lineTo(x, TOP + plotHeight);
    ctx.stroke();
    const wide = ctx.measureText(mark.label).width + 4;
    const from = x + wide > width ? x - wide : x + 4;
    const free = ends.findIndex((end) => end < from);
    const row = free < 0 ? ends.length - 1 : free;
    ends[row] = from + wide;
    ctx.fillText(mark.label, from, TOP + 11 + row * 13);
  }
  if (at !== null && xs[at] !== undefined) {
    ctx.strokeStyle = css("--muted");
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.moveTo(px(xs[at]!), TOP);
    ctx.lineTo(px(xs[at]!), TOP + plotHeight);
    ctx.stroke();
  }
  return { timeAt: (pixel) => first + ((pixel - LEFT) / plotWidth) * long };
}
