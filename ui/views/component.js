// A component, or one of its tasks: percentiles over time, streams, errors, log.

import { html } from "../lib/html.js";
import { OWN, get, path } from "../lib/api.js";
import { count, micros, perSecond, share } from "../lib/format.js";
import { useLive } from "../lib/live.js";
import { pointsOf, readLatest, readSeries, tableOf } from "../lib/metrics.js";
import { METRICS_MS, usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Bar, Empty, Failed, State, Tile } from "../parts/bits.js";
import { Chart } from "../parts/chart.js";
import { LiveFacts } from "../parts/live.js";
import { Table } from "../parts/table.js";
import { Errors, Logs, useRange } from "./topology-tabs.js";
import { readTopology } from "./topology.js";

const PERCENTILES = ["p50", "p90", "p99", "max"];

export function Component({ topology, id, query }) {
  const { data: detail, error } = usePoll(`topology ${topology}`, (options) => readTopology(topology,
    options));
  if (!detail) return html`<h1>${id}</h1><${Failed} error=${error} />`;
  return html`<${Loaded} detail=${detail} topology=${topology} id=${id} query=${query} />`;
}

function Loaded({ detail, topology, id, query }) {
  const { range, from, to, control } = useRange(query, detail);
  const task = query.task;
  const level = task ? "task" : "component";
  const series = usePoll(`component ${topology} ${id} ${task} ${range.id}`, async (options) => {
    const read = (pattern) => readSeries(topology, {
      level, component: id, task, pattern, window: range.window, from: Math.round(from), to: Math.round(to),
    }, options).then((answer) => answer.series[0]);
    const names = ["ProcessLatency", "ExecutorTime", "Emitted", "Executed", "Acked", "Failed", "Capacity",
      "ExecutorQueue", "TupleLifeCycle"];
    const found = await Promise.all(names.map(read));
    return Object.fromEntries(names.map((name, n) => [name, found[n]]));
  }, METRICS_MS);
  const tasks = usePoll(`tasks ${topology} ${id}`, (options) => readLatest(topology, { level: "task",
    component: id, window: 60 }, options), METRICS_MS);
  const streams = usePoll(`component streams ${topology} ${id}`, (options) => readLatest(topology, {
    level: "component-stream", component: id, window: 60 }, options), METRICS_MS);
  const errors = usePoll(detail.isGone ? null : `errors ${topology}`,
    (options) => get(`${OWN}/topology/${path(topology)}/errors`, {}, options), 5_000);
  const live = useLive(detail.isGone || task ? null : topology);
  const component = detail.components?.find((one) => one.id === id);
  const kind = component?.kind;
  const of = (name, field) => (series.data?.[name] ? pointsOf(series.data[name], field, range.window) : []);
  const last = (points) => points[points.length - 1]?.[1];
  const shared = { from, to, windowSecs: range.window, isWaiting: !series.data };
  const lines = (name, fields) => fields.map((field) => ({ name: field, points: of(name, field) }));
  const rate = (name) => ({ name: name.toLowerCase(), points: of(name, "per second") });
  const isSpout = kind === "spout";
  const main = of(isSpout ? "Emitted" : "Executed", "per second");
  return html`
    <nav class="crumbs" aria-label="Path"><a href=${link(["topologies"])}>Topologies</a>
      <a href=${link(["topology", topology])}>${detail.name}</a>
      ${task && html`<a href=${link(["component", topology, id])}>${id}</a>`}</nav>
    <div class="head"><h1>${task ? `${id}, task ${task}` : id}</h1>
      ${kind && html`<span class="quiet">${kind}</span>`}
      ${detail.isGone && html`<${State} of="gone" />`}
      <span class="right">${control}</span></div>
    <${LiveFacts} live=${live} id=${id} />
    <div class="tiles">
      <${Tile} name=${isSpout ? "Emitted" : "Executed"} value=${perSecond(last(main))} detail="per second"
        points=${main} />
      <${Tile} name="Busy" value=${share(last(of("Capacity", "value")))} detail="share of its time"
        points=${of("Capacity", "value")} />
      <${Tile} name="Process latency, p99" value=${micros(last(of("ProcessLatency", "p99")))}
        detail=${isSpout ? "until the last ack" : "from its queue to the ack"}
        points=${of("ProcessLatency", "p99")} />
      <${Tile} name="Failed"
        value=${perSecond(last(of("Failed", "per second")) ?? (main.length ? 0 : undefined))}
        detail="per second" points=${of("Failed", "per second")} />
    </div>
    <div class="charts">
      <${Chart} ...${shared} title="Process latency"
        note=${isSpout ? "from the emit to the last ack" : "from its queue to the ack"} format=${micros}
        lines=${lines("ProcessLatency", PERCENTILES)} />
      <${Chart} ...${shared} title="One call" note=${isSpout ? "of nextTuple" : "of the bolt"}
        format=${micros} lines=${lines("ExecutorTime", PERCENTILES)} />
      <${Chart} ...${shared} title="Tuples" note="per second" format=${perSecond}
        lines=${["Emitted", ...(isSpout ? [] : ["Executed"]), "Acked", "Failed"].map(rate)} />
      <${Chart} ...${shared} title="Busy" note="share of the time" format=${share} atLeast=${1} lines=${[
        { name: "mean of tasks", points: of("Capacity", "value") }, { name: "busiest task",
          points: of("Capacity", "max") },
      ]} />
    </div>
    ${!task && html`<${Tasks} detail=${detail} topology=${topology} id=${id} values=${tasks.data?.values} />`}
    <h2>Streams</h2>
    <${Streams} values=${streams.data?.values} error=${streams.error} />
    ${!detail.isGone && html`<h2>Errors</h2><${Errors} data=${taskOnly(errors.data, task)}
      error=${errors.error} component=${id} most=${5}
      more=${link(["topology", topology], { tab: "errors" })} />`}
    <h2>Log</h2>
    <${Logs} detail=${detail} query=${{}} component=${id} />`;
}

function taskOnly(data, task) {
  return data && task ? { ...data, errors: data.errors.filter((one) => String(one.task) === task) } : data;
}

function Tasks({ detail, topology, id, values }) {
  const table = tableOf(values, (value) => value.task);
  const known = detail.tasks?.filter((one) => one.component === id)
    ?? [...new Set((values ?? []).map((value) => value.task))].map((task) => ({ task }));
  const metric = (column, name, metricName, field, format, title) => ({ id: column, name, title,
    isNumber: true,
    value: (one) => table.of(one.task, metricName, field), cell: (one) => format(table.of(one.task,
      metricName, field)) });
  const columns = [
    { id: "task", name: "Task", isNumber: false, value: ({ task }) => task, cell: ({ task }) => html`<a
      href=${link(["component", topology, id], { task })}>${task}</a>` },
    detail.tasks && { id: "at", name: "Worker", value: (one) => (one.host ? `${one.host}:${one.port}` : ""),
      cell: (one) => one.host && html`<a
        href=${link(["topology", topology], { tab: "logs",
        worker: `${one.host}:${one.port}` })}>${one.host}:${one.port}</a>` },
    detail.tasks && { id: "state", name: "State", value: ({ status }) => status ?? "", cell: ({ status,
      liveness }) => html`<${State} of=${liveness === "alive" ? status ?? "alive" : liveness} />` },
    { id: "capacity", name: "Busy", isNumber: true, value: (one) => table.of(one.task, "Capacity"),
      cell: (one) => html`<${Bar} value=${table.of(one.task, "Capacity")} />` },
    metric("queue", "Queue", "ExecutorQueue", "max", (value) => (value === undefined ? "–"
      : `${count(value)} %`)),
    metric("emitted", "Emitted", "Emitted", "per second", perSecond),
    metric("executed", "Executed", "Executed", "per second", perSecond),
    metric("failed", "Failed", "Failed", "count", (value) => count(value ?? 0)),
    metric("p50", "Process, p50", "ProcessLatency", "p50", micros),
    metric("p99", "p99", "ProcessLatency", "p99", micros),
  ].filter(Boolean);
  return html`<h2>Tasks <span class="n">${known.length}</span></h2>
    <${Table} caption="Tasks" columns=${columns} rows=${known} keyOf=${({ task }) => task}
      empty=${html`<${Empty} title="No task">It has no task now.<//>`} />`;
}

function Streams({ values, error }) {
  if (!values) return html`<${Failed} error=${error} />`;
  const names = [...new Set(values.map(({ stream }) => stream))].sort();
  const table = tableOf(values, ({ stream }) => stream);
  const rate = (column, name, metric) => ({ id: column, name, isNumber: true,
    value: (stream) => table.of(stream, metric, "per second"),
    cell: (stream) => perSecond(table.of(stream, metric, "per second")) });
  const columns = [
    { id: "stream", name: "Stream", value: (stream) => stream,
      cell: (stream) => html`<code>${stream}</code>` },
    rate("emitted", "Emitted", "Emitted"), rate("transferred", "Transferred", "Transferred"), rate("executed",
      "Executed", "Executed"),
    rate("acked", "Acked", "Acked"), rate("failed", "Failed", "Failed"),
    { id: "p99", name: "Process, p99", isNumber: true, value: (stream) => table.of(stream, "ProcessLatency",
      "p99"), cell: (stream) => micros(table.of(stream, "ProcessLatency", "p99")) },
  ];
  return html`<${Table} caption="Streams in the last minute" columns=${columns} rows=${names}
    keyOf=${(stream) => stream}
    empty=${html`<${Empty}
      title="No streams yet">Numbers of streams come a minute after the start,
      and only while tuples flow.<//>`} />`;
}
