// Checks listeners: addresses that collide, who reaches them, and what protects them.
import { type ListenPlace, collide, formatAddress, isLoopback, parseDialAddress, parseListenAddress } from "../lib/address.ts";
import { parseSizeBytes } from "../lib/duration.ts";
import { nearest } from "../lib/nearest.ts";
import { isNeighbour } from "../lib/target.ts";
import { sharedServer } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import { checkTls } from "./check-tls.ts";
import { upstreamKind } from "./check-upstreams.ts";
import { type Path, quote } from "./problem.ts";
import { excludeOneAnother, isUserspace } from "./tailnet-listeners.ts";
import type { HttpListener, Listener, Route, TcpListener } from "./types.ts";

export function checkListeners(check: CheckContext): void {
  const listeners = check.entries<Listener>("listeners");
  checkAddresses(check, listeners);
  const isHttp = listeners.some(([, listener]) => listener?.protocol === "http");
  if (check.config.tls !== undefined && !isHttp && listeners.length > 0)
    check.report(["tls"], "'tls' at the top is for HTTP listeners, and there is none; a TCP listener takes its own 'tls'", "key");
  checkTls(check);
  for (const [name, listener] of listeners) {
    const path = ["listeners", name];
    if (typeof listener !== "object" || listener === null) continue;
    if (!check.isSound([...path, "protocol"])) continue;
    if (listener.protocol === "http") checkHttp(check, path, listener);
    else checkTcp(check, path, listener);
  }
}

function checkAddresses(check: CheckContext, listeners: [string, Listener][]): void {
  const taken: { readonly owner: string; readonly address: ListenPlace }[] = [];
  if (check.isSound(["admin"])) {
    const admin = parseListenAddress(check.config.admin.listen);
    if (admin !== null) {
      if (!isLoopback(admin))
        check.report(["admin", "listen"], "The admin interface has no login: it listens on loopback (127.0.0.1:2019) or a unix socket alone");
      taken.push({ owner: "the admin interface", address: admin });
    }
  }
  for (const [name, listener] of listeners) {
    const path = ["listeners", name, "listen"];
    const address = check.isSound(path) && typeof listener === "object" ? parseListenAddress(listener.listen ?? "") : null;
    if (address === null) continue;
    const other = taken.find((entry) => excludeOneAnother(check, entry.address, address));
    if (other !== undefined) {
      const both = formatAddress(other.address) === formatAddress(address) ? "" : ` (${formatAddress(other.address)})`;
      const isMixed = (other.address.kind === "tailnet") !== (address.kind === "tailnet");
      const reason = isUserspace(check)
        ? "tailscaled brings the connections of a port of the tailnet to the same port of 127.0.0.1"
        : "all interfaces include that of the tailnet";
      const why = isMixed ? `: ${reason}; take another port` : "";
      check.report(path, `Address ${quote(check.text(path, listener.listen))} is already taken by ${other.owner}${both}${why}`);
    }
    taken.push({ owner: `listener '${name}'`, address });
  }
}

function checkHttp(check: CheckContext, path: Path, listener: HttpListener): void {
  const size = check.isSound([...path, "max_header_size"]) ? parseSizeBytes(listener.max_header_size) : null;
  if (size !== null && (size < 1024 || size > 65_536)) check.report([...path, "max_header_size"], "'max_header_size' must be from 1KiB to 64KiB");

  const address = check.isSound([...path, "listen"]) ? parseListenAddress(listener.listen) : null;
  // The tailnet is encrypted by itself.
  if (address === null || isLoopback(address) || address.kind === "tailnet" || listener.insecure || !check.isSound([...path, "insecure"])) return;
  const tlsPath = listener.tls === undefined ? ["tls"] : [...path, "tls"];
  const mode = check.isSound(tlsPath) ? ((listener.tls ?? check.config.tls)?.mode ?? "disabled") : "unknown";
  const name = String(path.at(-1));
  // Who is redirected is served nothing over plain HTTP.
  if (mode !== "disabled" || listener.redirect_to_https) return;
  const what = credentialsOf(check, name);
  if (what === null) return;
  check.report(
    [...path, "listen"],
    `Listener '${name}' would take ${what} over plain HTTP from other machines; give it 'tls' ('mode: behind_proxy' where a proxy ends it), listen on 127.0.0.1, or say 'insecure: true'`,
  );
}

/** What clients would send to an HTTP listener that nobody else should see; null when that is nothing. */
function credentialsOf(check: CheckContext, name: string): string | null {
  const ways = routesOf(check, name).flatMap(({ auth }) => (Array.isArray(auth) ? auth : []));
  // The server that all share is on every listener.
  const isLogin = ways.some((way) => way?.oauth !== undefined || way?.session !== undefined) || sharedServer(check) !== null;
  if (isLogin) return check.config.auth?.login?.password === undefined ? "logins and tokens" : "passwords and tokens";
  return ways.length > 0 ? "tokens" : null;
}

/** The routes that an HTTP listener serves, as far as they are sound. */
function routesOf(check: CheckContext, listener: string): Route[] {
  const routes: unknown = check.config.routes;
  if (!Array.isArray(routes)) return [];
  return (routes as Route[]).filter(
    (route, i) =>
      check.isSound(["routes", i, "auth"]) &&
      check.isSound(["routes", i, "listeners"]) &&
      route.auth !== undefined &&
      (route.listeners?.includes(listener) ?? true),
  );
}

function checkTcp(check: CheckContext, path: Path, listener: TcpListener): void {
  const address = check.isSound([...path, "listen"]) ? parseListenAddress(listener.listen ?? "") : null;
  if (address !== null && !isLoopback(address) && address.kind !== "tailnet" && listener.allow === undefined && check.isSound([...path, "allow"])) {
    check.report(
      [...path, "listen"],
      "A TCP listener that other machines reach needs 'allow': the addresses or networks that may connect; 'listen: tailnet:PORT' lets the tailnet in alone",
    );
  }
  if (check.isSound([...path, "upstream"]) && listener.upstream !== undefined) checkTcpUpstream(check, path, listener, address);
  const health = listener.health;
  if (typeof health === "object" && health !== null && check.isSound([...path, "health"])) {
    if (health.check === "ib_session" && health.client_id === undefined) {
      check.report([...path, "health"], "The check 'ib_session' needs 'client_id': a number that no client uses", "key");
    } else if (health.check !== "ib_session" && health.client_id !== undefined) {
      check.report([...path, "health", "client_id"], `'client_id' is for the check 'ib_session'; '${health.check}' takes none`, "key");
    }
  } else if (health === "ib_session" && check.isSound([...path, "health"])) {
    check.report(
      [...path, "health"],
      "The check 'ib_session' needs 'client_id': write health: { check: ib_session, client_id: 999 } with a number that no client uses",
    );
  }
}

function checkTcpUpstream(check: CheckContext, path: Path, listener: TcpListener, address: ListenPlace | null): void {
  const at = [...path, "upstream"];
  const shown = check.text(at, listener.upstream);
  const dial = parseDialAddress(listener.upstream);
  if (dial === null) {
    const entries = check.entries<string>("upstreams");
    const entry = entries.find(([name]) => name === listener.upstream)?.[1];
    const meant = nearest(
      listener.upstream,
      entries.map(([name]) => name),
    );
    if (entry === undefined) {
      check.report(
        at,
        `Unknown upstream ${quote(shown)}; ${meant === null ? "write host:port, unix:/path or the name of an entry of 'upstreams'" : `did you mean '${meant}'?`}`,
      );
    } else if (check.isSound(["upstreams", listener.upstream]) && upstreamKind(entry) === "http") {
      check.report(at, `Upstream ${quote(shown)} has HTTP targets; a TCP listener needs tcp:// or unix: ones`);
    }
    if (listener.remote) check.report([...path, "remote"], "'remote' belongs to the entry of 'upstreams' that is named here", "key");
    return;
  }
  if (!listener.remote && !isNeighbour(dial) && check.isSound([...path, "remote"])) {
    check.report(at, `Upstream ${quote(shown)} is neither loopback, a unix socket nor a single-label host name; 'remote: true' allows it`);
  }
  const isSelf =
    dial.kind === "unix" ? address?.kind === "unix" && address.path === dial.path : isLoopback(dial) && address?.kind === "tcp" && collide(address, dial);
  if (isSelf) check.report(at, `Upstream ${quote(shown)} is the address of this listener itself: its connections would go round in a circle`);
}
