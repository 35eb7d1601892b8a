// The cluster: what needs a person, totals, nimbuses, and what runs in the slots of each supervisor.

import { html } from "../lib/html.js";
import { OWN, STORM, get } from "../lib/api.js";
import { bytes, count, duration, perSecond, plural, share, whole } from "../lib/format.js";
import { lastBeside, pointsOf, readLatest, readSeries, tableOf } from "../lib/metrics.js";
import { METRICS_MS, usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { HostAction } from "../parts/actions.js";
import { Empty, Failed, Findings, State, Tile } from "../parts/bits.js";
import { Table } from "../parts/table.js";

const NIMBUS_FAULTS = [
  "metricStoreError", "diskProblem", "accessProblem", "clockProblem", "exposed", "metricsProblem",
];
/** Maximum number of supervisors whose slots are named; that of the others are numbers. */
const NAMED_MAX = 200;
const AT_ONCE = 6;
const SLOTS_MS = 10_000;

const state = ({ signal }) => Promise.all([
  get(`${OWN}/cluster/summary`, {}, { signal }),
  get(`${OWN}/nimbus/summary`, {}, { signal }),
  get(`${OWN}/supervisor/summary`, {}, { signal }),
  get(`${OWN}/topology/summary`, {}, { signal }),
]).then(([cluster, nimbuses, supervisors, topologies]) => ({ cluster, nimbuses, supervisors, topologies }));

/** Reads what runs in the slots of supervisors: `{ supervisor: { port: worker } }`. */
async function readSlots(ids, options) {
  const slots = {};
  const rest = ids.slice(0, NAMED_MAX);
  const next = async () => {
    for (let id = rest.shift(); id !== undefined; id = rest.shift()) {
      const answer = await get(`${STORM}/supervisor`, { id }, options);
      slots[id] = Object.fromEntries(answer.workers.map((worker) => [worker.port, worker]));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  return slots;
}

const TILES = ["Emitted", "Acked", "Failed", "CpuUsedRatio", "MemoryUsed"];

async function readTotals(options) {
  const read = (pattern) => readSeries("__CLUSTER__", { pattern, level: "topology", window: 60, from: "-1h" },
    options)
    .catch((error) => (error.status === 404 ? { series: [] } : Promise.reject(error)));
  const answers = await Promise.all(TILES.map(read));
  return Object.fromEntries(answers.map(({ series }, n) => [TILES[n], series[0]]));
}

export function Cluster() {
  const { data, error, refresh } = usePoll("cluster", state);
  const ids = data?.supervisors.supervisors.map(({ id }) => id) ?? [];
  const slots = usePoll(ids.length ? `slots ${ids.join()}` : null, (options) => readSlots(ids, options),
    SLOTS_MS);
  const totals = usePoll("cluster totals", readTotals, METRICS_MS);
  const hosts = usePoll("hosts", (options) => readLatest("__SUPERVISOR__", { window: 60 }, options)
    .catch(() => ({ values: [] })), METRICS_MS);
  if (!data) return html`<h1>Cluster</h1><${Failed} error=${error} />`;
  const { cluster, nimbuses, supervisors, topologies } = data;
  return html`
    <div class="head"><h1>Cluster</h1>
      <span class="quiet">Stormkeeper ${cluster.version}, term ${nimbuses.term ?? "–"}</span></div>
    <${Findings} items=${findings(data)} />
    <${Totals} cluster=${cluster} topologies=${topologies.topologies} totals=${totals.data ?? {}} />
    ${topologies.topologies.length === 0 && supervisors.supervisors.length > 0 && html`<${Empty}
      title="No topology runs">Submit one: <code>stormkeeper submit topology.yaml</code>, or make a new one:${" "}
      <code>stormkeeper new NAME --lang python</code><//>`}
    <h2>Supervisors <span class="n">${supervisors.supervisors.length}</span></h2>
    ${supervisors.supervisors.length === 0
      ? html`<${Empty} title="No supervisor is up">Start one on each host that shall run workers:${" "}
          <code>stormkeeper supervisor</code><//>`
      : html`<div class="hosts">${supervisors.supervisors.map((one) => html`<${Supervisor} key=${one.id}
        of=${one}
          workers=${slots.data?.[one.id]} colours=${coloursOf(topologies.topologies)}
            usage=${tableOf(hosts.data?.values, ({ host }) => host)}
          drain=${supervisors.drains.find(({ host }) => host === one.host)} onDone=${refresh} />`)}</div>`}
    <h2>Nimbuses <span class="n">${nimbuses.nimbuses.length}</span></h2>
    <${Nimbuses} list=${nimbuses.nimbuses} />`;
}

function findings({ cluster, nimbuses, supervisors, topologies }) {
  const items = [];
  if (nimbuses.treeProblem) items.push({ text: nimbuses.treeProblem, kind: "bad" });
  if (!cluster.leader) items.push({
    text: "There is no leader: an election runs. Changes wait until it has ended.", kind: "bad" });
  for (const text of cluster.problems ?? []) items.push({ text });
  for (const nimbus of nimbuses.nimbuses) {
    for (const fault of NIMBUS_FAULTS) if (nimbus[fault]) items.push({
      text: `nimbus ${nimbus.api}: ${nimbus[fault]}` });
    if (nimbus.blobsMissing > 0) items.push({
      text: `nimbus ${nimbus.api} lacks ${plural(nimbus.blobsMissing, "package")}` });
  }
  for (const supervisor of supervisors.supervisors) {
    for (const text of supervisor.problems) items.push({ text: `${supervisor.host}: ${text}` });
  }
  for (const topology of topologies.topologies) {
    if (topology.problem) items.push({ text: `${topology.name}: ${topology.problem}`, href: link(["topology",
      topology.id]) });
  }
  for (const { path, reason, remedy } of cluster.unreadable ?? []) {
    items.push({ text: `${path} cannot be read: ${reason}. ${remedy ?? ""}`, kind: "bad" });
  }
  const seen = new Set();
  return items.filter(({ text }) => !seen.has(text) && seen.add(text));
}

function Totals({ cluster, topologies, totals }) {
  const points = (name, field, factor = 1) => {
    const list = totals[name] ? pointsOf(totals[name], field, 60) : [];
    return list.map(([ms, value]) => [ms, value * factor]);
  };
  const last = (list) => list[list.length - 1]?.[1];
  const [emitted, acked, failed] = ["Emitted", "Acked", "Failed"].map((name) => points(name, "per second"));
  const [cpu, memory] = [points("CpuUsedRatio", "value", 0.01), points("MemoryUsed", "value")];
  const isBroken = topologies.some(({ tasksAlive, tasksTotal }) => tasksAlive < tasksTotal);
  const explore = (pattern) => link(["explorer"], { topology: "__CLUSTER__", m: `${pattern}@topology` });
  return html`<div class="tiles">
    <${Tile} name="Topologies" value=${whole(topologies.length)} href=${link(["topologies"])}
      detail=${isBroken ? "some have tasks without a heartbeat" : topologies.length ? "all tasks are alive"
        : "none was submitted"}
        kind=${isBroken ? "warn" : ""} />
    <${Tile} name="Slots in use" value=${`${whole(cluster.slotsUsed)} of ${whole(cluster.slotsTotal)}`}
      detail=${`${whole(cluster.tasksTotal)} tasks`} />
    <${Tile} name="Emitted" value=${perSecond(last(emitted))} detail="by all components" points=${emitted}
      href=${explore("Emitted")} />
    <${Tile} name="Acked" value=${perSecond(last(acked))} detail="by spouts and bolts" points=${acked}
      href=${explore("Acked")} />
    <${Tile} name="Failed" value=${perSecond(lastBeside(failed, emitted))} detail="by spouts and bolts" points=${failed}
      href=${explore("Failed")} />
    <${Tile} name="Workers' CPU" value=${count(last(cpu))} detail="cores in use" points=${cpu}
      href=${explore("CpuUsedRatio")} />
    <${Tile} name="Workers' memory" value=${bytes(last(memory))} detail="of all workers" points=${memory}
      href=${explore("MemoryUsed")} />
  </div>`;
}

/** Colours of topologies, in the order of their names: the first eight differ. */
function coloursOf(topologies) {
  return new Map(topologies.map(({ id }, n) => [id, n % 8]));
}

function Supervisor({ of: one, workers, colours, usage, drain, onDone }) {
  const { host } = one;
  const cpu = usage.of(host, "CpuUsedRatio");
  const [memory, disk] = [usage.of(host, "MemoryUsage"), usage.of(host, "DiskUsage")];
  const used = Object.values(workers ?? {});
  const unnamed = Math.max(0, one.slotsUsed - used.length);
  const free = Math.max(0, one.slotsTotal - used.length - unnamed);
  const status = drain ? "drained" : one.problems.length ? "restarting" : "alive";
  const word = drain
    ? drain.workersLeft ? `draining, ${drain.workersLeft} left` : "drained"
    : one.problems.length ? plural(one.problems.length, "problem") : undefined;
  return html`<article class="host">
    <header>
      <b>${host}</b><${State} of=${status} text=${word} />
      <span class="right"><${HostAction} host=${host} isDrained=${Boolean(drain)} workers=${one.slotsUsed}
        onDone=${onDone} /></span>
    </header>
    <ul class="slots">
      ${used.map((worker) => html`<li key=${worker.port}
        class=${`slot c${colours.get(worker.topologyId) ?? 0}`}>
        <a href=${link(["topology", worker.topologyId])} title=${inWorker(worker)}>
          <b>${worker.topologyName}</b><small>${worker.port} · ${plural(worker.executorsTotal,
            "task")}</small></a></li>`)}
      ${Array.from({ length: unnamed }, (_, n) => html`<li key=${`used ${n}`} class="slot">in use</li>`)}
      ${Array.from({ length: free }, (_, n) => html`<li key=${`free ${n}`} class="slot free">free</li>`)}
    </ul>
    <footer class="quiet">
      <span>up ${duration(one.uptimeSeconds)}</span>
      ${cpu !== undefined && html`<span>CPU ${Math.round(cpu)} %</span>`}
      ${memory !== undefined && html`<span>memory ${share(memory)}</span>`}
      ${disk !== undefined && html`<span>disk ${share(disk)}</span>`}
    </footer>
  </article>`;
}

function inWorker({ topologyName, port, componentNumTasks }) {
  const tasks = Object.entries(componentNumTasks).map(([component, n]) => `${component} ×${n}`);
  return `${topologyName}, port ${port}: ${tasks.join(", ")}`;
}

function Nimbuses({ list }) {
  const isHere = ({ api }) => api === location.host;
  const columns = [
    { id: "api", name: "Address", value: ({ api }) => api, cell: (one) => (isHere(one) ? html`${one.api} <span
      class="quiet">this one</span>`
      : html`<a href=${`${location.protocol}//${one.api}/ui/`}>${one.api}</a>`) },
    { id: "role", name: "Role", value: ({ status }) => status, cell: ({ status }) => html`<${State}
      of=${status === "Leader" ? "leader" : "follower"} />` },
    { id: "up", name: "Up", isNumber: true, value: (one) => one.nimbusUpTimeSeconds,
      cell: (one) => duration(one.nimbusUpTimeSeconds) },
    { id: "blobs", name: "Missing packages", isNumber: true, value: (one) => one.blobsMissing },
    { id: "lag", name: "Metric entries behind", isNumber: true,
      title: "Entries of the metric log that it lacks",
      value: (one) => one.metricsLagEntries, cell: (one) => count(one.metricsLagEntries) },
    { id: "version", name: "Version", value: ({ version }) => version },
  ];
  return html`<${Table} caption="Nimbuses" columns=${columns} rows=${list} keyOf=${({ id }) => id} />`;
}
