// Graph of a topology that is gone, as far as its metrics and the places of its tasks tell: the archive has
// no topology file. A component counts what it receives by sender and stream, which are the edges.

import { html } from "../lib/html.js";
import { OWN, get, getAll, path } from "../lib/api.js";
import { loads } from "../lib/load.js";
import { numberOf, readLatest } from "../lib/metrics.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Graph, Legend } from "../parts/graph.js";

const FOREVER_MS = 600_000;
const RECEIVED = ".RecvTps";

/** Sender of a metric such as `lines.RecvTps`. */
const senderOf = (metric) => metric.slice(0, -RECEIVED.length);

/** Reads `{ components: [{ id, kind, parallelism }], edges: [{ from, to, streams }], isCut }`. */
async function readShape(id, options) {
  const [metas, track] = await Promise.all([
    getAll(`${OWN}/metrics/topology/${path(id)}/metas`, { level: "stream", name: `*${RECEIVED}` }, "metas", options),
    get(`${OWN}/metrics/topology/${path(id)}/track`, { limit: 5000 }, options),
  ]);
  const edges = new Map();
  for (const { component, stream, metric } of metas.metas) {
    const from = senderOf(metric);
    const key = `${from}\n${component}`;
    const edge = edges.get(key) ?? { from, to: component, streams: [] };
    if (!edge.streams.some((one) => one.stream === stream)) edge.streams.push({ stream, grouping: "unknown" });
    edges.set(key, edge);
  }
  const receivers = new Set([...edges.values()].map(({ to }) => to));
  const tasks = new Map();
  const add = (component, task) => tasks.set(component, (tasks.get(component) ?? new Set()).add(task));
  for (const { component, task } of track.entries) add(component, task);
  for (const { component, task } of metas.metas) add(component, task);
  const components = [...tasks].map(([component, its]) => ({ id: component, parallelism: its.size,
    kind: receivers.has(component) ? "bolt" : "spout" }));
  const known = new Set(components.map((component) => component.id));
  return { components, edges: [...edges.values()].filter(({ from }) => known.has(from)),
    isCut: metas.isCut || track.truncated };
}

/** Reads the rates that receivers counted in the last window: `{ "from\nto": tuples per second }`. */
async function readRates(id, windowSecs, options) {
  const { values } = await readLatest(id, { level: "stream", name: `*${RECEIVED}`, window: windowSecs }, options);
  const rates = {};
  for (const { component, metric, value, fromMs, toMs } of values) {
    const key = `${senderOf(metric)}\n${component}`;
    rates[key] = (rates[key] ?? 0) + numberOf(value, "rate", (toMs - fromMs) / 1000);
  }
  return rates;
}

/** Shape of a topology that is gone; without an id, nothing. */
export function usePastShape(id) {
  return usePoll(id && `past ${id}`, (options) => readShape(id, options), FOREVER_MS);
}

/** Draws it; `latest` are the last values of its components. */
export function PastGraph({ id, shape, windowSecs, latest }) {
  const rates = usePoll(`past rates ${id} ${windowSecs}`, (options) => readRates(id, windowSecs, options), FOREVER_MS);
  if (!shape.data) {
    return html`<p class="quiet waiting">${shape.error ? `The graph cannot be shown: ${shape.error.message}`
      : "Loading the graph …"}</p>`;
  }
  const { components, edges, isCut } = shape.data;
  if (components.length === 0) return null;
  if (edges.length === 0 && components.length > 1) {
    return html`<p class="quiet">There is no graph: its components did not measure from whom they receive
      (<code>RecvTps</code>), so its edges are not known.</p>`;
  }
  const nodes = loads({ components }, latest, {});
  const drawn = edges.map((edge) => ({ ...edge, rate: rates.data?.[`${edge.from}\n${edge.to}`] }));
  return html`<${Graph} nodes=${nodes} edges=${drawn} hrefOf=${(component) => link(["component", id, component])} />
    <${Legend} rates="that were received at its end" />
    <p class="quiet">As it was at its end, from its metrics: an edge on which nothing was ever sent is missing.${isCut ? " The list of metrics is cut." : ""}</p>`;
}
