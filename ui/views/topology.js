// A topology that runs or ran: its head, its tabs, and the overview.

import { html, useEffect, useState } from "../lib/html.js";
import { OWN, STORM, get, path } from "../lib/api.js";
import { count, duration, micros, perSecond, plural, share, time } from "../lib/format.js";
import { edgesOfNow, nodesOfNow, ratesOf, useLive } from "../lib/live.js";
import { LIMIT, edgesOf, loads, useRates, withRates } from "../lib/load.js";
import { WINDOWS, beginOf, combined, lastBeside, pointsOf, readLatest, readSeries, tableOf, windowFor } from "../lib/metrics.js";
import { CALM_MS, METRICS_MS, STATE_MS, usePoll } from "../lib/poll.js";
import { link, setQuery } from "../lib/route.js";
import { TopologyActions } from "../parts/actions.js";
import { Ago, Bar, Choice, Empty, Failed, Findings, State, Tabs, Tile } from "../parts/bits.js";
import { Graph, Legend, QUEUE_SHOWN } from "../parts/graph.js";
import { Age, LiveComponents } from "../parts/live.js";
import { Table } from "../parts/table.js";
import { EventList } from "./events.js";
import { Charts, Errors, Logs, Workers } from "./topology-tabs.js";
import { PastGraph, usePastShape } from "./past-graph.js";
import { Settings } from "./settings.js";
import { Timeline } from "./timeline.js";

const ALL_TIME = "all";
const NOW = "now";

/** Topologies that are gone, by their ids, which no later topology has; they are not asked for again. */
const gone = new Map();
/** Ids and names of which the history was asked. */
const lookedUp = new Set();

/** Reads a topology that runs, or finds one that is gone in the history. */
export async function readTopology(id, options) {
  if (gone.has(id)) return gone.get(id);
  if (!lookedUp.has(id)) {
    lookedUp.add(id);
    // A nimbus without a metric store has no history.
    const past = await lookUp(id, options).catch(() => null);
    if (past) return past;
  }
  try {
    return await get(`${OWN}/topology/${path(id)}`, {}, options);
  } catch (error) {
    const past = error.status === 404 ? await lookUp(id, options) : null;
    if (!past) throw error;
    return past;
  }
}

/** Finds a topology that is gone; of several with one name, the newest counts. */
async function lookUp(id, options) {
  const { topologies } = await get(`${OWN}/metrics/history`, { limit: 1000 }, options);
  const found = topologies.find((one) => one.id === id) ?? topologies.find((one) => one.name === id);
  if (!found?.killedMs) return null;
  const past = { ...found, isGone: true };
  if (found.id === id) gone.set(id, past);
  return past;
}

export function Topology({ id, query }) {
  const [wantsLive, setWantsLive] = useState(false);
  const live = useLive(wantsLive ? id : null);
  // A stream says when the state changes.
  const { data: detail, error, refresh } = usePoll(`topology ${id}`, (options) => readTopology(id, options),
    live.isFresh ? CALM_MS : STATE_MS);
  const isRunning = Boolean(detail && !detail.isGone);
  useEffect(() => setWantsLive(isRunning), [isRunning]);
  const state = live.numbers?.state;
  useEffect(() => {
    if (state !== undefined) refresh();
  }, [state]);
  const errors = usePoll(isRunning ? `errors ${id}` : null,
    (options) => get(`${OWN}/topology/${path(id)}/errors`, {}, options), live.isFresh ? METRICS_MS : 5_000);
  if (!detail) return html`<h1>${id}</h1><${Failed} error=${error} />`;
  const { isGone } = detail;
  const tab = query.tab ?? "overview";
  const tabs = [
    { id: "overview", name: "Overview" },
    { id: "charts", name: "Charts" },
    !isGone && { id: "workers", name: "Workers", n: detail.workers.length },
    { id: "timeline", name: "Timeline" },
    !isGone && { id: "errors", name: "Errors", n: errors.data?.errors.length },
    { id: "events", name: "Events" },
    { id: "logs", name: "Logs" },
    !isGone && { id: "settings", name: "Settings" },
  ].filter(Boolean);
  return html`
    <nav class="crumbs" aria-label="Path"><a
      href=${link(["topologies"], isGone ? { show: "gone" } : {})}>Topologies</a></nav>
    <div class="head">
      <h1>${detail.name}</h1><${State} of=${isGone ? "gone" : detail.status} />
      ${!isGone && html`<${TopologyActions} detail=${detail} onDone=${refresh} />`}
    </div>
    <p class="facts quiet">
      <code>${detail.id}</code>
      ${isGone
        ? html`<span>ran from ${time(detail.startedMs)} for ${duration(((detail.killedMs ?? Date.now()) - detail.startedMs) / 1000)}</span>`
        : html`<span>owner ${detail.owner}</span><span>up ${duration(detail.uptimeSeconds)}</span>
            <span>${plural(detail.workersTotal,
              "worker")}</span><span>${detail.tasksAlive} of ${plural(detail.tasksTotal,
              "task")} alive</span>`}
    </p>
    <${Findings} items=${findings(detail)} />
    <${Tabs} label="Parts of the topology" tabs=${tabs} active=${tab}
      hrefOf=${(one) => link(["topology", id], { tab: one === "overview" ? null : one })} />
    ${tab === "overview" && html`<${Overview} detail=${detail} errors=${errors.data} query=${query} live=${live} />`}
    ${tab === "charts" && html`<${Charts} detail=${detail} query=${query} />`}
    ${tab === "workers" && !isGone && html`<${Workers} detail=${detail} />`}
    ${tab === "timeline" && html`<${Timeline} detail=${detail} query=${query} />`}
    ${tab === "errors" && !isGone && html`<${Errors} data=${errors.data} error=${errors.error} />`}
    ${tab === "events" && html`<${EventList} topology=${detail.id} searched="" />`}
    ${tab === "logs" && html`<${Logs} detail=${detail} query=${query} />`}
    ${tab === "settings" && !isGone && html`<${Settings} detail=${detail} />`}`;
}

function findings(detail) {
  if (detail.isGone) {
    if (!detail.killedMs) return [];
    // The archive has the reason as of the request, when its end was still to come.
    const reason = (detail.killReason ?? "no reason is known").replace(/; it is due at \S+$/, "");
    const by = detail.killedBy ? ` by ${detail.killedBy}` : "";
    return [{ kind: "info",
      text: `It ended ${time(detail.killedMs)}${by}: ${reason}. Its metrics stay.` }];
  }
  const items = [];
  if (detail.pending) {
    const what = detail.pending.change === "kill" || detail.status === "killed" ? "It will be removed"
      : "Its tasks will be placed again";
    items.push({ kind: "info", text: `${what} in ${duration(detail.pending.remainingMs / 1000)}.` });
  }
  if (detail.problem) items.push({ text: detail.problem });
  for (const text of detail.supervisorProblems ?? []) items.push({ text });
  return items;
}

function Overview({ detail, errors, query, live }) {
  const { id, isGone } = detail;
  // The last minute of a topology that is gone for long is left in longer windows only.
  const usual = isGone && detail.killedMs ? windowFor(60, detail.killedMs - 60_000) : 60;
  const isLive = !isGone && live.isFresh;
  const shown = query.window ?? (isGone ? usual : NOW);
  const windowSecs = [ALL_TIME, NOW].includes(shown) ? 60 : Number(shown);
  const ofHeartbeats = useRates(isGone ? null : detail);
  const rates = isLive ? { ...ofHeartbeats, ...ratesOf(live.numbers) } : ofHeartbeats;
  const graph = usePoll(isGone ? null : `graph ${id}`,
    (options) => get(`${STORM}/topology/${path(id)}/visualization`, {}, options), 60_000);
  const metricsMs = isLive ? CALM_MS : METRICS_MS;
  // What the stream has is not asked for.
  const latest = usePoll(shown === NOW && isLive ? null : `latest ${id} ${windowSecs}`, (options) => readLatest(id, {
    level: "component", window: windowSecs }, options), METRICS_MS);
  const minute = usePoll(`latest ${id} 60`, (options) => readLatest(id, { level: "component", window: 60 },
    options), metricsMs);
  const streams = usePoll(isLive ? null : `streams ${id}`, (options) => readLatest(id, { level: "component-stream",
    window: 60 }, options), METRICS_MS);
  let nodes = isGone ? [] : loads(detail, minute.data?.values, rates);
  let edges = withRates(edgesOf(graph.data), rates, streams.data?.values);
  if (isLive) [nodes, edges] = [nodesOfNow(nodes, live.numbers, LIMIT), edgesOfNow(edges, live.numbers)];
  const limit = nodes.find((node) => node.isLimit);
  const past = usePastShape(isGone ? id : null);
  const hrefOf = (component) => link(["component", id, component]);
  return html`
    <${Tiles} detail=${detail} nodes=${nodes} periodMs=${metricsMs} />
    ${!isGone && html`<${Age} live=${live} />`}
    ${!isGone && html`
      ${limit && html`<${Verdict} limit=${limit} />`}
      ${graph.data
        ? html`<${Graph} nodes=${nodes} edges=${edges} hrefOf=${hrefOf} /><${Legend} />`
        : graph.error ? html`<p class="quiet">The graph cannot be shown: ${graph.error.message}</p>` : html`<p
          class="quiet waiting">Loading the graph …</p>`}`}
    ${isGone && html`<${PastGraph} id=${id} shape=${past} windowSecs=${windowSecs}
      latest=${latest.data?.values} />`}
    <div class="head"><h2>Components</h2><span class="right">
      <${Choice} label="Window" value=${shown === NOW ? NOW : query.window ?? usual}
        onChange=${(secs) => setQuery({ window: secs === (isGone ? usual : NOW) ? null : secs })}
        options=${[...(isGone ? [] : [{ id: NOW, name: "Now" }]), ...WINDOWS.map(({ secs, name }) => ({ id: secs, name })), ...(isGone ? [] : [{
          id: ALL_TIME, name: "All time" }])]} />
    </span></div>
    ${query.window === ALL_TIME && !isGone
      ? html`<${AllTime} detail=${detail} hrefOf=${hrefOf} />`
      : shown === NOW && isLive
      ? html`<${LiveComponents} numbers=${live.numbers} detail=${detail} hrefOf=${hrefOf} />`
      : html`<${Components} detail=${detail} past=${past.data} latest=${latest} errors=${errors} hrefOf=${hrefOf} />`}`;
}

/** Says which component limits the topology. */
function Verdict({ limit: { id, capacity, queue } }) {
  const isFull = capacity >= 0.9;
  return html`<p class=${`verdict ${isFull ? "full" : ""}`}><b>${id}</b>${" "}
    is the busiest component: it works ${share(capacity)} of the time${queue > 5
      ? `, and its fullest queue is ${Math.round(queue)} % full` : ""}.${" "}
    ${isFull ? "It limits the topology: more tasks for it (Rebalance) or less work for each tuple would help."
      : "It is what would limit the topology first."}</p>`;
}

function Tiles({ detail, nodes, periodMs }) {
  const { id, isGone, killedMs } = detail;
  const to = isGone && killedMs ? killedMs + 60_000 : "now";
  const windowSecs = isGone && killedMs ? windowFor(60, killedMs - 3_600_000) : 60;
  const from = isGone && killedMs ? beginOf(killedMs - 3_600_000, windowSecs) : "-1h";
  const data = usePoll(`tiles ${id}`, async (options) => {
    const read = (level, pattern) => readSeries(id, { level, pattern, window: windowSecs, from, to }, options);
    const [emitted, failed, latency] = await Promise.all([
      read("topology", "Emitted"), read("component", "Failed"), read("component", "ProcessLatency"),
    ]);
    return { emitted: emitted.series[0], failed: failed.series, latency: latency.series };
  }, periodMs).data ?? {};
  const points = (series, field) => (series ? pointsOf(series, field, windowSecs) : []);
  const last = (list) => list[list.length - 1]?.[1];
  const spouts = new Set((detail.components ?? []).filter(({
    kind }) => kind === "spout").map((one) => one.id));
  const spoutLatency = (data.latency ?? []).filter(({ component }) => spouts.has(component));
  const worst = spoutLatency.map((series) => points(series, "p99")).sort((a,
    b) => (last(b) ?? 0) - (last(a) ?? 0))[0] ?? [];
  const emitted = points(data.emitted, "per second");
  // Which components are spouts is not known of a topology that is gone.
  const failing = (data.failed ?? []).filter(({ component }) => isGone || spouts.has(component));
  const failed = combined(failing.map((series) => points(series, "per second")), "sum");
  const slowest = (data.latency ?? []).map((series) => ({ component: series.component, points: points(series,
    "p99") }))
    .reduce((a, b) => ((last(b.points) ?? 0) > (last(a.points) ?? -1) ? b : a), { points: [] });
  const busiest = nodes.filter(({ kind }) => kind !== "spout").reduce((a,
    b) => ((b.capacity ?? -1) > (a?.capacity ?? -1) ? b : a), null);
  const pending = nodes.reduce((sum, one) => sum + (one.pending ?? 0), 0);
  return html`<div class="tiles">
    <${Tile} name="Emitted" value=${perSecond(last(emitted))}
      detail=${isGone ? "at its end" : "by all components"} points=${emitted} />
    <${Tile} name="Failed" value=${perSecond(lastBeside(failed, emitted))}
      detail=${isGone ? "at its end" : "of what spouts emitted"} points=${failed}
      kind=${lastBeside(failed, emitted) > 0 ? "warn" : ""} />
    ${isGone && html`
      <${Tile} name="Ran for" value=${duration(((killedMs ?? Date.now()) - detail.startedMs) / 1000)}
        detail=${`since ${time(detail.startedMs)}`} />
      <${Tile} name="Slowest component, p99" value=${micros(last(slowest.points))}
        detail=${slowest.component ?? ""} points=${slowest.points}
        href=${slowest.component && link(["component", id, slowest.component])} />`}
    ${!isGone && html`
      <${Tile} name="Complete latency, p99" value=${micros(last(worst))} detail="from emit to last ack"
        points=${worst} />
      <${Tile} name="Busiest component"
        value=${busiest?.capacity === undefined ? "–" : share(busiest.capacity)} detail=${busiest?.id ?? ""}
        href=${busiest && link(["component", id, busiest.id])}
          kind=${busiest?.capacity >= 0.9 ? "warn" : ""} />
      <${Tile} name="Pending at spouts" value=${count(pending)} detail="not acked yet" />`}
  </div>`;
}

function Components({ detail, past, latest, errors, hrefOf }) {
  if (!latest.data) return html`<${Failed} error=${latest.error} />`;
  const { values, isCut } = latest.data;
  const table = tableOf(values, ({ component }) => component);
  const measured = [...new Set(values.map(({ component }) => component))];
  const rows = detail.components ?? measured.map((id) => ({ id,
    ...past?.components.find((one) => one.id === id) }));
  const metric = (id, name, metricName, field, format, options) => ({
    id, name, isNumber: true, value: (one) => table.of(one.id, metricName, field), ...options,
    cell: options?.cell ?? ((one) => format(table.of(one.id, metricName, field))),
  });
  const columns = [
    { id: "id", name: "Component", value: ({ id }) => id, cell: ({ id, kind }) => html`<a
      href=${hrefOf(id)}>${id}</a>${kind && html` <span class="quiet">${kind}</span>`}` },
    detail.components && { id: "tasks", name: "Tasks", isNumber: true, value: (one) => one.parallelism,
      cell: (one) => (one.tasksAlive < one.parallelism ? html`<span
        class="warn-text">${one.tasksAlive} of ${one.parallelism}</span>` : one.parallelism) },
    metric("capacity", "Busy", "Capacity", "value", share, { value: (one) => (one.kind === "spout" ? -1
      : table.of(one.id, "Capacity")), cell: (one) => html`<${Bar} value=${table.of(one.id, "Capacity")}
      kind=${one.kind === "spout"
      && "source"} />`, title: "Share of its time in which it works; of a spout, in nextTuple, where it may wait" }),
    metric("queue", "Queue", "ExecutorQueue", "max", (value) => (value === undefined ? "–" : html`<span
      class=${value >= QUEUE_SHOWN ? "warn-text" : ""}>${Math.round(value)} %</span>`), { title: "How full the fullest queue of a task was" }),
    metric("emitted", "Emitted", "Emitted", "per second", perSecond),
    metric("executed", "Executed", "Executed", "per second", perSecond),
    metric("acked", "Acked", "Acked", "per second", perSecond),
    metric("failed", "Failed", "Failed", "count", count, { cell: (one) => {
      const n = table.of(one.id, "Failed", "count") ?? 0;
      return n > 0 ? html`<span class="warn-text">${count(n)}</span>` : "0";
    } }),
    metric("executor", "Execute, mean", "ExecutorTime", "mean", micros, {
      title: "One call of the component" }),
    metric("p50", "Process, p50", "ProcessLatency", "p50", micros, {
      title: "Bolt: from its queue to the ack. Spout: from the emit to the last ack" }),
    metric("p99", "p99", "ProcessLatency", "p99", micros, { title: "99 of 100 are faster" }),
    errors && detail.components && { id: "error", name: "Last error", isNumber: false, value: ({
      id }) => errors.last[id]?.errorTimeMs,
      cell: ({ id }) => errors.last[id] && html`<a class="error-text" title=${errors.last[id].error}
        href=${link(["topology", detail.id], { tab: "errors" })}>
        <${Ago} ms=${errors.last[id].errorTimeMs} />: ${errors.last[id].error}</a>` },
  ].filter(Boolean);
  const end = values[0]?.toMs;
  return html`<${Table} caption="Components" columns=${columns} rows=${rows} keyOf=${({ id }) => id}
    sort=${{ id: "capacity", isDown: true }}
      empty=${html`<${Empty} title="No metrics yet">The first points come a minute after the start.<//>`} />
    <p class="quiet">${end ? `The window ends at ${time(end)}.`
      : "There are no points in this window yet: the first come a minute after the start."}
      ${isCut ? " The list is cut." : ""}</p>`;
}

function AllTime({ detail, hrefOf }) {
  const { data, error } = usePoll(`all time ${detail.id}`,
    (options) => get(`${STORM}/topology/${path(detail.id)}`, { window: ":all-time" }, options), METRICS_MS);
  const rows = data && [
    ...data.spouts.map((one) => ({ ...one, id: one.spoutId, kind: "spout", latency: one.completeLatency })),
    ...data.bolts.map((one) => ({ ...one, id: one.boltId, kind: "bolt", latency: one.processLatency })),
  ];
  if (!rows) return html`<${Failed} error=${error} />`;
  const number = (id, name, title) => ({ id, name, title, isNumber: true, value: (one) => one[id],
    cell: (one) => count(one[id]) });
  const millis = (id, name, title) => ({ id, name, title, isNumber: true, value: (one) => Number(one[id]),
    cell: (one) => (one[id] === undefined ? "–" : micros(Number(one[id]) * 1000)) });
  const columns = [
    { id: "id", name: "Component", value: ({ id }) => id, cell: ({ id, kind }) => html`<a
      href=${hrefOf(id)}>${id}</a> <span class="quiet">${kind}</span>` },
    number("tasks", "Tasks"), number("emitted", "Emitted"), number("transferred", "Transferred"),
      number("executed", "Executed"),
    number("acked", "Acked"), number("failed", "Failed"), millis("executeLatency", "Execute, mean"),
    millis("latency", "Process, mean",
      "Bolt: from its queue to the ack. Spout: from the emit to the last ack"),
  ];
  return html`<${Table} caption="Components since the submit" columns=${columns} rows=${rows}
    keyOf=${({ id }) => id} sort=${{ id: "executed", isDown: true }} />`;
}
