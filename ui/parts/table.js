// Tables that can be sorted and searched.

import { html, useState } from "../lib/html.js";

/** Maximum number of rows that are drawn; the search finds the others. */
const ROWS_MAX = 1000;

/**
 * Table of `rows`. A column has `id`, `name`, `value(row)` to sort by,
   `cell(row)` if it shows something else,
 * and `isNumber`. The first column names the row.
 */
export function Table({ columns, rows, keyOf, sort, empty, caption, rowClass }) {
  const [by, setBy] = useState(sort ?? { id: columns[0].id, isDown: false });
  const column = columns.find(({ id }) => id === by.id) ?? columns[0];
  const sorted = [...rows].sort((a, b) => compare(column.value(a), column.value(b)) * (by.isDown ? -1 : 1));
  if (rows.length === 0) return html`<div class="empty">${empty}</div>`;
  const choose = ({ id, isNumber }) => setBy({ id, isDown: by.id === id ? !by.isDown : Boolean(isNumber) });
  const state = ({ id }) => (by.id === id ? (by.isDown ? "descending" : "ascending") : "none");
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="hidden">${caption}</caption>
      <thead><tr>
        ${columns.map((one) => html`<th key=${one.id} scope="col" class=${one.isNumber ? "number" : ""}
          aria-sort=${state(one)}>
          <button type="button" title=${one.title} onClick=${() => choose(one)}>${one.name}<i class="order"
            aria-hidden="true"></i></button>
        </th>`)}
      </tr></thead>
      <tbody>
        ${sorted.slice(0, ROWS_MAX).map((row) => html`<tr key=${keyOf(row)} class=${rowClass?.(row)}>
          ${columns.map((one, n) => {
            const content = (one.cell ?? one.value)(row);
            const kind = one.isNumber ? "number" : "";
            return n === 0
              ? html`<th key=${one.id} scope="row" class=${kind}>${content}</th>`
              : html`<td key=${one.id} class=${kind}>${content}</td>`;
          })}
        </tr>`)}
      </tbody>
    </table>
    ${rows.length > ROWS_MAX && html`<p
      class="quiet">${rows.length - ROWS_MAX} more rows: search for them.</p>`}
  </div>`;
}

function compare(a, b) {
  const isMissing = [a, b].map((value) => value === undefined || value === null || Number.isNaN(value));
  if (isMissing[0] || isMissing[1]) return isMissing[0] - isMissing[1];
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

/** Search field; `/` leads to it. */
export function Search({ value, onInput, label }) {
  return html`<label class="search">
    <span class="hidden">${label}</span>
    <input type="search" data-search placeholder=${label} value=${value}
      onInput=${(event) => onInput(event.target.value)} />
  </label>`;
}

/** Returns whether one of the texts contains every word that is searched for. */
export function matches(searched, ...texts) {
  const all = texts.filter(Boolean).join(" ").toLowerCase();
  return (searched ?? "").toLowerCase().split(/\s+/).every((word) => all.includes(word));
}
