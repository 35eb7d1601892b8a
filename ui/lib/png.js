// Charts as a picture: drawn once more on a canvas, as the policy of the page lets no SVG become an image.

import { tick } from "./format.js";

const WIDTH = 1200;
const HEIGHT = 320;
/** Pixels of the picture for each pixel of the drawing. */
const SCALE = 2;
const MARGIN = { left: 84, right: 24, top: 46, bottom: 30 };
const LEGEND_LINE = 22;
/** Dashes of lines, as the style sheet has them. */
const DASHES = [[], [7, 3], [2.5, 2.5], [9, 3, 2.5, 3], [5, 2], [12, 4], [2, 4], [6, 2, 2, 2, 2, 2]];

/** Colours of the theme that is shown. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { card: of("--card"), ink: of("--ink"), quiet: of("--quiet"), line: of("--line"),
    lines: DASHES.map((_, n) => of(`--s${n}`)) };
}

/**
 * Draws charts below each other, and returns the picture as a `Blob`. A chart is
 * `{ title, note, lines: [{ name, points }], format, ticks, max }`; `axis` has the times of all:
 * `{ from, to, ticks, isLong, windowSecs }`. `runsOf` cuts points into parts without holes.
 */
export function pictureOf(charts, axis, runsOf) {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");
  const colours = theme();
  const legends = charts.map(({ lines, format }) => legendOf(pen, lines, format));
  const heights = legends.map((legend) => HEIGHT + legend.height);
  canvas.width = WIDTH * SCALE;
  canvas.height = heights.reduce((a, b) => a + b, 0) * SCALE;
  pen.scale(SCALE, SCALE);
  pen.fillStyle = colours.card;
  pen.fillRect(0, 0, WIDTH, canvas.height / SCALE);
  let top = 0;
  charts.forEach((chart, n) => {
    pen.save();
    pen.translate(0, top);
    drawChart(pen, chart, axis, runsOf, colours);
    drawLegend(pen, legends[n], colours);
    pen.restore();
    top += heights[n];
  });
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the picture is too large"))), "image/png");
  });
}

const font = (px, weight = "") => `${weight} ${px}px system-ui, "DejaVu Sans", sans-serif`;

function drawChart(pen, { title, note, lines, format, ticks }, axis, runsOf, colours) {
  const { from, to, windowSecs } = axis;
  const bottom = HEIGHT - MARGIN.bottom;
  const x = (ms) => MARGIN.left + ((ms - from) / (to - from)) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value) => bottom - (value / ticks[ticks.length - 1]) * (bottom - MARGIN.top);
  pen.textBaseline = "middle";
  pen.fillStyle = colours.ink;
  pen.font = font(16, "600");
  pen.fillText(title, 24, 24);
  const end = 24 + pen.measureText(title).width + 10;
  pen.fillStyle = colours.quiet;
  pen.font = font(13);
  pen.fillText(note, end, 24, WIDTH - end - 24);
  pen.lineWidth = 1;
  pen.strokeStyle = colours.line;
  pen.font = font(12);
  pen.textAlign = "right";
  for (const value of ticks) {
    stroke(pen, [[MARGIN.left, y(value)], [WIDTH - MARGIN.right, y(value)]]);
    pen.fillText(format(value), MARGIN.left - 10, y(value));
  }
  pen.textAlign = "center";
  for (const ms of axis.ticks) {
    stroke(pen, [[x(ms), bottom], [x(ms), bottom + 5]]);
    pen.fillText(tick(ms, axis.isLong), x(ms), bottom + 17);
  }
  pen.textAlign = "left";
  pen.lineWidth = 2;
  pen.lineJoin = "round";
  lines.forEach(({ points }, n) => {
    pen.strokeStyle = colours.lines[n % DASHES.length];
    pen.setLineDash(DASHES[n % DASHES.length]);
    for (const run of runsOf(points, windowSecs)) {
      // One point is a short line.
      const places = run.map(([ms, value]) => [x(ms), y(value)]);
      stroke(pen, places.length > 1 ? places : [[places[0][0] - 2, places[0][1]], [places[0][0] + 2, places[0][1]]]);
    }
  });
  pen.setLineDash([]);
}

function stroke(pen, places) {
  pen.beginPath();
  places.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

/** Places of the names of lines below a chart. */
function legendOf(pen, lines, format) {
  pen.font = font(13);
  const items = [];
  let [left, row] = [24, 0];
  lines.forEach(({ name, points }, n) => {
    const text = `${name}  ${format(points[points.length - 1]?.[1])}`;
    const width = Math.min(WIDTH - 100, pen.measureText(text).width + 62);
    if (left + width > WIDTH - 24 && left > 24) [left, row] = [24, row + 1];
    items.push({ text, n, left, row });
    left += width;
  });
  return { items, height: (row + 1) * LEGEND_LINE + 14 };
}

function drawLegend(pen, { items }, colours) {
  pen.font = font(13);
  pen.lineWidth = 2.5;
  for (const { text, n, left, row } of items) {
    const middle = HEIGHT + 8 + row * LEGEND_LINE;
    pen.strokeStyle = colours.lines[n % DASHES.length];
    pen.setLineDash(DASHES[n % DASHES.length]);
    stroke(pen, [[left, middle], [left + 26, middle]]);
    pen.setLineDash([]);
    pen.fillStyle = colours.ink;
    pen.fillText(text, left + 34, middle, WIDTH - left - 58);
  }
}
