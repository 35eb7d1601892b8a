// Live numbers on the page: their age, and the components as they are now.

import { html } from "../lib/html.js";
import { count, micros, perSecond, plural, share } from "../lib/format.js";
import { Bar, Empty } from "./bits.js";
import { Table } from "./table.js";

/** Says how old the numbers are, and what is missing. */
export function Age({ live }) {
  const { numbers, ageMs, isFresh, problem } = live;
  if (!isFresh) {
    const reason = problem || numbers?.missing?.[0]?.reason;
    return html`<p class="quiet live-age">Not live: counts are up to 10 s old, and the other numbers up to a
      minute${reason ? ` (${reason})` : ""}.</p>`;
  }
  const n = numbers.workersTotal - numbers.workersLive;
  const first = numbers.missing?.[0];
  return html`<p class="quiet live-age"><b>Live</b>, ${(ageMs / 1000).toFixed(1)} s old${n > 0
    ? `; without ${plural(n, "worker")}${first ? ` (${first.host}:${first.port}: ${first.reason})` : ""}` : ""}.</p>`;
}

/** Table of the components as they are now. */
export function LiveComponents({ numbers, detail, hrefOf }) {
  const now = new Map(numbers.components.map((one) => [one.id, one]));
  const rows = detail.components.map((one) => ({ ...one, now: now.get(one.id) ?? {} }));
  const number = (id, name, value, format, title) => ({ id, name, title, isNumber: true, value,
    cell: (one) => format(value(one)) });
  const rate = (id, name) => number(id, name, ({ now: { rates } }) => rates?.[id], perSecond);
  const columns = [
    { id: "id", name: "Component", value: ({ id }) => id, cell: ({ id, kind }) => html`<a
      href=${hrefOf(id)}>${id}</a>${kind && html` <span class="quiet">${kind}</span>`}` },
    { id: "tasks", name: "Tasks", isNumber: true, value: (one) => one.parallelism,
      cell: (one) => (one.tasksAlive < one.parallelism ? html`<span
        class="warn-text">${one.tasksAlive} of ${one.parallelism}</span>` : one.parallelism) },
    { id: "capacity", name: "Busy", isNumber: true, value: ({ kind, now: { capacity } }) => (kind === "spout" ? -1
      : capacity), cell: ({ kind, now: { capacity } }) => html`<${Bar} value=${capacity}
      kind=${kind === "spout" && "source"} />`, title: "Share of the last seconds in which it worked" },
    number("queue", "Queue", ({ now: { queue } }) => queue, share, "How full the fullest queue of a task is"),
    rate("emitted", "Emitted"), rate("executed", "Executed"), rate("acked", "Acked"),
    { id: "failed", name: "Failed", isNumber: true, value: ({ now: { rates } }) => rates?.failed,
      cell: ({ now: { rates } }) => (rates?.failed > 0 ? html`<span
        class="warn-text">${perSecond(rates.failed)}</span>` : perSecond(rates?.failed)) },
    number("pending", "Pending", ({ now: { pending } }) => pending, count, "Tuples that it has not finished"),
    number("execute", "Execute, mean", ({ now: { executeUs } }) => executeUs, micros, "One call of the component"),
    number("process", "Process, mean", ({ now: { processUs } }) => processUs, micros,
      "Bolt: from its queue to the ack. Spout: from the emit to the last ack"),
  ];
  return html`<${Table} caption="Components" columns=${columns} rows=${rows} keyOf=${({ id }) => id}
    sort=${{ id: "capacity", isDown: true }}
    empty=${html`<${Empty} title="No components">The topology has none.<//>`} />
    <p class="quiet">Rates, shares and means are those of the last two or three seconds. Longer windows have
      percentiles.</p>`;
}

/** Numbers of now of one component, in a line. */
export function LiveFacts({ live, id }) {
  const now = live.isFresh && live.numbers.components.find((one) => one.id === id);
  if (!now?.rates) return null;
  const { rates, capacity, queue, executeUs, processUs } = now;
  const facts = [
    `emits ${perSecond(rates.emitted)}`, `executes ${perSecond(rates.executed)}`,
    capacity !== undefined && `busy ${share(capacity)}`, queue !== undefined && `queue ${share(queue)} full`,
    executeUs !== undefined && `execute ${micros(executeUs)}`,
    processUs !== undefined && `process ${micros(processUs)}`,
  ].filter(Boolean);
  return html`<p class="facts quiet"><b>Now</b>${facts.map((fact) => html`<span key=${fact}>${fact}</span>`)}</p>`;
}
