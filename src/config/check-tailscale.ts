// Checks what concerns the tailnet: the `tailscale` section, whom its listeners admit, and ports that tailscaled's way of bringing connections takes.
import { AddressSet, collide, parseDialAddress, parseListenAddress, parseNetwork } from "../lib/address.ts";
import { type FlagKey, parseTailscaleFlags } from "../lib/tailscale-flags.ts";
import { isNeighbour, parseTarget } from "../lib/target.ts";
import type { CheckContext } from "./check-context.ts";
import { type Path, quote } from "./problem.ts";
import { isUserspace, tailnetListeners, tailnetPort } from "./tailnet-listeners.ts";
import { OWN_KEYS, saysOwn } from "./tailscale-env.ts";
import { isTermination, tlsOf } from "./tls-objects.ts";
import type { Listener, Route, TailnetMatch, UpstreamEntry } from "./types.ts";

const LOOPBACK = ["127.0.0.0/8", "::1/128"];
// Of Tailscale, and of headscale, which takes parts of them alone.
const TAILNET = ["100.64.0.0/10", "fd7a:115c:a1e0::/48"];

export function checkTailscale(check: CheckContext): void {
  checkSection(check);
  for (const [name, listener] of check.entries<Listener>("listeners")) {
    if (typeof listener !== "object" || listener === null || !check.isSound(["listeners", name, "listen"])) continue;
    checkAllow(check, ["listeners", name], listener);
    if (check.isSound(["listeners", name]) && check.isSound(["tls"])) checkCertificate(check, name, listener);
  }
  if (isUserspace(check)) checkUpstreams(check);
  checkUsers(check);
}

function checkSection(check: CheckContext): void {
  const { tailscale } = check.config;
  if (typeof tailscale !== "object" || tailscale === null) return;
  const at = (key: string): Path => ["tailscale", key];
  if (tailscale.socket !== undefined && check.isSound(at("socket"))) {
    for (const key of OWN_KEYS) {
      if (saysOwn(check, key))
        check.report(at(key), `'${key}' contradicts 'socket': that tailscaled has settings of its own, which are never changed; take one of them away`, "key");
    }
  }
  checkArgs(check, at("extra_args"), tailscale.extra_args);
  if (tailscale.control_url !== undefined && check.isSound(at("control_url"))) checkControlUrl(check, at("control_url"), tailscale.control_url);
  if (check.isWritten(at("seal")) && tailscale.seal === false && isUserspace(check)) {
    const remedy = "let the tailnet's policy say who may reach which port, or leave 'seal' away";
    check.warn(at("seal"), `Whatever else listens on this machine's localhost is open to the tailnet; ${remedy}`, "key");
  }
  if (check.isWritten(["tailscale"]) && check.isSound(["listeners"]) && tailnetListeners(check).length === 0 && !hasNodeCertificate(check))
    check.warn(["tailscale"], "The gateway joins the tailnet, but nothing listens there; give a listener 'listen: tailnet:PORT'", "key");
}

function hasNodeCertificate(check: CheckContext): boolean {
  return check.entries<Listener>("listeners").some(([, listener]) => tlsOf(check, listener)?.tailscale === true);
}

const KEYS: Readonly<Record<FlagKey, string>> = {
  hostname: "'hostname'",
  tags: "'tags'",
  auth_key: "'auth_key' or 'auth_key_file'",
  control_url: "'control_url'",
  accept_dns: "'accept_dns'",
  timeout: "'timeout'",
};

function checkArgs(check: CheckContext, path: Path, args: unknown): void {
  if (!check.isWritten(path) || !Array.isArray(args) || !check.isSound(path)) return;
  const { problems, keys, idle } = parseTailscaleFlags(args as string[]);
  const own = keys.map(({ index, flag, key }) => ({ index, message: `'--${flag}' has a key of its own: write ${KEYS[key]} beside 'extra_args'` }));
  const needless = idle.map(({ index, message }) => ({ index, message: `${message}; leave it away` }));
  for (const { index, message } of [...problems, ...own, ...needless]) check.report([...path, index], message);
}

function checkControlUrl(check: CheckContext, path: Path, text: string): void {
  const url = URL.parse(text);
  if (url?.protocol !== "http:") return;
  const address = parseDialAddress(`${url.hostname}:1`);
  if (address !== null && isNeighbour(address)) return;
  check.warn(path, "Over http whoever is between here and the control server can pose as it, and hand out the tailnet; write https where the server has it");
}

/** What a key that is known at last must have beside it. After the files of secrets are read. */
export function checkAuthKey(check: CheckContext): void {
  const { tailscale } = check.config;
  if (typeof tailscale !== "object" || tailscale === null || !check.isSound(["tailscale"])) return;
  const key = (["auth_key", "auth_key_file"] as const).find((name) => check.isWritten(["tailscale", name]));
  if (tailscale.auth_key?.startsWith("tskey-client-") === true && tailscale.tags.length === 0) {
    const message = "is an OAuth client secret (tskey-client-...), which makes keys for tagged nodes alone";
    if (key === undefined) check.reportOutside(`The auth key of the environment ${message}; name the tags in 'tailscale: { tags: [tag:trading] }'`);
    else check.report(["tailscale", key], `The auth key ${message}; name those of this node in 'tags'`, "key");
  }
  if (tailscale.ephemeral && tailscale.auth_key === undefined)
    check.warn(["tailscale", "ephemeral"], "The node logs out at each stop, and without 'auth_key' somebody must log in by a browser at each start", "key");
}

function checkAllow(check: CheckContext, path: Path, listener: Listener): void {
  const { allow } = listener;
  const at = [...path, "allow"];
  if (allow === undefined || !check.isSound(at)) return;
  const name = String(path.at(-1));
  if (!Array.isArray(allow)) {
    if (tailnetPort(listener) !== null) return;
    const address = parseListenAddress(listener.listen);
    const port = address?.kind === "tcp" && address.port !== 0 ? String(address.port) : "PORT";
    check.report(
      [...at, "tailnet"],
      `Listener '${name}' is not on the tailnet and cannot know who of it calls; write 'listen: tailnet:${port}', or list addresses in 'allow'`,
      "key",
    );
    return;
  }
  if (tailnetPort(listener) === null) return;
  const proxies: unknown = check.config.trusted_proxies;
  const tellsClients = listener.protocol === "http" && !(Array.isArray(proxies) && proxies.length === 0 && check.isSound(["trusted_proxies"]));
  for (const [item, text] of check.items(at, allow)) {
    const reason = "clients have addresses of the tailnet there, within 100.64.0.0/10 and fd7a:115c:a1e0::/48";
    const remedy = "name people, tags or nodes: allow: { tailnet: { users: [alice@example.com] } }";
    const sentence = `Network ${quote(check.text(item, text))} admits nobody to a 'tailnet:' listener: ${reason}; ${remedy}`;
    if (overlaps(text, LOOPBACK) && !overlaps(text, TAILNET)) check.report(item, sentence);
    else if (!overlaps(text, TAILNET) && !tellsClients) check.warn(item, sentence);
  }
}

/** Whether a network has addresses in common with one of the others. */
function overlaps(text: string, others: readonly string[]): boolean {
  const address = parseNetwork(text)?.address ?? "";
  const set = new AddressSet([text]);
  return new AddressSet(others).has(address) || others.some((other) => set.has(parseNetwork(other)?.address ?? ""));
}

/** The certificate of the node's name is for clients that come over the tailnet. */
function checkCertificate(check: CheckContext, name: string, listener: Listener): void {
  const tls = tlsOf(check, listener);
  if (tls?.tailscale !== true || !isTermination(tls.mode) || tailnetPort(listener) !== null) return;
  const at: Path = listener.tls === undefined ? ["tls", "tailscale"] : ["listeners", name, "tls", "tailscale"];
  if (check.config.tailscale === undefined) {
    check.report(at, "'tailscale: true' needs the tailnet: listen on it, as 'listen: tailnet:443', or give the section 'tailscale'", "key");
  } else if (isUserspace(check) && check.config.tailscale.seal !== false && listener.tls !== undefined) {
    check.warn(at, `The node's name leads to the tailnet, which does not reach listener '${name}'; write 'listen: tailnet:443'`, "key");
  }
}

/** Each address that is dialled, with its place: upstreams of TCP listeners, of routes, and the targets of entries. */
function dialled(check: CheckContext): [Path, string][] {
  const found: [Path, string][] = [];
  for (const [name, entry] of check.entries<UpstreamEntry>("upstreams")) {
    const path = ["upstreams", name];
    if (typeof entry === "string") found.push([path, entry]);
    else if (typeof entry === "object" && entry !== null) found.push(...check.items([...path, "targets"], entry.targets));
  }
  for (const [name, listener] of check.entries<Listener>("listeners")) {
    if (listener?.protocol === "tcp" && typeof listener.upstream === "string") found.push([["listeners", name, "upstream"], `tcp://${listener.upstream}`]);
  }
  const routes: unknown = check.config.routes;
  for (const [i, route] of Array.isArray(routes) ? (routes as (Route | null)[]).entries() : []) {
    if (typeof route?.upstream === "string") found.push([["routes", i, "upstream"], route.upstream]);
  }
  return found.filter(([path]) => check.isSound(path));
}

/** In userspace tailscaled brings the connections of a port to the same port of 127.0.0.1: no service can be there. */
function checkUpstreams(check: CheckContext): void {
  const listeners = tailnetListeners(check);
  const ports = new Set(listeners.map(([, , port]) => port));
  for (const [path, text] of dialled(check)) {
    const target = parseTarget(text);
    const address = target.ok ? target.address : null;
    if (address?.kind !== "tcp") continue;
    const taken = listeners.find(([, , port]) => collide({ kind: "tailnet", port }, address));
    if (taken === undefined) continue;
    let free = address.port;
    do free = free > 65_533 ? 1_024 : free + 2;
    while (ports.has(free));
    const shown = quote(check.text(path, text.replace(/^tcp:\/\//, "")));
    check.report(
      path,
      `Upstream ${shown} is where listener '${taken[0]}' itself listens: tailscaled brings the connections of tailnet:${address.port} to 127.0.0.1:${address.port}; ` +
        `give the listener another port, as 'listen: tailnet:${free}'`,
    );
  }
}

/** headscale alone has login names that are single words. */
function checkUsers(check: CheckContext): void {
  const { tailscale } = check.config;
  if (tailscale?.control_url !== undefined || tailscale?.socket !== undefined) return;
  const matches: [Path, TailnetMatch | undefined][] = check
    .entries<Listener>("listeners")
    .map(([name, listener]) => [
      ["listeners", name, "allow", "tailnet"],
      listener?.allow === undefined || Array.isArray(listener.allow) ? undefined : listener.allow?.tailnet,
    ]);
  const routes: unknown = check.config.routes;
  for (const [i, route] of Array.isArray(routes) ? (routes as (Route | null)[]).entries() : []) {
    const ways: unknown = route?.auth;
    if (Array.isArray(ways))
      for (const [j, way] of (ways as Exclude<Route["auth"], "none">).entries()) matches.push([["routes", i, "auth", j, "tailnet"], way?.tailnet]);
  }
  for (const [path, match] of matches) {
    for (const [at, user] of check.items([...path, "users"], match?.users)) {
      if (user.includes("@")) continue;
      const remedy = "write alice@example.com, or alice@github for a login by GitHub; a word alone is one of headscale, which needs 'control_url'";
      check.report(at, `User ${quote(check.text(at, user))} is no login name of Tailscale; ${remedy}`);
    }
  }
}
