// Configuration of the nimbus that answers.

import { html, useState } from "../lib/html.js";
import { STORM, get } from "../lib/api.js";
import { usePoll } from "../lib/poll.js";
import { Empty, Failed } from "../parts/bits.js";
import { Search, Table, matches } from "../parts/table.js";

/** Value of a key, as it is written in storm.yaml. */
export const valueText = (value) => (value === null ? "unset" : typeof value === "string" ? value
  : JSON.stringify(value));

const COLUMNS = [
  { id: "key", name: "Key", value: ([key]) => key, cell: ([key]) => html`<code>${key}</code>` },
  { id: "value", name: "Value", value: ([, value]) => valueText(value),
    cell: ([, value]) => (value === null ? html`<span class="quiet">unset</span>` : html`<code
      class="value">${valueText(value)}</code>`) },
];

export function Configuration() {
  const [searched, setSearched] = useState("");
  const { data, error } = usePoll("configuration", (options) => get(`${STORM}/cluster/configuration`, {},
    options), 30_000);
  if (!data) return html`<h1>Configuration</h1><${Failed} error=${error} />`;
  const found = Object.entries(data).filter(([key, value]) => matches(searched, key, valueText(value)));
  return html`<div class="head"><h1>Configuration</h1>
      <span class="right"><${Search} label="Search keys and values" value=${searched}
        onInput=${setSearched} /></span></div>
    <p class="quiet">Keys of this nimbus, from its <code>storm.yaml</code> and its command line,
      and defaults. <code>stormkeeper config show</code>${" "}
      says where a value comes from.</p>
    <${Table} caption="Configuration" columns=${COLUMNS} rows=${found} keyOf=${([key]) => key}
      empty=${html`<${Empty} title="No key matches">Try fewer words.<//>`} />`;
}
