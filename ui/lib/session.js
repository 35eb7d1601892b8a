// Who is signed in, and what that person may do. The nimbus decides; the page only leaves out what it refuses.

import { useEffect, useState } from "./html.js";
import { OWN, connection, get, post, remove } from "./api.js";
import { forgetAnswers } from "./poll.js";

const URL = `${OWN}/session`;
const RANKS = { reader: 0, operator: 1, admin: 2 };

/** Session, once it is known. */
export const session = { isKnown: false, access: "open", actions: true, name: null, role: null, owner: null };
const listeners = new Set();

function become(answer) {
  Object.assign(session, { name: null, role: null, owner: null }, answer, { isKnown: true });
  connection.needsToken = session.access === "required" && !session.name;
  connection.tell();
  for (const listener of listeners) listener();
}

/** Asks who is signed in. A nimbus of a build before this page answers 404: then everything is offered. */
export async function loadSession() {
  try {
    become(await get(URL));
  } catch (error) {
    if (error.status === 404 || error.status === 405) become({ access: "open", actions: true });
    else if (error.status === 401) become({ access: "required", actions: true });
  }
}

export async function signIn(token) {
  become(await post(URL, { token }));
  forgetAnswers();
}

export async function signOut() {
  become(await remove(URL));
  forgetAnswers();
}

export function useSession() {
  const [, draw] = useState(0);
  useEffect(() => {
    const changed = () => draw((n) => n + 1);
    listeners.add(changed);
    // The answer may have come between the first drawing and this.
    changed();
    return () => listeners.delete(changed);
  }, []);
  return session;
}

/** Whether the topologies of `owner` may be changed. */
export function mayChange(owner) {
  if (!session.isKnown || !session.actions) return false;
  if (!session.role) return session.access !== "required";
  return RANKS[session.role] >= RANKS.operator && (!session.owner || session.owner === owner);
}

/** Whether the tree in ZooKeeper may be looked into. */
export function mayLookIntoTree() {
  if (!session.isKnown) return false;
  if (!session.role) return session.access !== "required";
  return session.role === "admin" && !session.owner;
}

/** Whether hosts may be drained. */
export function mayOperate() {
  return mayChange(null) && !session.owner;
}
