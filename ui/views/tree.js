// The tree in ZooKeeper, one znode at a time, each explained. Nothing is changed here.

import { html, useState } from "../lib/html.js";
import { OWN, get } from "../lib/api.js";
import { bytes, plural, time, whole } from "../lib/format.js";
import { usePoll } from "../lib/poll.js";
import { link, setQuery } from "../lib/route.js";
import { mayLookIntoTree, useSession } from "../lib/session.js";
import { Empty, Failed } from "../parts/bits.js";
import { Search, matches } from "../parts/table.js";

const PERIOD_MS = 10_000;
const PAGE = 500;

const KINDS = {
  P: "persistent: it stays until it is deleted",
  E: "ephemeral: it ends with the session of its owner",
  "P, S": "persistent, with a number that grows in its name",
};

export function Tree({ parts, query }) {
  useSession();
  const path = `/${parts.join("/")}`;
  const may = mayLookIntoTree();
  const { data, error } = usePoll(may ? `tree ${path} ${query.after ?? ""}` : null,
    (options) => get(`${OWN}/tree`, { path, after: query.after || undefined, limit: PAGE }, options), PERIOD_MS);
  if (!may) {
    return html`<h1>Tree</h1><${Empty} title="Only admins look into the tree">
      Sign in with a token of the role admin that is not limited to an owner.<//>`;
  }
  return html`<div class="head"><h1>Tree</h1><span class="quiet">What the cluster keeps in ZooKeeper, to read only.</span></div>
    <${Crumbs} parts=${parts} root=${data?.root} />
    ${error?.status === 404
      ? html`<${Empty} title="There is no such znode">It may have been deleted.${" "}
          <a href=${link(["tree", ...parts.slice(0, -1)])}>Go to its parent</a><//>`
      : data ? html`<${Znode} key=${path} of=${data} parts=${parts} query=${query} />`
      : html`<${Failed} error=${error} />`}`;
}

function Crumbs({ parts, root }) {
  return html`<nav class="znode-path" aria-label="Path">
    <a href=${link(["tree"])} aria-current=${parts.length ? undefined : "page"}
      title="Root of the tree of this cluster">${root ?? "/"}</a>
    ${parts.map((part, n) => html`<span class="quiet" aria-hidden="true">${n || root !== "/" ? "/" : ""}</span><a
      href=${link(["tree", ...parts.slice(0, n + 1)])}
      aria-current=${n === parts.length - 1 ? "page" : undefined}>${part}</a>`)}
  </nav>`;
}

function Znode({ of: znode, parts, query }) {
  return html`<div class="znode">
    <${Children} of=${znode} parts=${parts} query=${query} />
    <div class="znode-about">
      <${Meaning} of=${znode} parts=${parts} />
      <${Data} of=${znode} />
      <${Stat} of=${znode} />
    </div>
  </div>`;
}

function Children({ of: znode, parts, query }) {
  const [searched, setSearched] = useState("");
  const { children, childrenTotal, next } = znode;
  const shown = children.filter((name) => matches(searched, name));
  const isPaged = Boolean(query.after || next);
  return html`<section class="pick" aria-label="Children">
    <h2>Children <span class="n">${whole(childrenTotal)}</span></h2>
    ${children.length > 8 && html`<${Search} label=${isPaged ? "Search this page" : "Search names"}
      value=${searched} onInput=${setSearched} />`}
    ${childrenTotal === 0 && html`<p class="quiet">None.</p>`}
    ${childrenTotal > 0 && children.length === 0 && html`<p class="quiet">Their names are not listed.</p>`}
    ${children.length > 0 && html`<ul class="znode-list">${shown.map((name) => html`<li key=${name}>
      <a href=${link(["tree", ...parts, name])}>${name}</a></li>`)}</ul>`}
    ${children.length > 0 && shown.length === 0 && html`<p class="quiet">No name matches.</p>`}
    ${isPaged && html`<div class="buttons">
      ${query.after && html`<button type="button" onClick=${() => setQuery({ after: null })}>First</button>`}
      ${next && html`<button type="button" onClick=${() => setQuery({ after: next })}>Next ${PAGE}</button>`}
    </div>`}
  </section>`;
}

/** Names of the variable parts of a path, with their values: `topology-id` is `wc-1-1`. */
function namedParts(layout, parts) {
  const names = layout.split("/").slice(1);
  return names.map((name, n) => [name, parts[n]])
    .filter(([name, value]) => name.startsWith("{") && value !== undefined)
    .map(([name, value]) => [name.slice(1, -1), value]);
}

function Meaning({ of: { path, explanation, session }, parts }) {
  if (path === "/") {
    return html`<section class="card"><h2>The tree of this cluster</h2>
      <p>Nimbuses, supervisors and workers agree on everything through these znodes. Choose one to see what it is
        for. Data that is a secret is not shown.</p></section>`;
  }
  if (!explanation) {
    return html`<section class="card"><h2>Not of Stormkeeper</h2>
      <p>The layout of this build has no such znode: another program made it, or another build.</p></section>`;
  }
  const { layout, isParent, kind, holds, writtenBy, watchedBy } = explanation;
  const named = namedParts(layout, parts);
  return html`<section class="card"><h2>${isParent ? "Parent of " : ""}<code>${layout}</code></h2>
    ${named.length > 0 && html`<p>${named.map(([name, value]) => html`<span class="named" key=${name}>
      <span class="quiet">${name}</span> ${name === "topology-id" && !value.startsWith("__")
        ? html`<a href=${link(["topology", value])}>${value}</a>` : html`<code>${value}</code>`}</span>`)}</p>`}
    <dl class="meaning">
      <dt>${isParent ? "They hold" : "Holds"}</dt><dd>${holds}</dd>
      <dt>Written by</dt><dd>${writtenBy}</dd>
      <dt>Watched by</dt><dd>${watchedBy}</dd>
      ${!isParent && html`<dt>Kind</dt><dd>${KINDS[kind] ?? kind}${session ? `; session ${session}` : ""}</dd>`}
    </dl></section>`;
}

/** Field whose number is a time, in pretty JSON. */
const TIME = /^\s*"[\w]*_?ms": (1\d{12})\b/;

function Data({ of: { data, text, withheld, bytes: size } }) {
  const lines = data === undefined ? [] : JSON.stringify(data, null, 2).split("\n");
  return html`<section class="card"><h2>Data <span class="n">${size ? bytes(size) : "none"}</span></h2>
    ${withheld && html`<p class="warn-text">${withheld}.</p>`}
    ${data !== undefined && html`<pre class="znode-data" tabindex="0">${lines.map((line, n) => {
      const at = TIME.exec(line);
      return html`<span key=${n}>${line}${at && html`<i class="quiet">  ${time(Number(at[1]))}</i>`}${"\n"}</span>`;
    })}</pre>`}
    ${text !== undefined && html`<pre class="znode-data" tabindex="0">${text}</pre>`}
  </section>`;
}

function Stat({ of: { version, createdZxid, modifiedZxid, session, facts, childrenTotal } }) {
  const rows = [
    ["Version", `${version}`, `written ${plural(version, "time")} since it was created`],
    ["Created", facts ? time(facts.createdMs) : "", `zxid ${createdZxid}`],
    ["Written", facts ? time(facts.modifiedMs) : "", `zxid ${modifiedZxid}`],
    ["Children", whole(childrenTotal), facts ? `last changed by zxid ${facts.childrenZxid}` : ""],
    ["Session", session ?? "none", session ? "it ends with this session" : "it is not ephemeral"],
  ];
  return html`<section class="card"><h2>In ZooKeeper</h2>
    <table><caption class="hidden">Versions and transactions</caption><tbody>${rows.map(([name, value, note]) => html`<tr
      key=${name}><th scope="row">${name}</th><td>${value} <span class="quiet">${note}</span></td></tr>`)}</tbody></table>
    <h3>Access control list${facts ? html` <span class="n">version ${facts.aclVersion}</span>` : ""}</h3>
    ${facts ? html`<ul class="acl">${facts.acl.map(({ scheme, id, rights }, n) => html`<li key=${n}>
        <b>${scheme === "world" ? "everybody" : id}</b>${scheme === "world" ? "" : html` <span
          class="quiet">${scheme}</span>`}: ${rights.length === 5 ? "all rights" : rights.join(", ") || "none"}</li>`)}</ul>`
      : html`<p class="quiet">This tree is not in ZooKeeper: a local run keeps it in memory.</p>`}
  </section>`;
}
