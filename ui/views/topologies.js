// Topologies that run, and those of the past.

import { html, useState } from "../lib/html.js";
import { OWN, get } from "../lib/api.js";
import { duration, plural } from "../lib/format.js";
import { METRICS_MS, usePoll } from "../lib/poll.js";
import { link, setQuery } from "../lib/route.js";
import { Ago, Choice, Empty, Failed, State } from "../parts/bits.js";
import { Search, Table, matches } from "../parts/table.js";

const HISTORY_MAX = 1000;

const RUNNING = [
  { id: "name", name: "Name", value: ({ name }) => name, cell: ({ id, name }) => html`<a
    href=${link(["topology", id])} title=${id}>${name}</a>` },
  { id: "state", name: "State", value: ({ status }) => status, cell: ({ status }) => html`<${State}
    of=${status} />` },
  { id: "owner", name: "Owner", value: ({ owner }) => owner },
  { id: "workers", name: "Workers", isNumber: true, value: (one) => one.workersTotal,
    cell: (one) => (one.workersTotal === one.workersWanted ? one.workersTotal
      : `${one.workersTotal} of ${one.workersWanted}`) },
  { id: "tasks", name: "Tasks", isNumber: true, value: (one) => one.tasksTotal },
  { id: "alive", name: "Alive", isNumber: true, title: "Tasks with a heartbeat",
    value: (one) => one.tasksAlive / Math.max(1, one.tasksTotal),
    cell: (one) => html`<span
      class=${one.tasksAlive < one.tasksTotal ? "warn-text"
      : ""}>${one.tasksAlive} of ${one.tasksTotal}</span>` },
  { id: "up", name: "Up", isNumber: true, value: (one) => one.uptimeSeconds,
    cell: (one) => duration(one.uptimeSeconds) },
  { id: "problem", name: "Problem", value: ({ problem }) => problem ?? "", cell: ({ problem }) => problem
    && html`<span class="warn-text">${problem}</span>` },
];

const GONE = [
  { id: "name", name: "Name", value: ({ name }) => name, cell: ({ id, name }) => html`<a
    href=${link(["topology", id])} title=${id}>${name}</a>` },
  { id: "id", name: "Id", value: ({ id }) => id, cell: ({ id }) => html`<code>${id}</code>` },
  { id: "ended", name: "Ended", isNumber: true, value: ({ killedMs }) => killedMs, cell: ({
    killedMs }) => html`<${Ago} ms=${killedMs} />` },
  { id: "ran", name: "Ran for", isNumber: true, value: (one) => one.killedMs - one.startedMs,
    cell: (one) => duration((one.killedMs - one.startedMs) / 1000) },
  { id: "by", name: "Ended by", value: ({ killedBy }) => killedBy ?? "" },
  { id: "reason", name: "Reason", value: ({ killReason }) => killReason ?? "" },
];

export function Topologies({ query }) {
  const which = query.show ?? "running";
  const [searched, setSearched] = useState(query.q ?? "");
  const running = usePoll("topologies", (options) => get(`${OWN}/topology/summary`, {}, options));
  const history = usePoll("history", (options) => get(`${OWN}/metrics/history`, { limit: HISTORY_MAX },
    options), METRICS_MS);
  const search = (text) => {
    setSearched(text);
    setQuery({ q: text });
  };
  const alive = running.data?.topologies ?? [];
  const gone = (history.data?.topologies ?? []).filter(({ killedMs }) => killedMs);
  const found = alive.filter((one) => matches(searched, one.name, one.id, one.owner, one.status,
    one.problem));
  const foundGone = gone.filter((one) => matches(searched, one.name, one.id, one.killedBy, one.killReason));
  return html`
    <div class="head"><h1>Topologies</h1>
      <span class="right">
        <${Search} label="Search topologies" value=${searched} onInput=${search} />
        <${Choice} label="Which topologies" value=${which} onChange=${(id) => setQuery({ show: id })}
          options=${[{ id: "running", name: `Running ${alive.length}` }, { id: "gone",
            name: `Gone ${gone.length}` }]} />
      </span>
    </div>
    ${which === "running" && (running.data
      ? html`<${Table} caption="Running topologies" columns=${RUNNING} rows=${found} keyOf=${({ id }) => id}
          empty=${alive.length ? html`<${Empty}
            title="No topology matches">${alive.length === 1 ? "One runs"
            : `${alive.length} run`}. ${foundGone.length > 0 ? html`<a href=${link(["topologies"], { show: "gone",
            q: searched })}>${foundGone.length === 1 ? "One" : foundGone.length} that${" "}
            ${foundGone.length === 1 ? "is" : "are"} gone ${foundGone.length === 1 ? "does" : "do"}.</a>`
            : "Try fewer words."}<//>`
            : html`<${Empty} title="No topology runs">Submit one: <code>stormkeeper submit topology.yaml</code><//>`} />`
      : html`<${Failed} error=${running.error} />`)}
    ${which === "gone" && (history.data
      ? html`<${Table} caption="Topologies that are gone" columns=${GONE} rows=${foundGone}
        keyOf=${({ id }) => id} sort=${{ id: "ended", isDown: true }}
          empty=${html`<${Empty}
            title="None is gone">Topologies that were killed stay here, with their metrics.<//>`} />`
      : html`<${Failed} error=${history.error} />`)}
    ${which === "gone" && history.data?.truncated && html`<p
      class="quiet">Only the newest ${HISTORY_MAX} are shown.</p>`}`;
}
