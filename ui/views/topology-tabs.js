// Tabs of a topology: charts, workers, errors, logs, settings.

import { html, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { OWN, get, path } from "../lib/api.js";
import { bytes, count, duration, micros, perSecond, share, tasksOf, time } from "../lib/format.js";
import { RANGES, beginOf, pointsOf, rangeOf, readLatest, readSeries, tableOf, windowFor } from "../lib/metrics.js";
import { METRICS_MS, usePoll } from "../lib/poll.js";
import { link, setQuery } from "../lib/route.js";
import { Ago, Choice, Empty, Failed } from "../parts/bits.js";
import { Chart } from "../parts/chart.js";
import { Search, Table, matches } from "../parts/table.js";

/**
 * Choice of the time that charts of a topology show: until now, or until a minute after its end if it is gone,
 * and not before its start.
 */
export function useRange(query, detail) {
  const chosen = rangeOf(query.range);
  const to = detail.isGone && detail.killedMs ? detail.killedMs + 60_000 : Date.now();
  const start = (detail.launchedMs ?? detail.startedMs) - chosen.window * 1000;
  const from = Math.max(to - chosen.secs * 1000, Math.min(start, to - 300_000));
  // Points of a topology that is gone for long are left in longer windows only.
  const range = { ...chosen, window: windowFor(chosen.window, Math.min(from, to - 600_000)) };
  const control = html`<${Choice} label="Time shown" value=${chosen.id}
    onChange=${(id) => setQuery({ range: id })} options=${RANGES} />`;
  return { range, to, from: beginOf(from, range.window), control };
}

export function Charts({ detail, query }) {
  const { id } = detail;
  const { range, from, to, control } = useRange(query, detail);
  const { data, error } = usePoll(`charts ${id} ${range.id}`, async (options) => {
    const read = (level, pattern) => readSeries(id, { level, pattern, window: range.window,
      from: Math.round(from), to: Math.round(to) }, options);
    const [emitted, acked, failed, latency, capacity, queue, cpu, memory] = await Promise.all([
      read("topology", "Emitted"), read("topology", "Acked"), read("topology", "Failed"), read("component",
        "ProcessLatency"),
      read("component", "Capacity"), read("component", "ExecutorQueue"), read("worker", "CpuUsedRatio"),
        read("worker", "MemoryUsed"),
    ]);
    return { emitted, acked, failed, latency, capacity, queue, cpu, memory };
  }, METRICS_MS);
  if (!data) return html`<${Failed} error=${error} />`;
  const one = (name, { series }) => ({ name, points: series[0] ? pointsOf(series[0], "per second",
    range.window) : [] });
  // A component, or a worker, has one colour in all charts.
  const names = [data.capacity, data.cpu].map(({ series }) => series.map(({ component, host,
    port }) => component ?? `${host}:${port}`).sort());
  const each = ({ series }, field, nameOf) => series
    .map((item) => ({ name: nameOf(item), colour: Math.max(...names.map((list) => list.indexOf(nameOf(item))),
      0), points: pointsOf(item, field, range.window) }))
    .sort((a, b) => most(b) - most(a));
  const component = (item) => item.component;
  const worker = ({ host, port }) => `${host}:${port}`;
  const shared = { from, to, windowSecs: range.window };
  return html`<div class="head"><span class="right">${control}</span></div>
    <div class="charts">
      <${Chart} ...${shared} title="Tuples" note="per second" format=${perSecond}
        lines=${[one("emitted", data.emitted), one("acked", data.acked), one("failed", data.failed)]} />
      <${Chart} ...${shared} title="Process latency, p99" note="spouts: until the last ack" format=${micros}
        lines=${each(data.latency, "p99", component)} />
      <${Chart} ...${shared} title="Busy" note="share of the time" format=${share} atLeast=${1}
        lines=${each(data.capacity, "value", component)} />
      <${Chart} ...${shared}  title="Fullest queue" note="how full, in %" atLeast=${10}
        format=${(value) => (value === undefined ? "–" : `${count(value)} %`)}
        lines=${each(data.queue, "max", component)} />
      <${Chart} ...${shared} title="CPU of workers" note="% of a core"
        format=${(value) => (value === undefined ? "–" : `${count(value)} %`)}
        lines=${each(data.cpu, "value", worker)} />
      <${Chart} ...${shared} title="Memory of workers" isBytes format=${bytes}
        lines=${each(data.memory, "value", worker)} />
    </div>
    <p class="quiet">More metrics, and comparisons: <a
      href=${link(["explorer"], { topology: id, range: range.id })}>explorer</a>.</p>`;
}

const most = ({ points }) => Math.max(...points.map((point) => point[1]), 0);

export function Workers({ detail }) {
  const { id } = detail;
  const latest = usePoll(`workers ${id}`, (options) => readLatest(id, { level: "worker", window: 60 },
    options), METRICS_MS);
  const at = ({ host, port }) => `${host}:${port}`;
  const table = tableOf(latest.data?.values, at);
  const components = new Map(detail.tasks.map(({ task, component }) => [task, component]));
  const named = (tasks) => {
    const n = new Map();
    for (const task of tasksOf(tasks)) n.set(components.get(task), (n.get(components.get(task)) ?? 0) + 1);
    return [...n].map(([component, times]) => (times > 1 ? `${component} ×${times}` : component)).join(", ");
  };
  const metric = (column, name, metricName, format) => ({ id: column, name, isNumber: true,
    value: (one) => table.of(at(one), metricName), cell: (one) => format(table.of(at(one), metricName)) });
  const columns = [
    { id: "worker", name: "Worker", value: at, cell: (one) => html`<a
      href=${link(["topology", id], { tab: "logs", worker: at(one) })} title="Its log">${at(one)}</a>` },
    { id: "up", name: "Up", isNumber: true, value: (one) => one.uptimeSeconds,
      cell: (one) => duration(one.uptimeSeconds) },
    { id: "alive", name: "Alive", isNumber: true, title: "Tasks with a heartbeat",
      value: (one) => one.tasksAlive,
      cell: (one) => `${one.tasksAlive} of ${tasksOf(one.tasks).length}` },
    metric("cpu", "CPU", "CpuUsedRatio", (value) => (value === undefined ? "–" : `${count(value)} %`)),
    metric("memory", "Memory", "MemoryUsed", bytes),
    metric("files", "Open files", "OpenFiles", count),
    { id: "tasks", name: "Components", value: ({ tasks }) => named(tasks) },
    { id: "launch", name: "Launch", value: ({ workerId }) => workerId ?? "", cell: ({ workerId }) => workerId
      && html`<code>${workerId}</code>` },
  ];
  return html`<${Table} caption="Workers" columns=${columns} rows=${detail.workers} keyOf=${at}
    empty=${html`<${Empty} title="No worker yet">The leader places the tasks, then workers start.<//>`} />`;
}

export function Errors({ data, error, component, most: limit = 200, more }) {
  if (!data) return html`<${Failed} error=${error} />`;
  const errors = component ? data.errors.filter((one) => one.component === component) : data.errors;
  if (errors.length === 0) return html`<${Empty}
    title="No errors">Errors that components report appear here.<//>`;
  return html`<ol class="events errors">
    ${errors.slice(0, limit).map((one, n) => html`<li key=${n}>
      <span class="when"><${Ago} ms=${one.errorTimeMs} /><small>${time(one.errorTimeMs)}</small></span>
      <span class="what bad">${one.component} <span class="n">task ${one.task}</span></span>
      <div class="why"><span class="text">${one.error}</span> <span
        class="quiet">on ${one.errorHost}:${one.errorPort}</span>
        ${one.stack && html`<details><summary>more</summary><pre>${one.stack}</pre></details>`}</div>
    </li>`)}
  </ol>
  ${errors.length > limit && html`<p class="quiet">${more ? html`<a
    href=${more}>All ${errors.length} errors</a>` : `and ${errors.length - limit} more`}</p>`}`;
}

const LINES = 100;
const LEVEL = /^\S+Z?\s+(ERROR|WARN|INFO|DEBUG|TRACE)\b/;

/** Last lines of the logs of a topology, of all workers in the order of their times. */
export function Logs({ detail, query, component }) {
  const [searched, setSearched] = useState("");
  const [asked, setAsked] = useState("");
  const [only, setOnly] = useState(component ?? query.component ?? "");
  const [host, port] = query.worker ? [query.worker.slice(0, query.worker.lastIndexOf(":")),
    query.worker.slice(query.worker.lastIndexOf(":") + 1)] : [];
  const wanted = { text: asked || undefined, component: only || undefined, host, port, last: LINES,
    past: detail.isGone || undefined };
  const url = `${OWN}/topology/${path(detail.id)}/logs/search`;
  const { data, error } = usePoll(`logs ${detail.id} ${JSON.stringify(wanted)}`, (options) => get(url, wanted,
    options), 5_000);
  const lines = (data?.supervisors ?? []).flatMap(({ host: from,
    workers }) => workers.flatMap((worker) => worker.lines.map((line) => ({
    ...line, key: `${from} ${worker.worker} ${line.file} ${line.offset}`, from: `${from}:${worker.port}`,
  }))));
  const isTimed = ({ text }) => LEVEL.test(text);
  lines.sort((a, b) => (isTimed(a) && isTimed(b) ? (a.text < b.text ? -1 : 1) : 0));
  return html`<form class="filters" onSubmit=${(event) => { event.preventDefault(); setAsked(searched); }}>
      <${Search} label="Text in lines" value=${searched} onInput=${setSearched} />
      <button type="submit">Search</button>
      ${!component && detail.components && html`<label>Component <select value=${only}
        onChange=${(event) => setOnly(event.target.value)}>
        <option value="">all</option>${detail.components.map(({ id }) => html`<option key=${id}
          value=${id}>${id}</option>`)}</select></label>`}
      ${query.worker && html`<span>Worker ${query.worker} <button type="button" class="plain"
        onClick=${() => setQuery({ worker: null })}>all workers</button></span>`}
      <span class="quiet">The last ${LINES} lines of each launch, every 5 s.</span>
    </form>
    ${(data?.unavailable ?? []).map((one) => html`<p class="warn-text"
      key=${one.supervisor}>${one.host}: ${one.reason}</p>`)}
    ${!data ? html`<${Failed} error=${error} />`
      : lines.length === 0 ? html`<${Empty}
        title="No lines">${asked || only ? "No line matches." : "The workers have logged nothing."}<//>`
      : html`<${Lines} lines=${lines} />`}`;
}

/** Lines of logs. The newest are in sight, until somebody scrolls up. */
function Lines({ lines }) {
  const ref = useRef(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    if (isAtEnd.current) ref.current.scrollTop = ref.current.scrollHeight;
  });
  const scrolled = ({ currentTarget: box }) => {
    isAtEnd.current = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  };
  return html`<div class="log" ref=${ref} onScroll=${scrolled} tabindex="0" role="region"
    aria-label="Lines of logs">
    ${lines.map(({ key, text, from }) => {
      const level = LEVEL.exec(text)?.[1] ?? "";
      return html`<div key=${key} class=${`log-line ${level.toLowerCase()}`}><span
        class="place">${from}</span><span>${text}</span></div>`;
    })}
  </div>`;
}
