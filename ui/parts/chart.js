// Lines over time, as SVG. Lines differ by colour and by dashes, and each is named with its last value.

import { html, useEffect, useRef, useState } from "../lib/html.js";
import { tick, time } from "../lib/format.js";

/** Maximum number of lines: more cannot be told apart. */
export const LINES_MAX = 8;

const MARGIN = { top: 10, right: 12, bottom: 22, left: 58 };
const CURSOR = "chart-cursor";

/** Numbers of the colours of lines: the one that a line wants, if no line before it has that. */
function coloursOf(lines) {
  const taken = new Set();
  return lines.map(({ colour }, at) => {
    let n = (colour ?? at) % LINES_MAX;
    while (taken.has(n)) n = (n + 1) % LINES_MAX;
    taken.add(n);
    return n;
  });
}

/** Width of an element, which changes with the window. */
export function useWidth(otherwise) {
  const ref = useRef(null);
  const [width, set] = useState(otherwise);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => set(Math.round(entry.contentRect.width)));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}

/** Round numbers between 0 and `max`, at most some five; of bytes, round numbers of KiB, MiB and so on. */
export function roundTicks(max, isBytes = false, n = 4) {
  if (isBytes && max >= 1024) {
    const unit = 1024 ** Math.floor(Math.log2(max) / 10);
    return roundTicks(max / unit, false, n).map((value) => value * unit);
  }
  const rough = max / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const ticks = [];
  for (let value = 0; value < max + step * 0.999; value += step) ticks.push(Number(value.toPrecision(12)));
  return ticks;
}

const STEPS_S = [60, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 7776000];

/** Times at round local hours or days. */
export function timeTicks(from, to, n) {
  const step = 1000 * (STEPS_S.find((secs) => (to - from) / 1000 / secs <= n) ?? 31536000);
  const zone = new Date(from).getTimezoneOffset() * 60_000;
  const ticks = [];
  for (let ms = Math.ceil((from - zone) / step) * step + zone; ms <= to; ms += step) ticks.push(ms);
  return ticks;
}

/** Parts of a line without holes: a hole is longer than one and a half windows. */
export function runs(points, windowSecs) {
  const parts = [];
  let last = -Infinity;
  for (const point of points) {
    if (point[0] - last > windowSecs * 1500) parts.push([]);
    parts[parts.length - 1].push(point);
    last = point[0];
  }
  return parts;
}

/**
 * Chart of `lines`: `{ name, points: [[ms, number]], colour }`. Its axis reaches to `atLeast`.
 * `onZoom(from, to)` is called for a stretch that is dragged over.
 */
export function Chart({
  title, lines, from, to, windowSecs, format, height = 180, note, onZoom, isWaiting, atLeast = 0, isBytes,
}) {
  const [ref, width] = useWidth(600);
  const [cursor, setCursor] = useState(null);
  const [dragged, setDragged] = useState(null);
  const [hidden, setHidden] = useState(() => new Set());
  useEffect(() => {
    const moved = (event) => setCursor(event.detail);
    addEventListener(CURSOR, moved);
    return () => removeEventListener(CURSOR, moved);
  }, []);
  const point = (ms) => dispatchEvent(new CustomEvent(CURSOR, { detail: ms }));

  // The first window may begin before the time that is shown.
  const all = lines.slice(0, LINES_MAX).map((line) => ({ ...line,
    points: line.points.filter(([ms]) => ms >= from) }));
  const colours = coloursOf(all);
  const shown = all.filter((line) => !hidden.has(line.name));
  const max = Math.max(atLeast, ...shown.flatMap((line) => line.points.map((p) => p[1])));
  const ticks = roundTicks(max > 0 ? max : 1, isBytes);
  const top = ticks[ticks.length - 1];
  const inner = { width: Math.max(50, width - MARGIN.left - MARGIN.right),
    height: height - MARGIN.top - MARGIN.bottom };
  const x = (ms) => MARGIN.left + ((ms - from) / (to - from)) * inner.width;
  const y = (value) => MARGIN.top + (1 - value / top) * inner.height;
  const timeAt = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return Math.min(to, Math.max(from,
      from + ((event.clientX - box.left - MARGIN.left) / inner.width) * (to - from)));
  };
  const isEmpty = lines.every((line) => line.points.length === 0);
  const isLong = to - from > 86_400_000;
  const at = cursor !== null && cursor >= from && cursor <= to ? nearest(shown, cursor) : null;
  const spoken = all.map((line) => `${line.name} ${format(last(line))}`).join(", ");

  const keys = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") point(null);
    if (!step) return;
    event.preventDefault();
    point(Math.min(to, Math.max(from, (at ?? (step < 0 ? to : from)) + step * windowSecs * 1000)));
  };
  const down = (event) => {
    if (onZoom && event.button === 0 && event.pointerType === "mouse") setDragged([timeAt(event),
      timeAt(event)]);
  };
  const move = (event) => {
    const ms = timeAt(event);
    point(ms);
    if (dragged) setDragged([dragged[0], ms]);
  };
  const up = () => {
    if (dragged && Math.abs(dragged[1] - dragged[0]) > windowSecs * 1000) {
      onZoom(Math.min(...dragged), Math.max(...dragged));
    }
    setDragged(null);
  };

  return html`<figure class="chart">
    <figcaption><b>${title}</b>${note && html`<span class="quiet"> ${note}</span>`}</figcaption>
    <div class="plot" ref=${ref}>
      <svg width=${width} height=${height} role="img" tabindex="0"
        aria-label=${`${title}: ${isEmpty ? "no points" : spoken}`}
        onPointerMove=${move} onPointerLeave=${() => { point(null); setDragged(null); }} onPointerDown=${down}
        onPointerUp=${up} onKeyDown=${keys} onBlur=${() => point(null)}>
        ${ticks.map((value) => html`<g class="tick" key=${value}>
          <line x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${y(value)} y2=${y(value)} />
          <text x=${MARGIN.left - 8} y=${y(value) + 4} text-anchor="end">${format(value)}</text>
        </g>`)}
        ${timeTicks(from, to, inner.width / (isLong ? 110 : 80)).map((ms) => html`<g class="tick time"
          key=${ms}>
          <line x1=${x(ms)} x2=${x(ms)} y1=${height - MARGIN.bottom} y2=${height - MARGIN.bottom + 4} />
          <text x=${x(ms)} y=${height - 6} text-anchor="middle">${tick(ms, isLong)}</text>
        </g>`)}
        ${dragged && html`<rect class="dragged" x=${x(Math.min(...dragged))} y=${MARGIN.top}
          width=${Math.abs(x(dragged[1]) - x(dragged[0]))} height=${inner.height} />`}
        ${all.map((line, n) => !hidden.has(line.name) && html`<g class=${`line l${colours[n]}`}
          key=${line.name}>
          ${runs(line.points, windowSecs).map((run) => drawn(run, x, y))}
        </g>`)}
        ${at !== null && html`<g class="cursor">
          <line x1=${x(at)} x2=${x(at)} y1=${MARGIN.top} y2=${height - MARGIN.bottom} />
          ${all.map((line, n) => {
            const value = valueAt(line, at);
            return value !== undefined && !hidden.has(line.name)
              && html`<circle class=${`l${colours[n]}`} cx=${x(at)} cy=${y(value)} r="3.5" />`;
          })}
        </g>`}
      </svg>
      ${isEmpty && html`<p class="no-points">${isWaiting ? "Loading …" : "No points in this time."}</p>`}
      ${at !== null && html`<div class="tip" style=${tipAt(x(at), width)}>
        <div class="quiet">${time(at)}</div>
        ${all.map((line, n) => !hidden.has(line.name) && html`<div key=${line.name}><i
          class=${`key l${colours[n]}`}></i>
          <span>${line.name}</span> <b>${format(valueAt(line, at))}</b></div>`)}
      </div>`}
    </div>
    <ul class="legend">
      ${all.map((line, n) => html`<li key=${line.name}>
        <button type="button" aria-pressed=${!hidden.has(line.name)}
          title=${hidden.has(line.name) ? "Show this line" : "Hide this line"}
          onClick=${() => setHidden(toggled(hidden, line.name))}>
          <svg class=${`key l${colours[n]}`} width="22" height="8"
            aria-hidden="true"><line x1="1" x2="21" y1="4" y2="4" /></svg>
          ${line.name} <b>${format(last(line))}</b>
        </button>
      </li>`)}
      ${lines.length > LINES_MAX && html`<li class="quiet">and ${lines.length - LINES_MAX} more</li>`}
    </ul>
  </figure>`;
}

function drawn(run, x, y) {
  if (run.length === 1) return html`<circle cx=${x(run[0][0])} cy=${y(run[0][1])} r="2.5" />`;
  const d = run.map(([ms, value],
    n) => `${n ? "L" : "M"}${x(ms).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return html`<path d=${d} />`;
}

function toggled(set, name) {
  const next = new Set(set);
  if (!next.delete(name)) next.add(name);
  return next;
}

const last = (line) => line.points[line.points.length - 1]?.[1];

/** Time of the point that is nearest to `ms`, over all lines. */
function nearest(lines, ms) {
  let best = null;
  for (const line of lines) {
    for (const [at] of line.points) {
      if (best === null || Math.abs(at - ms) < Math.abs(best - ms)) best = at;
    }
  }
  return best;
}

function valueAt(line, ms) {
  return line.points.find((point) => point[0] === ms)?.[1];
}

/** Place of the tip: on the side of the cursor that has more room. */
function tipAt(x, width) {
  return x < width / 2 ? { left: `${x + 12}px` } : { right: `${width - x + 12}px` };
}

/** Small line without axes, and its area. */
export function Spark({ points, windowSecs = 60, from, to, width = 120, height = 34 }) {
  const list = points ?? [];
  const begin = from ?? list[0]?.[0] ?? 0;
  const end = to ?? list[list.length - 1]?.[0] ?? 1;
  const max = Math.max(...list.map((point) => point[1]), 1e-9);
  const x = (ms) => (end > begin ? ((ms - begin) / (end - begin)) * (width - 4) + 2 : width / 2);
  const y = (value) => height - 3 - (value / max) * (height - 8);
  return html`<svg class="spark" viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none"
    aria-hidden="true">
    <line class="base" x1="0" x2=${width} y1=${height - 2} y2=${height - 2} />
    ${runs(list, windowSecs).map((run) => {
      // One point is a short line: a circle would be stretched with the picture.
      if (run.length === 1) return html`<path d=${`M${x(run[0][0]) - 1} ${y(run[0][1])}h2`} />`;
      const d = run.map(([ms, value],
        n) => `${n ? "L" : "M"}${x(ms).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      const [first, final] = [x(run[0][0]).toFixed(1), x(run[run.length - 1][0]).toFixed(1)];
      return html`<path class="area" d=${`${d}L${final} ${height - 2}L${first} ${height - 2}Z`} /><path
        d=${d} />`;
    })}
  </svg>`;
}
