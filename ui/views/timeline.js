// Where each task ran when, and why it moved.

import { html, useState } from "../lib/html.js";
import { OWN, get, path } from "../lib/api.js";
import { duration, plural, tick, time } from "../lib/format.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Ago, Choice, Empty, Failed } from "../parts/bits.js";
import { timeTicks, useWidth } from "../parts/chart.js";

const ROW = 22;
const LABEL = 190;
/** Maximum number of tasks that are drawn. */
const TASKS_MAX = 200;
const SPANS = [{ id: "3600", name: "1 h" }, { id: "86400", name: "1 day" }, { id: "604800", name: "1 week" },
  { id: "all", name: "All" }];

export function Timeline({ detail }) {
  const { id } = detail;
  const [span, setSpan] = useState("all");
  const [component, setComponent] = useState("");
  const { data, error } = usePoll(`track ${id}`, (options) => get(`${OWN}/metrics/topology/${path(id)}/track`,
    { limit: 5000 }, options), 10_000);
  if (!data) return html`<${Failed} error=${error} />`;
  if (data.entries.length === 0) return html`<${Empty}
    title="No task has run yet">Places appear here once the leader has assigned them.<//>`;
  const components = [...new Set(data.entries.map((entry) => entry.component))];
  const entries = data.entries.filter((entry) => !component || entry.component === component);
  const to = detail.isGone && detail.killedMs ? detail.killedMs : Date.now();
  const first = Math.min(...data.entries.map(({ fromMs }) => fromMs));
  const from = span === "all" ? Math.min(first, to - 60_000) : to - Number(span) * 1000;
  return html`<div class="filters">
      <label>Component <select value=${component} onChange=${(event) => setComponent(event.target.value)}>
        <option value="">all</option>${components.map((one) => html`<option key=${one}
          value=${one}>${one}</option>`)}</select></label>
      <${Choice} label="Time shown" value=${span} onChange=${setSpan} options=${SPANS} />
    </div>
    <${Gantt} entries=${entries} from=${from} to=${to} href=${(one) => link(["component", id, one])} />
    <h2>Moves</h2>
    <${MoveList} entries=${entries} />
    ${data.truncated && html`<p class="quiet">The oldest stays are not shown: there are too many.</p>`}`;
}

function Gantt({ entries, from, to, href }) {
  const [ref, width] = useWidth(900);
  const tasks = [...new Map(entries.map(({ task, component }) => [task, component]))].slice(0, TASKS_MAX);
  const label = width < 640 ? 110 : LABEL;
  const x = (ms) => label + ((Math.min(to, Math.max(from, ms)) - from) / (to - from)) * (width - label - 8);
  const height = tasks.length * ROW + 26;
  const hosts = [...new Set(entries.map(({ host }) => host))].sort();
  const isLong = to - from > 86_400_000;
  return html`<div class="gantt" ref=${ref}>
    <svg width=${width} height=${height} role="group"
      aria-label=${`Places of ${plural(tasks.length, "task")} over time; the moves are listed below`}>
      ${timeTicks(from, to, (width - label) / 100).filter((ms) => x(ms) < width - 28).map((ms) => html`<g class="tick" key=${ms}>
        <line x1=${x(ms)} x2=${x(ms)} y1="0" y2=${height - 20} /><text x=${x(ms)} y=${height - 6}
          text-anchor="middle">${tick(ms, isLong)}</text></g>`)}
      ${tasks.map(([task, component], n) => html`<g key=${task} transform=${`translate(0 ${n * ROW})`}>
        <a href=${href(component)}><text class="task" x="0"
          y="15">${component.length > label / 9 ? `${component.slice(0, label / 9)}…` : component} <tspan
          class="quiet">${task}</tspan></text></a>
        ${entries.filter((entry) => entry.task === task && (entry.toMs ?? to) >= from).map((entry) => {
          const [begin, end] = [x(entry.fromMs), x(entry.toMs ?? to)];
          const place = `${entry.host}:${entry.port}`;
          return html`<g class=${`stay h${hosts.indexOf(entry.host) % 8}`} key=${entry.fromMs}>
            <title>${`${place} from ${time(entry.fromMs)}${entry.toMs ? ` to ${time(entry.toMs)}` : ""}\n${entry.reason}${entry.ended ? `\nended: ${entry.ended}` : ""}`}</title>
            <rect x=${begin} y="2" width=${Math.max(2, end - begin - 1)} height=${ROW - 5} rx="4" />
            ${end - begin > place.length * 7.2 + 10 && html`<text x=${begin + 7} y="14">${place}</text>`}
          </g>`;
        })}
      </g>`)}
    </svg>
  </div>`;
}

const MOVES_MAX = 200;

function MoveList({ entries }) {
  const groups = new Map();
  for (const entry of entries) {
    const before = entries.find((other) => other.task === entry.task && other.toMs !== undefined
      && other.toMs !== null && other.toMs <= entry.fromMs + 60_000
      && other.fromMs < entry.fromMs && !entries.some((third) => third.task === entry.task
        && third.fromMs > other.fromMs && third.fromMs < entry.fromMs));
    const key = [entry.fromMs, entry.host, entry.port, entry.reason, before?.host, before?.port].join("\n");
    const group = groups.get(key) ?? { ...entry, before, tasks: [] };
    group.tasks.push(`${entry.component} ${entry.task}`);
    groups.set(key, group);
  }
  const list = [...groups.values()].sort((a, b) => b.fromMs - a.fromMs);
  return html`<ol class="events">
    ${list.slice(0, MOVES_MAX).map((move, n) => html`<li key=${n}>
      <span class="when"><${Ago} ms=${move.fromMs} /><small>${time(move.fromMs)}</small></span>
      <span class=${`what ${move.before ? "busy" : "good"}`}>${move.before ? "moved" : "placed"}</span>
      <div class="why">${move.before ? html`${move.before.host}:${move.before.port} → `
        : ""}<b>${move.host}:${move.port}</b>
        <span class="quiet"> ${move.tasks.slice(0, 12).join(", ")}${move.tasks.length > 12
          ? ` and ${move.tasks.length - 12} more` : ""}</span>
        <br />${move.reason}${move.toMs ? html`<span
          class="quiet"> · stayed ${duration((move.toMs - move.fromMs) / 1000)}${move.ended
          ? `, until: ${move.ended}` : ""}</span>` : ""}
      </div></li>`)}
    ${list.length > MOVES_MAX && html`<li class="quiet">and ${list.length - MOVES_MAX} earlier ones</li>`}
  </ol>`;
}
