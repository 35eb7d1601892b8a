// Any metric of any topology, alive or gone, over any time. The address has the whole choice, to be shared.

import { html, useState } from "../lib/html.js";
import { OWN, get, getAll, path } from "../lib/api.js";
import { day, ofUnit, time } from "../lib/format.js";
import { FIELDS, RANGES, beginOf, combined, pointsOf, rangeOf, readSeries, windowFor } from "../lib/metrics.js";
import { METRICS_MS, usePoll } from "../lib/poll.js";
import { setQuery } from "../lib/route.js";
import { Choice, Empty, Failed } from "../parts/bits.js";
import { Chart, LINES_MAX, roundTicks, runs, timeTicks } from "../parts/chart.js";
import { Search, matches } from "../parts/table.js";
import { csvOf, saveBlob, saveText } from "../lib/csv.js";
import { pictureOf } from "../lib/png.js";

const METRICS_MAX = 6;
const TOPOLOGIES_MAX = 4;
const SYSTEM = { __CLUSTER__: "whole cluster", __NIMBUS__: "nimbuses",
  __SUPERVISOR__: "hosts of supervisors" };
const HOWS = [
  { id: "each", name: "Each", title: `The ${LINES_MAX} largest series` }, { id: "sum", name: "Sum" }, {
    id: "mean", name: "Mean" },
  { id: "max", name: "Maximum" }, { id: "min", name: "Minimum" },
];

const listOf = (text) => (text ? text.split(",").filter(Boolean) : []);

/** Chosen metrics: `Emitted@component`, and `ProcessLatency@task~p50` with a field. */
function chosenOf(text) {
  return listOf(text).map((item) => {
    const [name, field] = item.split("~");
    const at = name.lastIndexOf("@");
    return { item, metric: name.slice(0, at), level: name.slice(at + 1), field };
  });
}

export function Explorer({ query }) {
  const topologies = usePoll("measured", (options) => getAll(`${OWN}/metrics/topologies`, {}, "topologies",
    options), METRICS_MS);
  const history = usePoll("history", (options) => get(`${OWN}/metrics/history`, { limit: 1000 }, options),
    60_000);
  const selected = listOf(query.topology);
  const chosen = chosenOf(query.m);
  if (!topologies.data) return html`<h1>Explorer</h1><${Failed} error=${topologies.error} />`;
  const known = topologies.data.topologies;
  const ended = new Map((history.data?.topologies ?? []).filter(({
    killedMs }) => killedMs).map((one) => [one.id, one.killedMs]));
  return html`
    <div class="head"><h1>Explorer</h1></div>
    <div class="explorer">
      <aside>
        <${Topologies} known=${known} ended=${ended} selected=${selected} />
        ${selected.length > 0 && html`<${Metrics} topology=${selected[0]} chosen=${chosen} />`}
      </aside>
      <section aria-label="Charts">
        ${selected.length === 0 || chosen.length === 0
          ? html`<${Empty} title=${selected.length === 0 ? "Choose a topology" : "Choose a metric"}>
              ${selected.length === 0 ? "One that runs, one that is gone, or the whole cluster."
                : "Each one gets a chart; lines are its components, tasks or workers."}<//>`
          : html`<${Charts} selected=${selected} chosen=${chosen} query=${query} known=${known}
            ended=${ended} />`}
      </section>
    </div>`;
}

function Topologies({ known, ended, selected }) {
  const [isAdding, setAdding] = useState(false);
  const nameOf = (id) => SYSTEM[id] ?? known.find((one) => one.id === id)?.name ?? id;
  const add = (id) => {
    setAdding(false);
    if (id) setQuery({ topology: [...selected.filter((one) => one !== id),
      id].slice(-TOPOLOGIES_MAX).join(",") });
  };
  const group = (label, list) => list.length > 0 && html`<optgroup label=${label}>
    ${list.map(({ id }) => html`<option key=${id}
      value=${id}>${SYSTEM[id] ?? `${nameOf(id)} (${id})`}</option>`)}</optgroup>`;
  const left = known.filter(({ id }) => !selected.includes(id));
  const gone = left.filter(({ id, alive }) => !alive && !SYSTEM[id]).sort((a,
    b) => (ended.get(b.id) ?? 0) - (ended.get(a.id) ?? 0));
  return html`<div class="pick"><h2>Topology</h2>
    <ul class="chips">${selected.map((id) => html`<li key=${id} title=${id}>${nameOf(id)}
      ${ended.has(id) && html`<small> gone ${day(ended.get(id))}</small>`}
      <button type="button" class="plain" aria-label=${`Remove ${nameOf(id)}`}
        onClick=${() => setQuery({
        topology: selected.filter((one) => one !== id).join(",") })}>✕</button></li>`)}</ul>
    ${selected.length === 0 || isAdding
      ? html`<select aria-label="Topology" value="" onChange=${(event) => add(event.target.value)}>
          <option value="">choose …</option>
          ${group("running", left.filter(({ alive }) => alive))}${group("gone", gone)}${group("system",
            left.filter(({ id }) => SYSTEM[id]))}</select>`
      : selected.length < TOPOLOGIES_MAX && html`<button type="button" class="small"
        onClick=${() => setAdding(true)}>Compare with another</button>`}
  </div>`;
}

/** Order of the groups: what the author measures comes first. */
const RANK = { udf: 0, sys: 1, netty: 2 };

/** Pattern of a name. The names of connections and of received streams begin with the other end: `*.RecvTps`. */
function patternOf({ group, metric }) {
  return group !== "udf" && metric.includes(".") ? `*.${metric.slice(metric.lastIndexOf(".") + 1)}` : metric;
}

function Metrics({ topology, chosen }) {
  const [searched, setSearched] = useState("");
  const { data, error } = usePoll(`metas ${topology}`,
    (options) => getAll(`${OWN}/metrics/topology/${path(topology)}/metas`, {}, "metas", options), 60_000);
  if (!data) return html`<${Failed} error=${error} />`;
  const kinds = new Map();
  for (const meta of data.metas) {
    const metric = patternOf(meta);
    const key = `${metric}@${meta.level}`;
    const entry = kinds.get(key) ?? { key, ...meta, metric, n: 0 };
    entry.n += 1;
    kinds.set(key, entry);
  }
  const list = [...kinds.values()].filter((one) => matches(searched, one.metric, one.level, one.group,
    one.kind))
    .sort((a, b) => RANK[a.group] - RANK[b.group] || a.metric.localeCompare(b.metric)
      || a.level.localeCompare(b.level));
  const isChosen = (one) => chosen.some(({ metric, level }) => `${metric}@${level}` === one.key);
  const toggle = (one) => {
    const rest = chosen.filter(({ metric, level }) => `${metric}@${level}` !== one.key).map(({
      item }) => item);
    setQuery({ m: (isChosen(one) ? rest : [...rest, one.key].slice(-METRICS_MAX)).join(",") });
  };
  return html`<div class="pick"><h2>Metric <span class="n">${list.length}</span></h2>
    <${Search} label="Search metrics" value=${searched} onInput=${setSearched} />
    <ul class="metric-list" tabindex="0" aria-label="Metrics">${list.slice(0, 400).map((one) => html`<li
      key=${one.key}>
      <button type="button" aria-pressed=${isChosen(one)} onClick=${() => toggle(one)}
        title=${`${one.kind}, ${one.group}`}>
        <b>${one.metric}</b><small>${one.level}${one.unit ? ` · ${one.unit}` : ""}${one.group === "udf"
          ? " · yours" : ""}</small><span class="n">${one.n}</span>
      </button></li>`)}</ul>
    ${data.isCut && html`<p class="quiet">The list is cut: this topology has too many metrics.</p>`}
  </div>`;
}

function Charts({ selected, chosen, query, known, ended }) {
  const range = rangeOf(query.range);
  const isPast = selected.every((id) => ended.has(id));
  const end = isPast ? Math.max(...selected.map((id) => ended.get(id))) + 60_000 : Date.now();
  const isZoomed = Boolean(query.from && query.to);
  const [first, to] = isZoomed ? [Number(query.from), Number(query.to)] : [end - range.secs * 1000, end];
  const windowSecs = Number(query.window ?? windowFor(range.window, first));
  const from = isZoomed ? first : beginOf(first, windowSecs);
  const how = HOWS.some(({ id }) => id === query.how) ? query.how : "each";
  const key = JSON.stringify(["explore", selected, chosen.map(({ metric, level }) => [metric, level]),
    isZoomed ? [from, to] : [range.id, isPast && end], windowSecs]);
  const { data, error } = usePoll(key, (options) => Promise.all(chosen.map(async ({ metric, level }) => {
    const read = (topology) => readSeries(topology, { pattern: metric, level, window: windowSecs,
      from: Math.round(from), to: Math.round(to) }, options);
    const answers = await Promise.all(selected.map(read));
    return answers.map((answer, n) => ({ topology: selected[n], ...answer }));
  })), isPast || isZoomed ? 60_000 : METRICS_MS);
  const nameOf = (id) => SYSTEM[id] ?? known.find((one) => one.id === id)?.name ?? id;
  const prefix = (id) => (selected.length > 1 ? `${nameOf(id)} ` : "");
  const setItem = (item, field) => setQuery({ m: chosen.map((one) => (one.item === item
    ? `${one.metric}@${one.level}~${field}` : one.item)).join(",") });
  const charts = !data ? [] : chosen.map((one, n) => {
    const answers = (data[n] ?? []).map((answer) => ({ ...answer,
      series: answer.series.filter((series) => matches(query.only, labelOf(series))) }));
    const kind = answers.flatMap(({ series }) => series)[0]?.kind;
    const unit = answers.flatMap(({ series }) => series)[0]?.unit;
    const fields = FIELDS[kind] ?? [];
    const field = fields.includes(one.field) ? one.field : fields[0];
    const lines = answers.flatMap(({ topology, series }) => linesOf(series, field, windowSecs, how,
      prefix(topology)));
    return { ...one, kind, unit, fields, field, lines, isCut: answers.some(({ isCut }) => isCut) };
  });
  const rows = () => charts.flatMap(({ metric, level, field, lines }) => lines.flatMap(({ name,
    points }) => points
    .map(([ms, value]) => [new Date(ms).toISOString(), metric, level, field, name, value])));
  const save = () => saveText(`stormkeeper-${selected.join("-")}.csv`, csvOf([["time", "metric", "level",
    "field", "series", "value"], ...rows()]));
  return html`
    <div class="filters">
      <${Choice} label="Time shown" value=${isZoomed ? "" : range.id}
        onChange=${(id) => setQuery({ range: id, from: null, to: null, window: null })} options=${RANGES} />
      <${Choice} label="Lines" value=${how} onChange=${(id) => setQuery({ how: id === "each" ? null : id })}
        options=${HOWS} />
      <label>Window <select value=${windowSecs}
        onChange=${(event) => setQuery({ window: event.target.value })}>
        <option value="60">1 min</option><option value="600">10 min</option><option
          value="7200">2 h</option><option value="86400">1 day</option></select></label>
      <${Search} label="Only series with …" value=${query.only ?? ""}
        onInput=${(only) => setQuery({ only })} />
      <button type="button" onClick=${save} disabled=${!data} title="Save the points that are shown">CSV</button>
      <button type="button" onClick=${() => savePicture(selected, charts, { from, to, windowSecs })}
        disabled=${!data} title="Save the charts as a picture">PNG</button>
      <${Share} />
    </div>
    ${isZoomed && html`<p class="quiet">${time(from)} to ${time(to)}
      <button type="button" class="plain"
        onClick=${() => setQuery({ from: null, to: null, window: null })}>Show all</button></p>`}
    ${!data && html`<${Failed} error=${error} />`}
    ${charts.map((chart) => html`<div key=${chart.item} class="explored">
      <${Chart} title=${chart.metric} note=${`${chart.level}${chart.unit ? `, ${chart.unit}` : ""}`}
        lines=${chart.lines} from=${from} to=${to}
        windowSecs=${windowSecs} height=${charts.length > 1 ? 190 : 300} format=${formatOf(chart)}
          isBytes=${chart.unit === "bytes" && chart.field !== "count"}
        onZoom=${(a, b) => setQuery({ from: Math.round(a), to: Math.round(b), window: windowOfStretch(b - a) })} />
      <div class="under">
        ${chart.fields.length > 1 && html`<label>Shows <select value=${chart.field}
          onChange=${(event) => setItem(chart.item, event.target.value)}>
          ${chart.fields.map((field) => html`<option key=${field}
            value=${field}>${field}</option>`)}</select></label>`}
        ${chart.lines.length > LINES_MAX && html`<span
          class="quiet">The ${LINES_MAX} largest of ${chart.lines.length} lines. Search,
          or take their sum.</span>`}
        ${chart.isCut && html`<span class="quiet">The list of points is cut: choose a longer window.</span>`}
        <button type="button" class="plain"
          onClick=${() => setQuery({ m: chosen.filter(({ item }) => item !== chart.item).map(({
          item }) => item).join(",") })}>Remove</button>
      </div>
    </div>`)}
    ${data && html`<p class="quiet">Drag over a chart to look closer. Arrow keys move along its points.</p>`}`;
}

/** Saves the charts as one picture, with the lines that are shown. */
async function savePicture(selected, charts, { from, to, windowSecs }) {
  const isLong = to - from > 86_400_000;
  const drawn = charts.map((chart) => {
    const lines = chart.lines.slice(0, LINES_MAX)
      .map((line) => ({ ...line, points: line.points.filter(([ms]) => ms >= from) }));
    const max = Math.max(0, ...lines.flatMap(({ points }) => points.map((point) => point[1])));
    const isBytes = chart.unit === "bytes" && chart.field !== "count";
    const note = [chart.level, chart.field, `${selected.join(", ")}, ${time(from)} to ${time(to)}`];
    return { title: chart.metric, note: note.filter(Boolean).join(" · "), lines, format: formatOf(chart),
      ticks: roundTicks(max > 0 ? max : 1, isBytes) };
  });
  const axis = { from, to, windowSecs, isLong, ticks: timeTicks(from, to, isLong ? 9 : 12) };
  saveBlob(`stormkeeper-${selected.join("-")}.png`, await pictureOf(drawn, axis, runs));
}

/** Window of points for a stretch of time that is looked at closer. */
const windowOfStretch = (ms) => RANGES.find(({ secs }) => secs * 1000 >= ms)?.window ?? 86400;

function formatOf({ kind, unit, field }) {
  if (field === "count") return ofUnit(undefined);
  if (field === "per second" || field === "rate" || field === "m1") return ofUnit(unit?.endsWith("/s") ? unit
    : "/s");
  return ofUnit(unit);
}

function labelOf({ component, task, stream, host, port, metric, group }) {
  const place = host && (port ? `${host}:${port}` : host);
  const end = group !== "udf" && metric.includes(".") ? `← ${metric.slice(0, metric.lastIndexOf("."))}`
    : null;
  const parts = [component, task && `task ${task}`, stream && stream !== "default" ? stream : null, place,
    end].filter(Boolean);
  return parts.join(" ") || metric;
}

function linesOf(series, field, windowSecs, how, prefix) {
  const lines = series.map((one) => ({ name: `${prefix}${labelOf(one)}`, points: pointsOf(one, field,
    windowSecs) }));
  if (how !== "each") return [{ name: `${prefix}${how}`, points: combined(lines.map(({ points }) => points),
    how) }];
  const seen = new Map();
  for (const line of lines) {
    const n = (seen.get(line.name) ?? 0) + 1;
    seen.set(line.name, n);
    if (n > 1) line.name += ` (${n})`;
  }
  const size = ({ points }) => points.reduce((sum, point) => sum + point[1], 0) / Math.max(1, points.length);
  return lines.sort((a, b) => size(b) - size(a));
}

function Share() {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      setCopied(true);
    } catch {
      // Without TLS browsers have no clipboard: the address bar has the link.
      setCopied(null);
    }
  };
  return html`<button type="button"
    onClick=${copy}>${isCopied ? "Copied" : isCopied === null ? "The address is the link"
    : "Copy link"}</button>`;
}
