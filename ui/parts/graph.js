// Graph of a topology: components with their load, edges with their rates.

import { html, useMemo } from "../lib/html.js";
import { count, perSecond, plural, share } from "../lib/format.js";
import { levelOf } from "./bits.js";
import { layout } from "./layout.js";
import { useWidth } from "./chart.js";

const NODE = { width: 186, height: 74 };
/** Share of its fullest queue, in percent, from which a component is shown to hold back what sends to it. */
export const QUEUE_SHOWN = 50;
/** Graphs on a page that is narrower flow from top to bottom. */
const NARROW = 640;

/**
 * Draws `nodes`: `{ id, kind, tasks, rate, capacity, queue, failed, isLimit, hasError }`, and `edges`:
 * `{ from, to, streams: [{ stream, grouping }], rate }`.
 */
export function Graph({ nodes, edges, hrefOf }) {
  const [ref, width] = useWidth(900);
  const isNarrow = width < NARROW;
  const shape = nodes.map((node) => node.id).join("\n") + edges.map((edge) => `\n${edge.from}>${edge.to}`).join("");
  const placed = useMemo(() => {
    const size = isNarrow ? [NODE.height, NODE.width] : [NODE.width, NODE.height];
    const gap = isNarrow ? { length: 52, breadth: 16 } : { length: 96, breadth: 26 };
    return layout(nodes.map((node) => node.id), edges, { length: size[0], breadth: size[1] }, gap);
  }, [shape, isNarrow]);
  // The layout is kept while the shape is the same; the rates are those of now.
  const current = new Map(edges.map((edge) => [`${edge.from}>${edge.to}`, edge]));
  const turn = ([at, across]) => (isNarrow ? [across, at] : [at, across]);
  const [inner, height] = turn([placed.length, placed.breadth]);
  const queues = new Map(nodes.map(({ id, queue }) => [id, queue ?? 0]));
  const most = Math.max(...edges.map((edge) => edge.rate ?? 0), 1e-9);
  const box = `-8 -14 ${inner + 16} ${height + 30}`;
  const scale = Math.min(1, Math.max(0.55, (width - 4) / (inner + 16)));
  return html`<div class="graph scroll" ref=${ref} tabindex="0" role="region"
    aria-label="Graph of the components">
    <svg viewBox=${box} width=${(inner + 16) * scale} height=${(height + 30) * scale}>
      <defs>
        <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
          orient="auto-start-reverse"
          markerUnits="userSpaceOnUse"><path d="M0 0 8 4 0 8z" /></marker>
      </defs>
      ${placed.edges.map(({ edge: { from, to }, points, isReversed }) => html`<${Edge} key=${`${from}>${to}`}
        edge=${current.get(`${from}>${to}`)}
        points=${points.map(turn)} isVertical=${isNarrow} isReversed=${isReversed} most=${most}
        queue=${queues.get(to)} />`)}
      ${nodes.map((node) => {
        const { at, across } = placed.nodes.get(node.id);
        const [x, y] = turn([at, across]);
        return html`<${Node} key=${node.id} node=${node} x=${x - NODE.width / 2} y=${y - NODE.height / 2}
          href=${hrefOf(node.id)} />`;
      })}
    </svg>
  </div>`;
}

function Edge({ edge, points, isVertical, isReversed, most, queue }) {
  const half = (isVertical ? NODE.height : NODE.width) / 2;
  const along = isVertical ? 1 : 0;
  const ends = points.map((point) => [...point]);
  const direction = isReversed ? -1 : 1;
  ends[0][along] += half * direction;
  ends[ends.length - 1][along] -= (half + 2) * direction;
  const rate = edge.rate;
  const thickness = rate ? 1.25 + 3.5 * Math.sqrt(rate / most) : 1;
  const streams = edge.streams.map(({ stream }) => stream).filter((stream) => stream !== "default");
  const title = edge.streams.map(({ stream,
    grouping }) => `stream ${stream}, ${grouping} grouping`).join("\n");
  const isHeld = queue >= QUEUE_SHOWN;
  const held = isHeld ? `\nheld back: the fullest queue of ${edge.to} is ${Math.round(queue)} % full` : "";
  const middle = middleOf(ends);
  const label = [streams.join(" + "), rate === undefined ? "" : perSecond(rate)].filter(Boolean);
  return html`<g class=${`edge ${isHeld ? "held" : rate ? "" : "still"}`}>
    <title>${`${edge.from} → ${edge.to}\n${title}${held}`}</title>
    <path d=${curve(ends, isVertical)} stroke-width=${thickness.toFixed(2)} marker-end="url(#arrow)" />
    ${label.length > 0 && html`<text text-anchor="middle" x=${middle[0]}
      y=${middle[1] - 5 - (label.length - 1) * 6}>
      ${label.map((text, n) => html`<tspan key=${n} x=${middle[0]}
        dy=${n ? 12 : 0}>${short(text, 16)}</tspan>`)}
    </text>`}
  </g>`;
}

function middleOf(points) {
  const n = (points.length - 1) / 2;
  const [a, b] = [points[Math.floor(n)], points[Math.ceil(n)]];
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

function curve(points, isVertical) {
  let d = `M${points[0][0]} ${points[0][1]}`;
  for (let n = 1; n < points.length; n += 1) {
    const [[x1, y1], [x2, y2]] = [points[n - 1], points[n]];
    const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
    d += isVertical ? `C${x1} ${my} ${x2} ${my} ${x2} ${y2}` : `C${mx} ${y1} ${mx} ${y2} ${x2} ${y2}`;
  }
  return d;
}

function Node({ node, x, y, href }) {
  const level = node.kind === "spout" ? "source" : levelOf(node.capacity);
  const state = [
    `${node.kind ?? "component"} ${node.id}, ${plural(node.tasks, "task")}`,
    node.capacity === undefined ? null
      : `${node.kind === "spout" ? "in nextTuple" : "busy"} ${share(node.capacity)} of the time`,
    node.rate === undefined ? null
      : `${node.kind === "spout" ? "emits" : "executes"} ${perSecond(node.rate)}`,
    node.queue ? `its fullest queue is ${Math.round(node.queue)} % full` : null,
    node.failed ? `${count(node.failed)} failed` : null,
    node.isLimit ? "it limits the topology" : null,
  ].filter(Boolean).join("; ");
  const isWaiting = node.queue >= QUEUE_SHOWN;
  const full = node.kind === "spout" ? 0 : (NODE.width - 24) * Math.min(1, node.capacity ?? 0);
  return html`<a class=${`node ${level} ${node.isLimit ? "limit" : ""}`} href=${href}>
    <title>${state}</title>
    <g transform=${`translate(${x} ${y})`} aria-hidden="true">
      <rect class="box" width=${NODE.width} height=${NODE.height} rx="10" />
      <path class="kind" d=${node.kind === "spout" ? "M14 15h8l5 5-5 5h-8z" : "M14 15h12v10h-12z"} />
      <text class="title" x="34" y="25">${short(node.id, node.isLimit || node.failed ? 14 : 18)}</text>
      <text class="tasks" x=${NODE.width - 12} y="25" text-anchor="end">×${node.tasks}</text>
      <text class="fact" x="12" y="46">${node.rate === undefined ? "" : perSecond(node.rate)}</text>
      <text class="fact" x=${NODE.width - 12} y="46"
        text-anchor="end">${node.capacity === undefined || node.kind === "spout" ? ""
        : `busy ${share(node.capacity)}`}</text>
      ${node.kind === "spout" ? html`<text class="fact" x="12"
        y="63">${node.pending === undefined ? "spout" : `${count(node.pending)} pending`}</text>`
        : html`<rect class="rail" x="12" y="56" width=${NODE.width - 24} height="6" rx="3" />`}
      ${full > 0 && html`<rect class="load" x="12" y="56" width=${Math.max(3, full)} height="6" rx="3" />`}
      ${isWaiting && html`<g class="flag queue" transform=${`translate(12 ${NODE.height - 9})`}><rect width="108"
        height="20" rx="10" />
        <text x="54" y="14" text-anchor="middle">queue ${Math.round(node.queue)} % full</text></g>`}
      ${node.isLimit && html`<g class="flag" transform="translate(12 -11)"><rect width="76" height="20"
        rx="10" />
        <text x="38" y="14" text-anchor="middle">busiest</text></g>`}
      ${node.failed > 0 && html`<g class="flag failed" transform=${`translate(${NODE.width - 92} -11)`}><rect
        width="82" height="20" rx="10" />
        <text x="41" y="14" text-anchor="middle">${count(node.failed)} failed</text></g>`}
    </g>
  </a>`;
}

function short(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

export function Legend({ rates = "that are emitted to the stream" }) {
  return html`<p class="graph-legend quiet">
    <span><i class="sample low"></i>busy under 70 % of the time</span>
    <span><i class="sample high"></i>70–90 %</span>
    <span><i class="sample full"></i>over 90 %: it needs more tasks, or waits</span>
    <span><i class="sample queue"></i>queue at least ${QUEUE_SHOWN} % full: what sends to it is held back</span>
    <span>Rates on edges: tuples per second ${rates}.</span>
  </p>`;
}
