// The page: its frame, and the view that the address names.

import { html, render, useEffect, useRef, useState } from "./lib/html.js";
import { OWN, connection, get } from "./lib/api.js";
import { saveText } from "./lib/csv.js";
import { duration, time } from "./lib/format.js";
import { usePoll } from "./lib/poll.js";
import { link, useRoute } from "./lib/route.js";
import { loadSession, mayLookIntoTree, signOut, useSession } from "./lib/session.js";
import { useTick } from "./parts/bits.js";
import { Cluster } from "./views/cluster.js";
import { Component } from "./views/component.js";
import { Events } from "./views/events.js";
import { Explorer } from "./views/explorer.js";
import { Configuration } from "./views/settings.js";
import { SignIn } from "./views/sign-in.js";
import { Topologies } from "./views/topologies.js";
import { Topology } from "./views/topology.js";
import { Tree } from "./views/tree.js";

const NAV = [
  { id: "cluster", name: "Cluster" },
  { id: "topologies", name: "Topologies" },
  { id: "explorer", name: "Explorer" },
  { id: "events", name: "Events" },
  { id: "configuration", name: "Configuration" },
  { id: "tree", name: "Tree", isOffered: mayLookIntoTree },
];

/** Data that is older than this is said to be old. */
const OLD_MS = 10_000;
const THEMES = ["auto", "light", "dark"];
const THEME_KEY = "stormkeeper-theme";

/** Theme that the person chose; without storage, that of the system. */
function storedTheme() {
  try {
    return localStorage.getItem(THEME_KEY) ?? "auto";
  } catch {
    return "auto";
  }
}

function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(THEME_KEY, theme);
  } catch {
    // Private windows have no storage; the theme holds for this page.
  }
}

function Theme() {
  const [theme, set] = useState(storedTheme);
  useEffect(() => applyTheme(theme), [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button type="button" class="plain" title=${`Colours: ${theme}. Change to ${next}.`}
    aria-label=${`Colours: ${theme}. Change to ${next}.`} onClick=${() => set(next)}>
    <i class=${`theme ${theme}`} aria-hidden="true"></i></button>`;
}

function Person({ onSignIn }) {
  const { name, role, owner, access } = useSession();
  if (name) {
    const limit = owner ? `${role}, topologies of ${owner}` : role;
    return html`<span class="person" title=${limit}><b>${name}</b> <span class="quiet">${role}</span>
      <button type="button" class="plain" onClick=${signOut}>Sign out</button></span>`;
  }
  if (access === "open") return null;
  return html`<button type="button" class="plain" onClick=${onSignIn}>Sign in</button>`;
}

/** Reads the document with the proof of this session, which a link does not carry. */
async function openDocument(event) {
  event.preventDefault();
  saveText("stormkeeper-openapi.json", JSON.stringify(await get("/api/openapi.json"), null, 2), "application/json");
}

/** Line at the top while this nimbus is away or its view is old. */
function Away({ nimbuses }) {
  const [, draw] = useState(0);
  useEffect(() => {
    const changed = () => draw((n) => n + 1);
    connection.listeners.add(changed);
    return () => connection.listeners.delete(changed);
  }, []);
  useTick(1000);
  const { failedSince, answeredAt, error, behindMs } = connection;
  if (failedSince) {
    const others = nimbuses.filter(({ api }) => api !== location.host);
    return html`<div class="away" role="status">
      <b>${error.status ? "This nimbus cannot answer now." : "This nimbus does not answer."}</b>
      ${answeredAt ? ` What you see is from ${time(answeredAt)}, ${duration((Date.now() - answeredAt) / 1000)} ago. ` : " "}
      ${error.status ? `${error.message}. ` : ""}Trying again.
      ${others.length > 0 && html` Other nimbuses: ${others.map(({ api }, n) => html`${n > 0 && ", "}
        <a key=${api} href=${`${location.protocol}//${api}/ui/${location.hash}`}>${api}</a>`)}`}
    </div>`;
  }
  if (behindMs > OLD_MS) {
    return html`<div class="away"
      role="status"><b>This nimbus lags:</b> what it shows is ${duration(behindMs / 1000)} old. It has lost ZooKeeper, or
        ZooKeeper is late: look at its log, and at the servers of${" "}<code>storm.zookeeper.servers</code>.</div>`;
  }
  return null;
}

function View({ route }) {
  const [name = "cluster", id, ...rest] = route.parts;
  const { query } = route;
  switch (name) {
    case "cluster": return html`<${Cluster} />`;
    case "topologies": return html`<${Topologies} query=${query} />`;
    case "topology": return html`<${Topology} key=${id} id=${id} query=${query} />`;
    case "component": return html`<${Component} key=${`${id}/${rest[0]}`} topology=${id} id=${rest[0]}
      query=${query} />`;
    case "explorer": return html`<${Explorer} query=${query} />`;
    case "events": return html`<${Events} query=${query} />`;
    case "configuration": return html`<${Configuration} />`;
    case "tree": return html`<${Tree} parts=${route.parts.slice(1)} query=${query} />`;
    default:
      return html`<div class="empty"><h1>There is no such view</h1><div><a
        href="#/">Go to the cluster</a></div></div>`;
  }
}

/** Keys that lead somewhere: `/` to the search, `g` and a letter to a view. */
function useKeys() {
  const isGoing = useRef(false);
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey
        || event.target.closest?.("input, select, textarea, dialog")) return;
      if (event.key === "/") {
        const field = document.querySelector("[data-search]");
        if (field) event.preventDefault();
        field?.focus();
      } else if (isGoing.current) {
        const to = { c: "cluster", t: "topologies", x: "explorer", e: "events",
          s: "configuration", z: "tree" }[event.key];
        if (to) location.hash = link([to]);
      }
      isGoing.current = event.key === "g";
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

function Page() {
  const route = useRoute();
  const { isKnown, access, name } = useSession();
  const [isSigningIn, setSigningIn] = useState(false);
  const isLocked = isKnown && access === "required" && !name;
  const nimbuses = usePoll(isKnown && !isLocked ? "frame nimbuses" : null,
    (options) => get(`${OWN}/nimbus/summary`, {}, options), 15_000);
  useKeys();
  useEffect(() => setSigningIn(false), [name]);
  const view = route.parts[0] ?? "cluster";
  const parent = { topology: "topologies", component: "topologies" }[view] ?? view;
  useEffect(() => {
    document.title = [...route.parts.slice(1).reverse(), NAV.find(({ id }) => id === parent)?.name,
      "Stormkeeper"]
      .filter(Boolean).join(" · ");
    scrollTo(0, 0);
    // On a phone the views are wider than the window.
    document.querySelector("header.top nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  }, [route.parts.join("/")]);
  return html`
    <a class="skip" href="#main"
      onClick=${(event) => {
      event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/"><span class="mark" aria-hidden="true"></span>Stormkeeper</a>
      <nav aria-label="Views">
        ${NAV.filter(({ isOffered }) => !isOffered || isOffered()).map((one) => html`<a key=${one.id} href=${link([one.id])}
          aria-current=${one.id === parent ? "page" : undefined}>${one.name}</a>`)}
      </nav>
      <span class="right"><${Person} onSignIn=${() => setSigningIn(true)} /><${Theme} /></span>
    </header>
    <${Away} nimbuses=${nimbuses.data?.nimbuses ?? []} />
    <main id="main" tabindex="-1">
      ${isLocked || isSigningIn
        ? html`<${SignIn} canClose=${!isLocked} onClose=${() => setSigningIn(false)} />`
        : html`<${View} key=${name} route=${route} />`}
    </main>
    <footer class="quiet">
      <span>Served by ${location.host}</span>
      <a href="/api/openapi.json" onClick=${openDocument}>API</a>
      <span>Keys: <kbd>/</kbd> search,${" "}
        <kbd>g</kbd> then <kbd>c</kbd> <kbd>t</kbd> <kbd>x</kbd> <kbd>e</kbd> <kbd>s</kbd> <kbd>z</kbd> views</span>
    </footer>`;
}

applyTheme(storedTheme());
const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Page} />`, root);
const whenKnown = async () => {
  await loadSession();
  if (!connection.answeredAt) setTimeout(whenKnown, 3000);
};
whenKnown();
