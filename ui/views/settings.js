// Settings with their sources: of a topology, and of the nimbus that answers.

import { html, useState } from "../lib/html.js";
import { OWN, get, path } from "../lib/api.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Choice, Empty, Failed } from "../parts/bits.js";
import { Search, Table, matches } from "../parts/table.js";

/** Value of a key, as it is written in storm.yaml. */
const valueText = (value) => (value === null ? "unset" : typeof value === "string" ? value
  : JSON.stringify(value));

const SHOWN = [{ id: "all", name: "All" }, { id: "set", name: "Without defaults" }];

/** Sources of settings of a topology; those that are nearest to it come first. */
const ORIGINS = {
  submission: { rank: 0, text: "command line of the submission (-c)" },
  topology: { rank: 1, text: "the topology" },
  cluster: { rank: 2, text: "the cluster" },
  default: { rank: 3, text: "default" },
};

const KEY = { id: "key", name: "Key", value: ({ key }) => key, cell: ({ key }) => html`<code>${key}</code>` };
const VALUE = { id: "value", name: "Value", value: ({ value }) => valueText(value),
  cell: ({ value }) => (value === null ? html`<span class="quiet">unset</span>`
    : html`<code class="value">${valueText(value)}</code>`) };

function Found({ caption, columns, rows, sort, label, note }) {
  const [searched, setSearched] = useState("");
  const [shown, setShown] = useState("all");
  const found = rows.filter((one) => (shown === "all" || one.isSet)
    && matches(searched, one.key, valueText(one.value), one.from, one.component));
  return html`<div class="filters">
      <${Search} label=${label} value=${searched} onInput=${setSearched} />
      <${Choice} label="Which keys" value=${shown} onChange=${setShown} options=${SHOWN} />
    </div>
    ${note}
    <${Table} caption=${caption} columns=${columns} rows=${found} sort=${sort}
      keyOf=${({ key, component }) => `${component ?? ""} ${key}`}
      empty=${searched ? html`<${Empty} title="Nothing matches">Try fewer words.<//>`
        : html`<${Empty} title="Nothing is set">Every key has its default: choose <b>All</b> to see them.<//>`} />`;
}

export function Settings({ detail }) {
  const { data, error } = usePoll(`settings ${detail.id}`,
    (options) => get(`${OWN}/topology/${path(detail.id)}/settings`, {}, options), 30_000);
  if (!data) return html`<${Failed} error=${error} />`;
  const rows = data.settings.map(({ origin, source, ...one }) => {
    const { rank, text } = ORIGINS[origin] ?? { rank: 2, text: origin };
    return { ...one, rank, isSet: origin !== "default", from: source ? `${text}: ${source}` : text };
  });
  const columns = [KEY, VALUE,
    { id: "for", name: "For", value: ({ component }) => component ?? "", cell: ({ component }) => (component
      ? html`<a href=${link(["component", detail.id, component])}>${component}</a>`
      : html`<span class="quiet">all components</span>`) },
    { id: "source", name: "From", value: ({ rank }) => rank, cell: ({ from, isSet }) => html`<span
      class=${isSet ? "" : "quiet"}>${from}</span>` },
  ];
  return html`<${Found} caption="Settings" label="Search settings" columns=${columns} rows=${rows}
    sort=${{ id: "source", isDown: false }} />`;
}

const FROM = { id: "source", name: "From", value: ({ from }) => from, cell: ({ from, isSet }) => (isSet
  ? html`<code class="value">${from}</code>` : html`<span class="quiet">${from}</span>`) };

export function Configuration() {
  const { data, error } = usePoll("configuration", (options) => get(`${OWN}/configuration`, {}, options), 30_000);
  if (!data) return html`<h1>Configuration</h1><${Failed} error=${error} />`;
  const rows = data.keys.map(({ source, ...one }) => ({ ...one, isSet: Boolean(source), from: source ?? "default" }));
  const note = html`<p class="quiet">Keys of the nimbus that serves this page. Topologies take those that begin with${" "}
    <code>topology.</code> unless they set them.</p>`;
  return html`<div class="head"><h1>Configuration</h1></div>
    <${Found} caption="Configuration" label="Search keys and values" columns=${[KEY, VALUE, FROM]} rows=${rows}
      note=${note} />`;
}
