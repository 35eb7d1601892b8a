// Address of a view: the part of the URL behind `#`, with its parameters, so that a view can be shared.

import { useEffect, useState } from "./html.js";

/** Reads `#/topology/wc?tab=events` as its parts and parameters. */
export function parseRoute(hash) {
  const [route, search] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = route.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(search ?? "")) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Writes a link to a view. */
export function link(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null
    && value !== "");
  const search = new URLSearchParams(given).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** Changes parameters of the current view, without a new entry in the history of the browser. */
export function setQuery(changes) {
  const { parts, query } = parseRoute(location.hash);
  history.replaceState(null, "", link(parts, { ...query, ...changes }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [route, set] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const changed = () => set(parseRoute(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
