// Live numbers of a topology: a stream of server-sent events, read with `fetch`, as `EventSource` cannot send
// the header without which a cookie does not count.

import { useEffect, useRef, useState } from "./html.js";
import { ON_PURPOSE, OWN, connection, path } from "./api.js";

/** Age from which numbers are not live any more. */
const OLD_MS = 4_000;
/** Time without a byte after which the stream is opened again; events come each second. */
const SILENCE_MS = 5_000;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 15_000;
/** Pause after a nimbus that has no such stream: it is of a build before. */
const RETRY_OLD_MS = 60_000;
/** Longest event; a longer one ends the stream. */
const EVENT_CHARS_MAX = 8 << 20;

/**
 * Numbers of now of a topology: `{ numbers, at, isFresh, problem }`. One stream while the page is visible,
 * opened again when it ends. Without an id nothing is read.
 */
export function useLive(id) {
  const [, draw] = useState(0);
  const state = useRef({ numbers: null, at: 0, problem: "" });
  useEffect(() => {
    state.current = { numbers: null, at: 0, problem: "" };
    if (!id) return undefined;
    let timer = 0;
    let ended = null;
    let pause = RETRY_MS;
    const become = (change) => {
      Object.assign(state.current, change);
      draw((n) => n + 1);
    };
    const open = async () => {
      clearTimeout(timer);
      if (document.hidden || ended) return;
      const mine = new AbortController();
      ended = mine;
      let next = RETRY_MAX_MS;
      try {
        next = await read(id, mine, (numbers) => {
          pause = RETRY_MS;
          connection.answeredAt = Date.now();
          become({ numbers, at: Date.now(), problem: "" });
        });
        if (mine.signal.aborted) return;
      } catch (error) {
        if (ended !== mine) return;
        become({ problem: error.message });
        next = error.pause ?? pause;
        pause = Math.min(pause * 2, RETRY_MAX_MS);
      }
      ended = null;
      timer = setTimeout(open, next);
    };
    const close = () => {
      clearTimeout(timer);
      const open = ended;
      ended = null;
      open?.abort();
    };
    const seen = () => (document.hidden ? close() : open());
    document.addEventListener("visibilitychange", seen);
    open();
    // What is old is drawn as old, also if nothing arrives.
    const clock = setInterval(() => draw((n) => n + 1), 1_000);
    return () => {
      clearInterval(clock);
      document.removeEventListener("visibilitychange", seen);
      close();
    };
  }, [id]);
  const { numbers, at, problem } = state.current;
  const ageMs = numbers?.ageMs === undefined ? Infinity : Date.now() - at + numbers.ageMs;
  return { numbers, ageMs, isFresh: ageMs < OLD_MS, problem };
}

/** Reads one stream to its end. Returns the pause before the next one. */
async function read(id, mine, onNumbers) {
  let silence = 0;
  const hear = () => {
    clearTimeout(silence);
    silence = setTimeout(() => mine.abort(), SILENCE_MS);
  };
  try {
    hear();
    const response = await fetch(`${OWN}/topology/${path(id)}/live/events`, {
      headers: { accept: "text/event-stream", ...ON_PURPOSE },
      signal: mine.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    if (!response.ok) throw await refusal(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return RETRY_MS;
      hear();
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      if (text.length > EVENT_CHARS_MAX) throw new Error("an event is too long");
      for (const event of events) {
        const fields = fieldsOf(event);
        if (fields.event === "end") return RETRY_MAX_MS;
        if (fields.event === "live") onNumbers(JSON.parse(fields.data));
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw new Error("the stream of live numbers is silent");
    throw error;
  } finally {
    clearTimeout(silence);
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const isOld = response.status === 404 && body.code === "no_such_route";
  const text = isOld ? "this nimbus is of a build without live numbers" : body.message ?? response.statusText;
  return Object.assign(new Error(text), { pause: isOld ? RETRY_OLD_MS : undefined });
}

/** Fields of an event: lines of a name, a colon and a text. */
export function fieldsOf(event) {
  const fields = {};
  for (const line of event.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
  }
  return fields;
}

/** Rates of components as those of heartbeats: `{ component: { emitted, executed } }`. */
export function ratesOf(numbers) {
  const known = numbers.components.filter(({ rates }) => rates);
  return Object.fromEntries(known.map(({ id, rates }) => [id, rates]));
}

/** Puts the load of now into nodes of the graph. */
export function nodesOfNow(nodes, numbers, limitShare) {
  const byId = new Map(numbers.components.map((one) => [one.id, one]));
  const current = nodes.map((node) => {
    const now = byId.get(node.id);
    if (!now?.rates) return { ...node, isLimit: false };
    return {
      ...node,
      rate: node.kind === "spout" ? now.rates.emitted : now.rates.executed,
      capacity: now.capacity ?? node.capacity,
      queue: now.queue === undefined ? node.queue : now.queue * 100,
      pending: node.kind === "spout" ? now.pending : undefined,
      isLimit: false,
    };
  });
  const bolts = current.filter(({ kind, capacity }) => kind !== "spout" && capacity !== undefined);
  const limit = bolts.reduce((a, b) => (a && a.capacity >= b.capacity ? a : b), null);
  if (limit && limit.capacity >= limitShare) limit.isLimit = true;
  return current;
}

/** Puts the rates of now on edges: those of their streams. */
export function edgesOfNow(edges, numbers) {
  const rates = new Map();
  for (const { id, streams } of numbers.components) {
    for (const { id: stream, emittedRate } of streams ?? []) rates.set(`${id} ${stream}`, emittedRate);
  }
  return edges.map((edge) => {
    const known = edge.streams.map(({ stream }) => rates.get(`${edge.from} ${stream}`))
      .filter((rate) => rate !== undefined);
    return known.length > 0 ? { ...edge, rate: known.reduce((a, b) => a + b, 0) } : edge;
  });
}
