// Checks routes: what they refer to, what they match, and headers that are not theirs to set.
import { parseDialAddress } from "../lib/address.ts";
import { nearest } from "../lib/nearest.ts";
import type { CheckContext } from "./check-context.ts";
import { checkPublicUrl } from "./check-public-url.ts";
import { farAway, upstreamKind } from "./check-upstreams.ts";
import { type Path, quote } from "./problem.ts";
import { tailnetPort } from "./tailnet-listeners.ts";
import { tlsOf } from "./tls-objects.ts";
import type { Listener, Route, UpstreamEntry } from "./types.ts";

// RFC 9110 section 7.6.1 and RFC 9112 section 6: they belong to one connection or frame the message.
const CONNECTION_HEADERS = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "expect"];
const FORWARDED_HEADERS = [
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-forwarded-host",
  "x-real-ip",
  "x-request-id",
  "x-forwarded-user",
  "x-forwarded-user-source",
  "x-forwarded-user-node",
  "x-forwarded-scopes",
  "x-forwarded-email",
  "x-forwarded-groups",
];

export function checkRoutes(check: CheckContext): void {
  const routes: unknown = check.config.routes;
  if (!Array.isArray(routes)) return;
  const listeners = check.entries<Listener>("listeners");
  if (routes.length > 0 && listeners.length > 0 && check.isSound(["listeners"]) && !listeners.some(([, listener]) => listener.protocol === "http")) {
    check.report(["routes"], "No listener has 'protocol: http', so that these routes are never served", "key");
  }
  const names = new Map<string, number>();
  const matches = new Map<string, number>();
  for (const [i, route] of (routes as Route[]).entries()) {
    const path = ["routes", i];
    if (typeof route !== "object" || route === null) continue;
    const sound = (key: keyof Route): boolean => check.isSound([...path, key]) && route[key] !== undefined;
    if (sound("name")) {
      const first = names.get(route.name ?? "");
      if (first !== undefined)
        check.report([...path, "name"], `Name ${quote(check.text([...path, "name"], route.name ?? ""))} is already that of routes[${first}]`);
      else names.set(route.name ?? "", i);
    }
    if (sound("upstream") && route.upstream === "none") checkNoUpstream(check, path);
    else if (sound("upstream")) checkUpstream(check, [...path, "upstream"], route.upstream);
    checkRouteListeners(check, [...path, "listeners"], route.listeners, listeners);
    checkAuth(check, [...path, "auth"], route.auth);
    if (sound("auth")) {
      checkClientCertificates(check, path, route, listeners);
      checkTailnetWay(check, path, route, listeners);
    }
    checkPaths(check, path, route, sound);
    checkHeaders(check, path, route);
    if (sound("mcp") && sound("auth") && route.auth === "none" && check.isWritten([...path, "mcp", "session_binding"]) && route.mcp?.session_binding === true)
      check.report(
        [...path, "mcp", "session_binding"],
        "'session_binding' does nothing with 'auth: none': nobody is known, so that a session is everybody's",
        "key",
      );
    if (sound("public_url") && sound("host")) checkPublicHost(check, path, route);
    checkPublicUrl(check, path, route);
    if (sound("cors")) checkCors(check, [...path, "cors"], route);
    if (!check.isSound(path)) continue;
    const match = matchKey(route);
    const same = matches.get(match);
    if (same === undefined) matches.set(match, i);
    else check.report(path, `routes[${i}] matches exactly what routes[${same}] matches, which comes first: it would never serve a request`, "key");
  }
}

/** Equal for routes that match the same requests with the same priority. */
function matchKey(route: Route): string {
  const headers = Object.entries(route.headers ?? {}).map(([name, value]) => `${name.toLowerCase()}:${value}`);
  return JSON.stringify([
    route.listeners?.toSorted() ?? null,
    route.host?.toLowerCase() ?? null,
    route.path ?? null,
    route.path_prefix ?? null,
    route.path_regex ?? null,
    route.methods?.toSorted() ?? null,
    headers.toSorted(),
    route.priority,
  ]);
}

/** Behind a proxy that changes the host this may be meant. */
function checkPublicHost(check: CheckContext, path: Path, { host = "", public_url: publicUrl = "" }: Route): void {
  const { hostname } = new URL(publicUrl);
  const isSame = host.startsWith("*.") ? hostname.endsWith(host.slice(1).toLowerCase()) : hostname === host.toLowerCase();
  if (!isSame)
    check.warn(
      [...path, "public_url"],
      `Clients ask for host '${hostname}', and the route takes ${quote(check.text([...path, "host"], host))} alone; unless a proxy changes that, it never serves`,
    );
}

const FORWARDING_KEYS = ["strip_prefix", "set_headers", "remove_headers", "response_headers", "mcp"] as const;

/** Of a route that is only asked about, what is for requests that go on does nothing. */
function checkNoUpstream(check: CheckContext, path: Path): void {
  const trusted: unknown = check.config.trusted_proxies;
  if (Array.isArray(trusted) && trusted.length === 0 && check.isSound(["trusted_proxies"])) {
    const what = "'upstream: none' serves nobody: 'trusted_proxies' alone may ask at /verify, and there are none";
    check.warn([...path, "upstream"], `${what}; name the proxies there`);
  }
  for (const key of FORWARDING_KEYS) {
    if (check.isWritten([...path, key]))
      check.report([...path, key], `'${key}' does nothing with 'upstream: none': another proxy forwards the requests`, "key");
  }
}

function checkUpstream(check: CheckContext, path: Path, upstream: string): void {
  const shown = check.text(path, upstream);
  if (upstream.includes(":")) {
    const far = farAway(upstream, shown, "make it an entry of 'upstreams' with 'remote: true' if it is meant");
    if (far !== null) check.report(path, far);
    return;
  }
  const entries = check.entries<UpstreamEntry>("upstreams");
  const entry = entries.find(([name]) => name === upstream)?.[1];
  if (!check.isThere(["upstreams"])) return;
  if (entry === undefined) {
    const meant = nearest(
      upstream,
      entries.map(([name]) => name),
    );
    const known =
      entries.length === 0
        ? "there are no entries in 'upstreams'; write a URL such as http://127.0.0.1:8080"
        : `known: ${entries.map(([name]) => name).join(", ")}`;
    check.report(path, `Unknown upstream ${quote(shown)}; ${meant === null ? known : `did you mean '${meant}'?`}`);
  } else if (check.isSound(["upstreams", upstream]) && upstreamKind(entry) === "tcp") {
    check.report(path, `Upstream ${quote(shown)} has tcp:// targets; a route needs http, https, h2c or unix: ones`);
  }
}

function checkRouteListeners(check: CheckContext, path: Path, names: unknown, listeners: [string, Listener][]): void {
  const http = listeners.filter(([, listener]) => listener?.protocol === "http").map(([name]) => name);
  for (const [at, name] of check.items(path, names)) {
    const listener = listeners.find(([known]) => known === name)?.[1];
    const shown = quote(check.text(at, name));
    const meant = nearest(name, http);
    if (listener === undefined)
      check.report(at, `Unknown listener ${shown}; ${meant === null ? `HTTP listeners: ${http.join(", ") || "none"}` : `did you mean '${meant}'?`}`);
    else if (listener?.protocol === "tcp") check.report(at, `Listener ${shown} is a TCP listener, which serves no routes`);
  }
}

function checkAuth(check: CheckContext, path: Path, auth: Route["auth"]): void {
  const tokens: unknown = check.config.auth?.tokens;
  if (!Array.isArray(auth) || !Array.isArray(tokens) || !check.isThere(["auth", "tokens"])) return;
  const known = tokens.map((token: { name?: unknown } | null) => (typeof token?.name === "string" ? token.name : ""));
  for (const [i, way] of auth.entries()) {
    if (way?.token !== undefined && way.token?.names === undefined && tokens.length === 0 && check.isSound([...path, i]) && check.isSound(["auth", "tokens"]))
      check.warn(
        [...path, i, "token"],
        "Nobody comes in by 'token': there are none in 'auth.tokens'; 'sidegate token new' makes one and prints its line",
        "key",
      );
    for (const [at, name] of check.items([...path, i, "token", "names"], way?.token?.names)) {
      if (known.includes(name)) continue;
      const meant = nearest(name, known);
      const shown = known.map((holder, j) => check.text(["auth", "tokens", j, "name"], holder)).join(", ");
      check.report(
        at,
        `Unknown token ${quote(check.text(at, name))}; ${meant === null ? `names in auth.tokens: ${shown || "none"}` : `did you mean '${meant}'?`}`,
      );
    }
  }
}

/** A way in by client certificate needs listeners that ask for one. */
function checkClientCertificates(check: CheckContext, path: Path, route: Route, listeners: [string, Listener][]): void {
  const way = Array.isArray(route.auth) ? route.auth.findIndex((candidate) => candidate.client_certificate !== undefined) : -1;
  if (way === -1 || !check.isSound(["listeners"]) || !check.isSound(["tls"]) || !check.isSound([...path, "listeners"])) return;
  const serving = listeners.filter(([name, listener]) => listener.protocol === "http" && (route.listeners?.includes(name) ?? true));
  const silent = serving.filter(([, listener]) => tlsOf(check, listener)?.client_auth === undefined).map(([name]) => `'${name}'`);
  if (silent.length === 0) return;
  const at = [...path, "auth", way, "client_certificate"];
  const names = `${silent.length === 1 ? "listener" : "listeners"} ${silent.join(", ")}`;
  if (silent.length < serving.length) check.warn(at, `Nobody comes in by 'client_certificate' on ${names}: no client is asked for one there`, "key");
  else check.report(at, `'client_certificate' lets nobody in: ${names} would never ask for one; give 'client_auth' and 'ca_file' in 'tls'`, "key");
}

/** A way in by the tailnet needs listeners on it. */
function checkTailnetWay(check: CheckContext, path: Path, route: Route, listeners: [string, Listener][]): void {
  const way = Array.isArray(route.auth) ? route.auth.findIndex((candidate) => candidate.tailnet !== undefined) : -1;
  if (way === -1 || !check.isSound(["listeners"]) || !check.isSound([...path, "listeners"])) return;
  const serving = listeners.filter(([name, listener]) => listener.protocol === "http" && (route.listeners?.includes(name) ?? true));
  const others = serving.filter(([, listener]) => tailnetPort(listener) === null).map(([name]) => `'${name}'`);
  const isOnlyWay = Array.isArray(route.auth) && route.auth.every((candidate) => candidate.tailnet !== undefined);
  if (others.length === 0 || (others.length < serving.length && !isOnlyWay)) return;
  const at = [...path, "auth", way, "tailnet"];
  const names = `${others.length === 1 ? "listener" : "listeners"} ${others.join(", ")}`;
  const remedy = "serve the route by one with 'listen: tailnet:PORT'";
  if (others.length < serving.length)
    check.warn(at, `Nobody comes in by 'tailnet' on ${names}, as ${others.length === 1 ? "it is" : "they are"} not on the tailnet`, "key");
  else if (isOnlyWay) check.report(at, `'tailnet' lets nobody in: ${names} ${others.length === 1 ? "is" : "are"} not on the tailnet; ${remedy}`, "key");
  else check.warn(at, `Nobody comes in by 'tailnet': ${names} ${others.length === 1 ? "is" : "are"} not on the tailnet; ${remedy}`, "key");
}

function checkPaths(check: CheckContext, path: Path, route: Route, sound: (key: keyof Route) => boolean): void {
  const [first, ...more] = (["path", "path_prefix", "path_regex"] as const).filter((key) => route[key] !== undefined);
  for (const key of more) check.report([...path, key], `Both '${first}' and '${key}' are given; a route has one of path, path_prefix and path_regex`, "key");
  // Other servers mean by it what path_prefix means.
  let hasStar = false;
  for (const key of ["path", "path_prefix", "strip_prefix"] as const) {
    const value = sound(key) ? (route[key] ?? "") : "";
    if (!value.endsWith("*")) continue;
    hasStar = true;
    const bare = check.text([...path, key], value).replace(/\/*\*+$/, "");
    check.report(
      [...path, key],
      `A '*' at the end stands for itself here; write ${key === "path" ? "path_prefix" : key}: ${quote(bare === "" ? "/" : bare).slice(1, -1)} instead`,
    );
  }
  for (const key of ["path_prefix", "strip_prefix"] as const) {
    const value = sound(key) ? (route[key] ?? "") : "";
    if (value.length > 1 && value.endsWith("/")) {
      check.report(
        [...path, key],
        `Leave the '/' at the end away: ${quote(check.text([...path, key], value).replace(/\/+$/, ""))} stands for itself and everything below it`,
      );
    }
  }
  if (hasStar || !sound("strip_prefix") || !check.isSound([...path, "path"]) || !check.isSound([...path, "path_prefix"])) return;
  const strip = (route.strip_prefix ?? "").replace(/(?<=.)\/+$/, "");
  const own = route.path ?? route.path_prefix;
  if (own === undefined) {
    check.report([...path, "strip_prefix"], "'strip_prefix' needs 'path' or 'path_prefix', so that every request of the route begins with it", "key");
  } else if (strip !== "/" && own !== strip && !own.startsWith(`${strip}/`)) {
    check.report(
      [...path, "strip_prefix"],
      `'strip_prefix' must be a beginning of ${quote(check.text([...path, route.path === undefined ? "path_prefix" : "path"], own))} that ends where a part ends`,
    );
  }
}

function whyNot(name: string, direction: "request" | "response"): string | null {
  const lower = name.toLowerCase();
  if (CONNECTION_HEADERS.includes(lower)) return "belongs to the connection or frames the message, which the gateway does by itself";
  if (direction === "response") return null;
  if (lower === "authorization") return "never passes from clients; 'authorization' of the upstream sets it";
  return FORWARDED_HEADERS.includes(lower) ? "is set by the gateway" : null;
}

function checkHeaders(check: CheckContext, path: Path, route: Route): void {
  checkNames(check, [...path, "headers"], route.headers, (name) =>
    name.toLowerCase() === "authorization" ? "is a credential; 'auth' says who may come in" : name.toLowerCase() === "host" ? "is matched by 'host'" : null,
  );
  checkNames(check, [...path, "set_headers"], route.set_headers, (name) => whyNot(name, "request"));
  for (const [name, value] of Object.entries(route.set_headers ?? {})) {
    const at = [...path, "set_headers", name];
    const isHost = typeof value !== "string" || parseDialAddress(/:\d+$/.test(value) ? value : `${value}:80`)?.kind === "tcp";
    if (name.toLowerCase() === "host" && !isHost && check.isSound(at)) check.report(at, "Header 'Host' must be a host name or address, with a port if need be");
  }
  checkRemoved(check, [...path, "remove_headers"], route.remove_headers, route.set_headers, (name) =>
    name.toLowerCase() === "host" ? "is needed by every request" : whyNot(name, "request"),
  );
  const { set, remove } = route.response_headers ?? {};
  checkNames(check, [...path, "response_headers", "set"], set, (name) => whyNot(name, "response"));
  checkRemoved(check, [...path, "response_headers", "remove"], remove, set, (name) => whyNot(name, "response"));
}

/** Checks the names of headers, also when some of the values are wrong. */
function checkNames(check: CheckContext, path: Path, headers: Readonly<Record<string, string>> | undefined, refuse: (name: string) => string | null): void {
  if (typeof headers !== "object" || headers === null || Array.isArray(headers)) return;
  const seen = new Set<string>();
  for (const name of Object.keys(headers)) {
    const reason = refuse(name) ?? (seen.has(name.toLowerCase()) ? "stands here twice: upper and lower case are the same" : null);
    if (reason !== null) check.report([...path, name], `Header ${quote(name)} ${reason}`, "key");
    seen.add(name.toLowerCase());
  }
}

function checkRemoved(check: CheckContext, path: Path, names: unknown, set: unknown, refuse: (name: string) => string | null): void {
  const alsoSet = new Set(Object.keys(set ?? {}).map((name) => name.toLowerCase()));
  for (const [at, name] of check.items(path, names)) {
    const reason = refuse(name) ?? (alsoSet.has(name.toLowerCase()) ? "is set and removed at once; setting alone replaces it" : null);
    if (reason !== null) check.report(at, `Header ${quote(check.text(at, name))} ${reason}`);
  }
}

function checkCors(check: CheckContext, path: Path, route: Route): void {
  const cors = route.cors;
  if (cors === undefined || !cors.origins.includes("*")) return;
  if (cors.origins.length > 1) check.report([...path, "origins"], 'The origin "*" is all of them; leave the others away', "key");
  if (cors.credentials)
    check.report([...path, "credentials"], "'credentials' would let every site act as its visitor; name the origins instead of \"*\"", "key");
}
