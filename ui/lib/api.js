// Requests to the public API of the nimbus that serves this page.

export const OWN = "/api/stormkeeper/v1";
/** Prefix of Storm's API, for what the own API does not have: edges, slots, configuration. */
export const STORM = "/api/v1";

/** Header that no form, link or image of another page can send. A cookie counts only together with it. */
export const ON_PURPOSE = { "x-stormkeeper-request": "1" };
const TIMEOUT_MS = 15_000;

/** Error of a request: with a status if a nimbus answered, without one if none did. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", hint = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, hint });
  }

  /** True if no nimbus answered, or one that cannot answer now. */
  get isAway() {
    return this.status === 0 || this.status === 503;
  }
}

/** Transaction that this page has caused last: reads wait until the nimbus has seen it. */
let written = null;

/** State of the connection, for the line at the top. */
export const connection = {
  answeredAt: 0,
  failedSince: 0,
  error: null,
  behindMs: 0,
  needsToken: false,
  listeners: new Set(),
  tell() {
    for (const listener of this.listeners) listener();
  },
};

/** Parts of a path, encoded. */
export const path = (...parts) => parts.map(encodeURIComponent).join("/");

async function request(method, url, { query, body, signal } = {}) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null);
  const search = new URLSearchParams(given).toString();
  const headers = { accept: "application/json", ...ON_PURPOSE };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (written && method === "GET") headers["x-stormkeeper-zxid"] = written;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(search ? `${url}?${search}` : url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    const text = timeout.aborted ? "it did not answer in time" : "it cannot be reached";
    return failed(new ApiError(`the nimbus at ${location.host} is away: ${text}`));
  }
  const text = await response.text();
  const parsed = parse(text);
  if (!response.ok) {
    const message = parsed?.message ?? parsed?.errorMessage ?? (text.slice(0, 300) || response.statusText);
    const error = new ApiError(message, { status: response.status, ...pick(parsed) });
    if (response.status === 401 && !connection.needsToken) {
      connection.needsToken = true;
      connection.tell();
    }
    return error.isAway ? failed(error) : answered(response, () => { throw error; });
  }
  if (method !== "GET") written = response.headers.get("x-stormkeeper-zxid") ?? written;
  return answered(response, () => parsed);
}

function pick(parsed) {
  return { code: parsed?.code ?? "", hint: parsed?.hint ?? "" };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function failed(error) {
  connection.failedSince ||= Date.now();
  connection.error = error;
  connection.tell();
  throw error;
}

function answered(response, finish) {
  const behindMs = Number(response.headers.get("x-stormkeeper-behind-ms") ?? 0);
  const isNews = connection.failedSince !== 0 || connection.behindMs !== behindMs;
  Object.assign(connection, { answeredAt: Date.now(), failedSince: 0, error: null, behindMs });
  if (isNews) connection.tell();
  return finish();
}

export const get = (url, query, options) => request("GET", url, { ...options, query });
export const post = (url, body) => request("POST", url, { body });
export const remove = (url) => request("DELETE", url);

/** Maximum number of pages that are read of one list. */
const PAGES_MAX = 20;

/** Reads all pages of a list, up to a limit; `isCut` says that there are more. */
export async function getAll(url, query, list, options) {
  let all = [];
  let after;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await get(url, { limit: 5000, ...query, after }, options);
    all = all.concat(answer[list]);
    after = answer.next;
    if (!after) return { ...answer, [list]: all, isCut: false };
  }
  return { [list]: all, isCut: true };
}
