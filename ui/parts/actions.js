// Changes, each behind a question that says what will happen.

import { html, useState } from "../lib/html.js";
import { OWN, get, path, post } from "../lib/api.js";
import { plural } from "../lib/format.js";
import { mayChange, mayOperate, session } from "../lib/session.js";
import { Dialog, numberIn } from "./dialog.js";

const WAIT = "Seconds for which spouts are stopped first, so that tuples in flight are still processed.";

/** Buttons for the changes of a topology that the person may make. */
export function TopologyActions({ detail, onDone }) {
  const [open, setOpen] = useState(null);
  if (!mayChange(detail.owner)) {
    const reason = session.actions ? "Your role does not change topologies."
      : "Changes are switched off on this nimbus.";
    return session.isKnown && html`<p class="quiet actions">${reason}</p>`;
  }
  const url = (verb) => `${OWN}/topology/${path(detail.id)}/${verb}`;
  const isKilled = detail.status === "killed";
  const isActive = detail.status === "active";
  const close = () => {
    setOpen(null);
    onDone();
  };
  return html`<div class="actions">
    ${!isKilled && html`<button type="button" onClick=${() => setOpen(isActive ? "deactivate" : "activate")}>
      ${isActive ? "Deactivate" : "Activate"}</button>
      <button type="button" onClick=${() => setOpen("rebalance")}>Rebalance</button>
      <button type="button" onClick=${() => setOpen("metrics")}>Metrics</button>`}
    <button type="button" class="danger" onClick=${() => setOpen("kill")}>Kill</button>
    ${open === "activate" && html`<${Dialog} title=${`Activate ${detail.name}?`} verb="Activate"
      onClose=${close}
      run=${() => post(url("activate"))}>Its spouts run again.<//>`}
    ${open === "deactivate" && html`<${Dialog} title=${`Deactivate ${detail.name}?`} verb="Deactivate"
      onClose=${close}
      run=${() => post(url("deactivate"))}>Its spouts stop. Tuples in flight are still processed,
        and workers go on running.<//>`}
    ${open === "kill" && html`<${Dialog} title=${`Kill ${detail.name}?`} verb="Kill it" isDangerous
      onClose=${close}
      fields=${[{ id: "waitSecs", label: "Wait", value: detail.msgTimeout, hint: WAIT }]}
      run=${({ waitSecs }) => post(url("kill"), { waitSecs: numberIn(waitSecs) })}>
      Its ${plural(detail.workersTotal, "worker")} and ${plural(detail.tasksTotal, "task")} end,
        and it is removed. Its metrics
      and its history stay. This cannot be undone: submit it again to run it again.<//>`}
    ${open === "rebalance" && html`<${Rebalance} detail=${detail} url=${url("rebalance")}
      onClose=${close} />`}
    ${open === "metrics" && html`<${MetricControl} detail=${detail} url=${url("metrics")}
      onClose=${close} />`}
  </div>`;
}

function Rebalance({ detail, url, onClose }) {
  const fields = [
    { id: "waitSecs", label: "Wait", value: detail.msgTimeout, hint: WAIT },
    { id: "workers", label: "Workers", value: detail.workersWanted, min: 1 },
    ...detail.components.map((component) => ({
      id: `tasks ${component.id}`,
      label: `Tasks of ${component.id}`,
      value: component.parallelism,
      min: 1,
    })),
  ];
  const run = (values) => {
    const changed = detail.components.filter(
      ({ id, parallelism }) => numberIn(values[`tasks ${id}`]) !== parallelism
        && values[`tasks ${id}`] !== "",
    );
    const workers = numberIn(values.workers);
    return post(url, {
      waitSecs: numberIn(values.waitSecs),
      workers: workers === detail.workersWanted ? undefined : workers,
      parallelism: Object.fromEntries(changed.map(({ id }) => [id, numberIn(values[`tasks ${id}`])])),
    });
  };
  return html`<${Dialog} title=${`Rebalance ${detail.name}?`} verb="Rebalance" fields=${fields} run=${run}
    onClose=${onClose}>
    Its tasks are placed again, with these numbers. Tasks that move start anew on another worker.<//>`;
}

function MetricControl({ detail, url, onClose }) {
  const [current, setCurrent] = useState(null);
  const [error, setError] = useState(null);
  if (!current && !error) get(url).then(setCurrent, setError);
  if (error) {
    return html`<${Dialog} title="Metrics" verb="Close" run=${async () => {}}
      onClose=${onClose}>${error.message}<//>`;
  }
  if (!current) return null;
  const list = (text) => text.split(/[\s,]+/).filter(Boolean);
  const text = (names) => (names ?? []).join(", ");
  const fields = [
    { id: "disabled", type: "text", label: "Not measured", value: text(current.disabled),
      hint: "Names of metrics, separated by commas." },
    { id: "enabled", type: "text", label: "Measured although settings say otherwise",
      value: text(current.enabled) },
    { id: "debug", type: "text", label: "Written to the logs of workers", value: text(current.debug) },
    { id: "sampleRate", type: "text", label: "Share of values in percentiles",
      value: current.sampleRate ?? "", hint: "From 0 to 1; empty: as the settings say." },
  ];
  const run = ({ disabled, enabled, debug, sampleRate }) => post(url, {
    disabled: list(disabled),
    enabled: list(enabled),
    debug: list(debug),
    sampleRate: numberIn(sampleRate) ?? null,
  });
  return html`<${Dialog} title=${`Metrics of ${detail.name}`} verb="Change" fields=${fields} run=${run}
    onClose=${onClose}>
    These switches hold while the topology runs, and take effect within a minute.<//>`;
}

/** Button that drains a host, or uses it again. */
export function HostAction({ host, isDrained, workers, onDone }) {
  const [isOpen, setOpen] = useState(false);
  if (!mayOperate()) return null;
  const close = () => {
    setOpen(false);
    onDone();
  };
  const url = (verb) => `${OWN}/host/${path(host)}/${verb}`;
  return html`<button type="button" class="small"
    onClick=${() => setOpen(true)}>${isDrained ? "Use again" : "Drain"}</button>
    ${isOpen && isDrained && html`<${Dialog} title=${`Use ${host} again?`} verb="Use it again"
      onClose=${close}
      run=${() => post(url("undrain"))}>New workers may be placed on it. What runs elsewhere stays there.<//>`}
    ${isOpen && !isDrained && html`<${Dialog} title=${`Drain ${host}?`} verb="Drain it" isDangerous
      onClose=${close}
      fields=${[{ id: "waitSecs", label: "Wait", value: "",
        hint: `${WAIT} Empty: the message timeout of each topology.` }]}
      run=${({ waitSecs }) => post(url("drain"), { waitSecs: numberIn(waitSecs) })}>
      Its ${plural(workers, "worker")} move to other hosts, and no new one is placed on it,
        until you use it again.<//>`}`;
}
