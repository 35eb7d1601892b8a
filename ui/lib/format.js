// Numbers, times and names as people read them.

const EMPTY = "–";

/** Three significant digits with k, M, G: `1.23k`. */
export function count(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return EMPTY;
  const size = Math.abs(value);
  if (size < 1000) return Number.isInteger(value) ? String(value) : digits(value);
  for (const [unit, factor] of [["k", 1e3], ["M", 1e6], ["G", 1e9], ["T", 1e12]]) {
    if (size < factor * 999.5 || unit === "T") return `${digits(value / factor)}${unit}`;
  }
  return EMPTY;
}

function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.001) return value.toExponential(0);
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(places)));
}

/** All digits, in groups: `12 345`. */
export function whole(value) {
  if (value === undefined || value === null) return EMPTY;
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function perSecond(value) {
  return value === undefined || value === null ? EMPTY : `${count(value)}/s`;
}

/** A share of one: `45 %`. */
export function share(value) {
  if (value === undefined || value === null) return EMPTY;
  const percent = value * 100;
  return `${percent > 0 && percent < 1 ? "<1" : Math.round(percent)} %`;
}

export function bytes(value) {
  if (value === undefined || value === null) return EMPTY;
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(size) < 1024) return `${digits(size)} ${unit}`;
    size /= 1024;
  }
  return `${digits(size)} TiB`;
}

/** Microseconds: `1.2 ms`. */
export function micros(value) {
  if (value === undefined || value === null) return EMPTY;
  const size = Math.abs(value);
  if (size < 1000) return `${digits(value)} µs`;
  if (size < 1e6) return `${digits(value / 1e3)} ms`;
  if (size < 6e7) return `${digits(value / 1e6)} s`;
  return duration(value / 1e6);
}

/** Seconds: `2d 3h`, `4m 5s`. */
export function duration(seconds) {
  if (seconds === undefined || seconds === null) return EMPTY;
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    const n = Math.floor(rest / length);
    rest -= n * length;
    if (n > 0 || (unit === "s" && parts.length === 0)) parts.push(`${n}${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

const two = (n) => String(n).padStart(2, "0");

/** Time of a day, with the date if it is another day than today. */
export function time(ms) {
  if (!ms) return EMPTY;
  const date = new Date(ms);
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return date.toDateString() === new Date().toDateString() ? clock : `${day(ms)} ${clock}`;
}

export function day(ms) {
  const date = new Date(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** Time without seconds, for axes: with the date at midnight or if asked. */
export function tick(ms, isLong) {
  const date = new Date(ms);
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (!isLong) return clock;
  return clock === "00:00" ? day(ms).slice(5) : `${day(ms).slice(5)} ${clock}`;
}

export function ago(ms, now = Date.now()) {
  const seconds = (now - ms) / 1000;
  return seconds < 1 ? "now" : `${duration(seconds)} ago`;
}

export function plural(n, word) {
  if (n === 1) return `1 ${word}`;
  return `${whole(n)} ${word}${/(s|x)$/.test(word) ? "es" : "s"}`;
}

/** Formatter of a metric's values, by the unit that the API names. */
export function ofUnit(unit) {
  switch (unit) {
    case "µs": return micros;
    case "ms": return (value) => micros(value * 1000);
    case "bytes": return bytes;
    case "bytes/s": return (value) => `${bytes(value)}/s`;
    case "0 to 1": return share;
    default:
      if (unit?.startsWith("%")) return (value) => `${count(value)} %`;
      if (unit?.endsWith("/s")) return perSecond;
      return count;
  }
}

/** Numbers of a set of tasks: `1-3,7` is `[1, 2, 3, 7]`. */
export function tasksOf(set) {
  return (set || "").split(",").filter(Boolean).flatMap((part) => {
    const [first, last] = part.split("-").map(Number);
    return Array.from({ length: (last ?? first) - first + 1 }, (_, n) => first + n);
  });
}
