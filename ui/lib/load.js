// Load of the components of a topology, from its state and its metrics. Pure but for `useRates`.

import { useRef } from "./html.js";
import { tableOf } from "./metrics.js";

/** Share of its time from which a component is said to limit its topology. */
export const LIMIT = 0.7;

/** Rates of components from the totals of two heartbeats: `{ component: { emitted, executed } }`. */
export function useRates(detail) {
  const seen = useRef([]);
  if (detail) {
    const totals = Object.fromEntries(detail.components.map(({ id, emitted, executed }) => [id, { emitted,
      executed }]));
    const last = seen.current[seen.current.length - 1];
    const isNew = !last || JSON.stringify(last.totals) !== JSON.stringify(totals);
    if (isNew) seen.current = [...seen.current, { at: Date.now(), totals }].slice(-4);
  }
  const [first, last] = [seen.current[0], seen.current[seen.current.length - 1]];
  if (!first || last.at - first.at < 5_000) return {};
  const seconds = (Math.max(Date.now() - 12_000, last.at) - first.at) / 1000;
  const rate = (id, field) => {
    const n = last.totals[id][field] - (first.totals[id]?.[field] ?? 0);
    // A worker that starts anew counts from zero.
    return n < 0 ? undefined : n / seconds;
  };
  return Object.fromEntries(Object.keys(last.totals).map((id) => [
    id, { emitted: rate(id, "emitted"), executed: rate(id, "executed") },
  ]));
}

/** Edges of a topology, one for each pair of components, from Storm's visualization. */
export function edgesOf(visualization) {
  const edges = new Map();
  for (const [to, { ":inputs": inputs }] of Object.entries(visualization ?? {})) {
    for (const input of inputs) {
      const from = input[":component"];
      const key = `${from}\n${to}`;
      const edge = edges.get(key) ?? { from, to, streams: [] };
      edge.streams.push({ stream: input[":stream"], grouping: input[":grouping"] });
      edges.set(key, edge);
    }
  }
  return [...edges.values()];
}

/** Adds rates to edges: the rate of a component now, divided among its streams as in the last minute. */
export function withRates(edges, rates, streams) {
  const table = tableOf(streams, ({ component, stream }) => `${component} ${stream}`);
  const perMinute = (component, stream) => table.of(`${component} ${stream}`, "Emitted", "per second")
    ?? table.of(`${component} ${stream}`, "SendTps", "rate");
  const sent = new Map();
  for (const { component, stream } of streams ?? []) {
    const mine = sent.get(component) ?? new Set();
    sent.set(component, mine.add(stream));
  }
  return edges.map((edge) => {
    const known = [...(sent.get(edge.from) ?? [])].map((stream) => perMinute(edge.from, stream) ?? 0);
    const total = known.reduce((a, b) => a + b, 0);
    let rate;
    for (const { stream } of edge.streams) {
      const lastMinute = perMinute(edge.from, stream);
      const now = rates[edge.from]?.emitted;
      const one = now === undefined ? lastMinute : total > 0 ? (now * (lastMinute ?? 0)) / total : now;
      if (one !== undefined) rate = (rate ?? 0) + one;
    }
    return { ...edge, rate };
  });
}

/** Components with their load: `{ id, kind, tasks, rate, capacity, queue, failed, isLimit }`. */
export function loads(detail, latest, rates) {
  const table = tableOf(latest, ({ component }) => component);
  const nodes = detail.components.map((component) => {
    const { id, kind } = component;
    const field = kind === "spout" ? "emitted" : "executed";
    const metric = kind === "spout" ? "Emitted" : "Executed";
    return {
      id,
      kind,
      tasks: component.parallelism,
      rate: rates[id]?.[field] ?? table.of(id, metric, "per second"),
      capacity: table.of(id, "Capacity"),
      pending: kind === "spout" ? component.pending : undefined,
      queue: table.of(id, "ExecutorQueue", "max"),
      failed: table.of(id, "Failed", "count") ?? 0,
    };
  });
  const bolts = nodes.filter(({ kind, capacity }) => kind !== "spout" && capacity !== undefined);
  const limit = bolts.reduce((a, b) => (a && a.capacity >= b.capacity ? a : b), null);
  if (limit && limit.capacity >= LIMIT) limit.isLimit = true;
  return nodes;
}
