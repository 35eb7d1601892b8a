// Events of the cluster: what happened, why, and who asked for it.

import { html, useState } from "../lib/html.js";
import { OWN, get } from "../lib/api.js";
import { plural, tasksOf, time } from "../lib/format.js";
import { usePoll } from "../lib/poll.js";
import { link, setQuery } from "../lib/route.js";
import { Ago, Empty, Failed, slotText } from "../parts/bits.js";
import { Search, matches } from "../parts/table.js";

const PAGE = 200;

export function Events({ query }) {
  const [searched, setSearched] = useState(query.q ?? "");
  const search = (text) => {
    setSearched(text);
    setQuery({ q: text });
  };
  return html`<div class="head"><h1>Events</h1>
      <span class="right"><${Search} label="Search events" value=${searched} onInput=${search} /></span></div>
    <${EventList} searched=${searched} />`;
}

/** Events, newest first, of one topology or of all. */
export function EventList({ topology, searched }) {
  const [limit, setLimit] = useState(PAGE);
  const key = `events ${topology ?? ""} ${limit}`;
  const { data, error } = usePoll(key, (options) => get(`${OWN}/cluster/events`, { limit, topology },
    options), 5_000);
  const supervisors = usePoll("supervisors", (options) => get(`${OWN}/supervisor/summary`, {}, options),
    30_000);
  if (!data) return html`<${Failed} error=${error} />`;
  const hosts = new Map((supervisors.data?.supervisors ?? []).map(({ id, host }) => [id, host]));
  const found = data.events.filter((one) => matches(searched, one.event, one.reason, one.by, one.topologyId,
    one.nimbus));
  if (found.length === 0) {
    return html`<${Empty} title=${data.events.length ? "No event matches" : "Nothing has happened yet"}>
      ${data.events.length ? "Try fewer words."
        : "Elections, changes and moves of tasks appear here, with their reasons."}<//>`;
  }
  return html`<ol class="events">
      ${found.map((event) => html`<li key=${event.number}>
        <span class="when"><${Ago} ms=${event.timeMs} /><small>${time(event.timeMs)}</small></span>
        <span class=${`what ${kindOf(event.event)}`}>${event.event}</span>
        <div class="why">
          ${!topology && event.topologyId && html`<a
            href=${link(["topology", event.topologyId])}>${event.topologyId}</a> `}
          <span>${event.reason}</span>
          ${event.by && html`<span class="quiet"> by ${event.by}</span>`}
          ${event.moves?.length > 0 && html`<${Moves} moves=${event.moves} omitted=${event.movesOmitted}
            hosts=${hosts} />`}
        </div>
      </li>`)}
    </ol>
    ${data.truncated && html`<button type="button" onClick=${() => setLimit(limit + PAGE)}>
      Show older events (${data.omitted} more)</button>`}`;
}

const MOVES_SHOWN = 8;

function Moves({ moves, omitted, hosts }) {
  const [isOpen, setOpen] = useState(moves.length <= MOVES_SHOWN);
  const shown = isOpen ? moves : moves.slice(0, MOVES_SHOWN);
  return html`<ul class="moves">
    ${shown.map(({ tasks, from, to }, n) => html`<li
      key=${n}>${plural(tasksOf(tasks).length, "task")} <code>${tasks}</code>:
      ${" "}${from ? html`${slotText(from, hosts)} → ` : ""}${to ? slotText(to, hosts) : "no slot"}</li>`)}
    ${!isOpen && html`<li><button type="button" class="plain"
      onClick=${() => setOpen(true)}>all ${moves.length} moves</button></li>`}
    ${omitted > 0 && html`<li class="quiet">and ${omitted} more that were not recorded</li>`}
  </ul>`;
}

function kindOf(event) {
  if (["killed", "removed", "unassigned", "resigned",
    "unclean-metric-takeover"].includes(event)) return "bad";
  if (["moved", "rebalancing", "rebalanced", "drained", "deactivated"].includes(event)) return "busy";
  return "good";
}
