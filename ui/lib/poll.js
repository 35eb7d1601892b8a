// Answers that are asked for again and again while somebody looks.

import { useEffect, useRef, useState } from "./html.js";

/** Time between two requests for a state. */
export const STATE_MS = 3_000;
/** Time between two requests while a stream tells the numbers of now and when the state changes. */
export const CALM_MS = 30_000;
/** Time between two requests for metrics, whose points are a minute apart. */
export const METRICS_MS = 15_000;
const PAUSE_MAX_MS = 30_000;

/** Last answers by key, so that a view that is opened again is not empty. */
const kept = new Map();
const KEPT_MAX = 60;

function keep(key, entry) {
  kept.delete(key);
  kept.set(key, entry);
  if (kept.size > KEPT_MAX) kept.delete(kept.keys().next().value);
}

/** Forgets all answers, after somebody else has signed in. */
export function forgetAnswers() {
  kept.clear();
}

/**
 * Asks with `load` at once and every `period` ms while the page is visible. Returns the last answer, the
 * error of the last request, and a function that asks at once. An error keeps the answer before it.
 * Without a key nothing is asked.
 */
export function usePoll(key, load, period = STATE_MS) {
  const [, draw] = useState(0);
  const latest = useRef(null);
  latest.current = load;
  const refresh = useRef(() => {});
  useEffect(() => {
    if (!key) return undefined;
    const ended = new AbortController();
    let timer = 0;
    let pause = period;
    let isAsking = false;
    let isAskedAgain = false;
    const ask = async () => {
      clearTimeout(timer);
      if (document.hidden) return;
      if (isAsking) {
        isAskedAgain = true;
        return;
      }
      isAsking = true;
      const before = kept.get(key);
      try {
        const data = await latest.current({ signal: ended.signal });
        if (ended.signal.aborted) return;
        keep(key, { data, at: Date.now(), error: null });
        pause = period;
      } catch (error) {
        if (ended.signal.aborted) return;
        keep(key, { ...before, error });
        pause = Math.min(pause * 2, Math.max(PAUSE_MAX_MS, period));
      }
      isAsking = false;
      draw((n) => n + 1);
      timer = setTimeout(ask, isAskedAgain ? 0 : pause * (0.9 + Math.random() / 5));
      isAskedAgain = false;
    };
    refresh.current = ask;
    document.addEventListener("visibilitychange", ask);
    ask();
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", ask);
    };
  }, [key, period]);
  const entry = (key && kept.get(key)) ?? {};
  return { data: entry.data, at: entry.at, error: entry.error, refresh: () => refresh.current() };
}
