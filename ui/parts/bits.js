// Small parts of views.

import { html, useEffect, useState } from "../lib/html.js";
import { ago, share, time } from "../lib/format.js";
import { link } from "../lib/route.js";
import { Spark } from "./chart.js";

const STATES = {
  active: ["good", "running"],
  inactive: ["idle", "inactive"],
  rebalancing: ["busy", "rebalancing"],
  killed: ["busy", "being killed"],
  gone: ["idle", "gone"],
  running: ["good", "running"],
  starting: ["busy", "starting"],
  restarting: ["bad", "restarting"],
  silent: ["bad", "silent"],
  unassigned: ["bad", "without a slot"],
  alive: ["good", "alive"],
  drained: ["busy", "drained"],
  leader: ["good", "leader"],
  follower: ["idle", "follower"],
};

/** State as a word, with a sign whose shape differs too. */
export function State({ of, text }) {
  const [kind, word] = STATES[of] ?? ["idle", of];
  return html`<span class=${`state ${kind}`}><i aria-hidden="true"></i>${text ?? word}</span>`;
}

/** One number with its name, and its course. */
export function Tile({ name, value, detail, points, href, title, kind }) {
  const inner = html`<span class="name">${name}</span>
    <span class="value">${value}</span>
    <span class="detail">${detail}</span>
    ${points && html`<${Spark} points=${points} />`}`;
  const className = `tile ${kind ?? ""}`;
  return href
    ? html`<a class=${className} href=${href} title=${title}>${inner}</a>`
    : html`<div class=${className} title=${title}>${inner}</div>`;
}

/** Things that need a person. Each is a text, or `{ text, href, kind }`. */
export function Findings({ items }) {
  if (items.length === 0) return null;
  const shown = items.slice(0, 20);
  return html`<section class="findings" aria-label="Findings">
    <ul>
      ${shown.map((item, n) => html`<li key=${n} class=${item.kind ?? "warn"}>
        <span class="hidden">Needs attention: </span>
        ${item.href ? html`<a href=${item.href}>${item.text}</a>` : html`<span>${item.text ?? item}</span>`}
      </li>`)}
      ${items.length > shown.length && html`<li>and ${items.length - shown.length} more</li>`}
    </ul>
  </section>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><b>${title}</b><div>${children}</div></div>`;
}

/** Error in the place of data that was never there. */
export function Failed({ error }) {
  if (!error) return html`<p class="quiet waiting">Loading …</p>`;
  return html`<div class="empty bad"><b>${error.status === 401 ? "Sign in to see this" : "This cannot be shown"}</b>
    <div>${error.message}${error.hint && html`<br />${error.hint}`}</div></div>`;
}

/** Links that select one part of a view. */
export function Tabs({ tabs, active, hrefOf, label }) {
  return html`<nav class="tabs" aria-label=${label}>
    ${tabs.map(({ id, name, n }) => html`<a key=${id} href=${hrefOf(id)}
      aria-current=${id === active ? "page" : undefined}>
      ${name}${n !== undefined && n !== null && html` <span class="n">${n}</span>`}
    </a>`)}
  </nav>`;
}

/** Buttons of which one is chosen. */
export function Choice({ options, value, onChange, label }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(({ id, name, title }) => html`<button key=${id} type="button" title=${title}
      aria-pressed=${String(id) === String(value)} onClick=${() => onChange(id)}>${name}</button>`)}
  </div>`;
}

/** Width of a whole bar, as the style sheet has it. */
const BAR_PX = 58;

/** Share of one as a bar and a number. */
export function Bar({ value, kind }) {
  if (value === undefined || value === null) return html`<span class="quiet">–</span>`;
  const level = kind || levelOf(value);
  return html`<span class=${`bar ${level}`}><i
    style=${{ width: `${Math.min(1, value) * BAR_PX}px` }}></i><b>${share(value)}</b></span>`;
}

/** Word for how busy a component is, by its capacity. */
export function levelOf(capacity) {
  if (capacity === undefined || capacity === null) return "unknown";
  return capacity >= 0.9 ? "full" : capacity >= 0.7 ? "high" : "low";
}

/** Time in words, with the exact time as its title. */
export function Ago({ ms }) {
  useTick(10_000);
  return html`<time datetime=${new Date(ms).toISOString()} title=${time(ms)}>${ago(ms)}</time>`;
}

/** Draws again every `period` ms. */
export function useTick(period) {
  const [, set] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || set((n) => n + 1), period);
    return () => clearInterval(timer);
  }, [period]);
}

export function TopologyLink({ id, name }) {
  return html`<a href=${link(["topology", id])}>${name ?? id}</a>`;
}

/** Name of a supervisor as people know it: its host. */
export const slotText = (slot, hosts) => {
  if (!slot) return "nowhere";
  const at = slot.lastIndexOf(":");
  return `${hosts?.get(slot.slice(0, at)) ?? slot.slice(0, at)}:${slot.slice(at + 1)}`;
};
