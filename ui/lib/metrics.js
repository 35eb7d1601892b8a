// Values of metrics as numbers.

import { OWN, getAll, path } from "./api.js";

/** Windows of points, in seconds, and the times for which they are kept by default. */
export const WINDOWS = [
  { secs: 60, name: "1 min", keptSecs: 86_400 },
  { secs: 600, name: "10 min", keptSecs: 604_800 },
  { secs: 7200, name: "2 h", keptSecs: 5_184_000 },
  { secs: 86400, name: "1 day", keptSecs: 63_072_000 },
];

/** Shortest window of at least `leastSecs` whose points from `fromMs` on are still kept. */
export function windowFor(leastSecs, fromMs, now = Date.now()) {
  // A little more: the first points of a range that is as long as they are kept may be missing.
  const fits = ({ secs, keptSecs }) => secs >= leastSecs && keptSecs * 1050 > now - fromMs;
  return (WINDOWS.find(fits) ?? WINDOWS[WINDOWS.length - 1]).secs;
}

/** Begin of the window in which a time lies. */
export function beginOf(ms, windowSecs) {
  return Math.floor(ms / (windowSecs * 1000)) * windowSecs * 1000;
}

/** Ranges of a chart, with the window whose points fit it. */
export const RANGES = [
  { id: "30m", name: "30 min", secs: 1800, window: 60 },
  { id: "3h", name: "3 h", secs: 10800, window: 60 },
  { id: "12h", name: "12 h", secs: 43200, window: 60 },
  { id: "2d", name: "2 days", secs: 172800, window: 600 },
  { id: "1w", name: "1 week", secs: 604800, window: 600 },
  { id: "60d", name: "60 days", secs: 5184000, window: 7200 },
  { id: "2y", name: "2 years", secs: 63072000, window: 86400 },
];

export const rangeOf = (id) => RANGES.find((range) => range.id === id) ?? RANGES[0];

/** Fields that can be shown of a kind of metric, the usual one first. */
export const FIELDS = {
  counter: ["per second", "count"],
  gauge: ["value", "min", "max"],
  meter: ["rate", "m1", "count"],
  histogram: ["p99", "p50", "p75", "p90", "p95", "p98", "p999", "mean", "min", "max", "count"],
  timer: ["p99", "p50", "p75", "p90", "p95", "p98", "p999", "mean", "min", "max", "count", "rate"],
};

/** Returns one number of a value, or `null` if it has none. */
export function numberOf(value, field, windowSecs) {
  const [kind, body] = Object.entries(value)[0];
  switch (kind) {
    case "counter":
      return field === "count" ? body.count : body.count / windowSecs;
    case "gauge":
      return body[field === "min" || field === "max" ? field : "value"];
    case "meter":
      return field === "count" ? body.count : field === "m1" ? body.m1 : body.count / windowSecs;
    case "histogram":
      return body[field] ?? null;
    case "timer":
      return field === "rate" ? body.meter.count / windowSecs : body.histogram[field] ?? null;
    default:
      return null;
  }
}

/** Reads the points of some metrics of a topology. */
export function readSeries(topology, query, options) {
  return getAll(`${OWN}/metrics/data`, { topology, ...query }, "series", options).then((answer) => ({
    ...answer,
    series: merged(answer.series),
  }));
}

/** Joins the parts of a series that lay on several pages. */
function merged(parts) {
  const byId = new Map();
  for (const part of parts) {
    const known = byId.get(part.id);
    if (known) known.points = known.points.concat(part.points);
    else byId.set(part.id, { ...part });
  }
  return [...byId.values()];
}

/** Reads the values of the window that ends now. */
export function readLatest(topology, query, options) {
  return getAll(`${OWN}/metrics/topology/${path(topology)}/latest`, query, "values", options);
}

/** Points of a series as `[ms, number]`, at the ends of their windows. */
export function pointsOf(series, field, windowSecs) {
  const points = [];
  for (const point of series.points) {
    const number = numberOf(point.value, field, windowSecs);
    if (number !== null && number !== undefined) points.push([point.fromMs, number]);
  }
  return points;
}

/**
 * Last number of points, as of the last point of `others`: a counter that counted nothing in a window has no
 * point there. `undefined` if neither has a point.
 */
export function lastBeside(points, others) {
  const [point, other] = [points[points.length - 1], others[others.length - 1]];
  if (!point || (other && point[0] < other[0])) return other ? 0 : undefined;
  return point[1];
}

/**
 * Combines series point by point: `sum`, `mean`, `min` or `max` of those that have a point at a time.
 */
export function combined(lists, how) {
  const at = new Map();
  for (const points of lists) {
    for (const [ms, number] of points) {
      const bucket = at.get(ms);
      if (bucket) bucket.push(number);
      else at.set(ms, [number]);
    }
  }
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const combine = {
    sum,
    mean: (numbers) => sum(numbers) / numbers.length,
    min: (numbers) => Math.min(...numbers),
    max: (numbers) => Math.max(...numbers),
  }[how];
  return [...at].sort((a, b) => a[0] - b[0]).map(([ms, numbers]) => [ms, combine(numbers)]);
}

/** Table of the latest values: `values.of("split", "Emitted")`. */
export function tableOf(values, keyOf) {
  const table = new Map();
  for (const value of values ?? []) {
    table.set(`${keyOf(value)}\n${value.metric}`, value);
  }
  return {
    get: (key, metric) => table.get(`${key}\n${metric}`),
    of(key, metric, field = "value") {
      const found = table.get(`${key}\n${metric}`);
      return found ? numberOf(found.value, field, (found.toMs - found.fromMs) / 1000) : undefined;
    },
  };
}
