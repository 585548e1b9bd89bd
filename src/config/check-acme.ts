// Checks `acme`: names that a CA can be asked for, and a challenge that can be answered.
import { isLoopback, parseListenAddress } from "../lib/address.ts";
import { orderRules, whyNotOrdered } from "../lib/host-cover.ts";
import { sharedServer } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import { arePlacesSound, hostsBy } from "./check-hosts.ts";
import { type Path, quote } from "./problem.ts";
import { type TlsObject, isTermination, modeOf } from "./tls-objects.ts";
import type { Acme, Listener, Route } from "./types.ts";

// Let's Encrypt and most CAs refuse longer lists.
const MAX_NAMES = 100;

/** The routes that a listener of the object serves, as far as they are sound, with their places. */
export function routesOf(check: CheckContext, users: TlsObject["users"]): [number, Route][] {
  const routes: unknown = check.config.routes;
  if (!Array.isArray(routes)) return [];
  const names = users.filter(([, listener]) => listener.protocol === "http").map(([name]) => name);
  return [...(routes as Route[]).entries()].filter(
    ([i, route]) => names.length > 0 && check.isSound(["routes", i]) && (route.listeners === undefined || route.listeners.some((name) => names.includes(name))),
  );
}

export function checkAcme(check: CheckContext, object: TlsObject): void {
  const { tls, users } = object;
  const acme = tls.acme;
  if (acme === undefined) return;
  const path = [...object.path, "acme"];
  checkDns(check, path, acme);
  if (check.isSound(["listeners"]) && check.isSound(["tls"])) checkChallenges(check, path, acme);
  checkDomains(check, path, acme);
  if (acme.domains !== undefined || users.length === 0) return;
  if (users.some(([, listener]) => listener.protocol === "tcp")) {
    check.report(path, "'acme' on a TCP listener needs 'domains': no routes say for which names it is", "key");
  } else if (check.isSound(["routes"]) && check.isSound(["auth", "server"]) && arePlacesSound(check) && !hasHosts(check, acme, users)) {
    const remedy = "give the routes their 'host', or name the hosts in 'domains'";
    const told = `'acme' has nothing to order: no route ${users.length === 1 ? "of this listener " : ""}has a 'host'`;
    check.report(path, `${told}${otherPort(check, acme, users)}; ${remedy}`, "key");
  }
}

/** Of a route whose 'public_url' would say a name if it had the port of its listener: that, as a part of the sentence. */
function otherPort(check: CheckContext, acme: Acme, users: TlsObject["users"]): string {
  const rules = orderRules(acme);
  for (const user of users) {
    const address = parseListenAddress(user[1].listen);
    if (address?.kind !== "tcp" || address.port === 0) continue;
    for (const [i, { host, public_url: publicUrl, upstream }] of routesOf(check, [user])) {
      const url = publicUrl === undefined || host !== undefined || upstream === "none" ? null : URL.parse(publicUrl);
      if (url?.protocol !== "https:" || whyNotOrdered(url.hostname, rules) !== null) continue;
      const asked = url.port === "" ? 443 : Number(url.port);
      if (asked === address.port) continue;
      return `, and the 'public_url' of routes[${i}] is on port ${asked}, while listener '${user[0]}' is on port ${address.port}: one on that port would count`;
    }
  }
  return "";
}

/** Whether clients surely come to one of the listeners by a name; by that of a 'public_url' alone the CA must take it, too: of a host, it is told. */
function hasHosts(check: CheckContext, acme: Acme, users: TlsObject["users"]): boolean {
  const hostsAt = hostsBy(check);
  const rules = orderRules(acme);
  const server = sharedServer(check);
  return users.some(
    ([name]) =>
      (server !== null && hostsAt(server, name).some(({ isCertain }) => isCertain)) ||
      routesOf(check, users).some(([, route]) =>
        hostsAt(route, name).some(({ host, key, isCertain }) => isCertain && (key === "host" || whyNotOrdered(host, rules) === null)),
      ),
  );
}

function checkDns(check: CheckContext, path: Path, acme: Acme): void {
  const { challenge, dns } = acme;
  if (challenge === "dns-01" && dns === undefined) {
    const ways = "dns: { provider: cloudflare, api_token_file: ... } or dns: { provider: exec, command: [...] }";
    check.report([...path, "challenge"], `The challenge 'dns-01' needs 'dns', which says how records are set: ${ways}`);
  }
  if (challenge !== undefined && challenge !== "dns-01" && dns !== undefined)
    check.report([...path, "dns"], `'dns' does nothing with 'challenge: ${challenge}'; take one of them away`, "key");
  if (dns?.provider === "cloudflare") {
    const url = URL.parse(dns.api_url);
    const host = url?.hostname.replace(/^\[(.*)\]$/, "$1") ?? null;
    if (url?.protocol === "http:" && !isLoopback({ kind: "tcp", host }))
      check.report([...path, "dns", "api_url"], "The API must be asked over https: its token would cross the network unencrypted");
  }
}

type Challenge = "http-01" | "tls-alpn-01";

/** What the listeners of the file can answer. */
function answerable(check: CheckContext, acme: Acme): Challenge[] {
  const found = new Set<Challenge>();
  for (const [, listener] of check.entries<Listener>("listeners")) {
    const address = parseListenAddress(listener.listen);
    const port = address?.kind === "tcp" ? address.port : 0;
    const mode = modeOf(check, listener);
    if (port === acme.https_port && isTermination(mode)) found.add("tls-alpn-01");
    if (port === acme.http_port && listener.protocol === "http" && mode !== "application") found.add("http-01");
  }
  return [...found];
}

function checkChallenges(check: CheckContext, path: Path, acme: Acme): void {
  const { challenge, dns, http_port, https_port } = acme;
  const can = answerable(check, acme);
  const mapped = (key: "http_port" | "https_port"): string =>
    check.isWritten([...path, key]) ? "" : `; where ${acme[key]} is mapped to another port, write that one as '${key}'`;
  if (challenge === "http-01" && !can.includes("http-01")) {
    const message = `The challenge 'http-01' needs an HTTP listener on port ${http_port} that takes plain HTTP (no 'tls', 'mode: disabled' or 'mode: auto')`;
    check.report([...path, "challenge"], message + mapped("http_port"));
  } else if (challenge === "tls-alpn-01" && !can.includes("tls-alpn-01")) {
    const message = `The challenge 'tls-alpn-01' needs a listener on port ${https_port} that speaks TLS`;
    check.report([...path, "challenge"], message + mapped("https_port"));
  } else if (challenge === undefined && dns === undefined && can.length === 0) {
    const isTailnet = check.entries<Listener>("listeners").some(([, listener]) => listener.listen.startsWith("tailnet:"));
    const remark = isTailnet ? ". No CA reaches the tailnet; for the node's own name there write 'tailscale: true' instead" : "";
    check.report(
      path,
      `'acme' cannot prove that names are yours. Three ways out: let a listener speak TLS on port ${https_port} ('https_port', for tls-alpn-01); ` +
        `add an HTTP listener for plain HTTP on port ${http_port} ('http_port', for http-01); or give 'dns' (for dns-01)${remark}`,
      "key",
    );
  }
}

function checkDomains(check: CheckContext, path: Path, acme: Acme): void {
  const seen = new Map<string, string>();
  const rules = orderRules(acme);
  for (const [i, entry] of (acme.domains ?? []).entries()) {
    const at = [...path, "domains", i];
    const names = typeof entry === "string" ? [[at, entry] as const] : check.items(at, entry);
    if (names.length > MAX_NAMES)
      check.report(at, `A certificate has at most ${MAX_NAMES} names, and here are ${names.length}; make several lists of them`, "key");
    for (const [place, text] of names) {
      const name = text.toLowerCase();
      const shown = quote(check.text(place, text));
      const first = seen.get(name);
      if (first === undefined) seen.set(name, typeof entry === "string" ? `domains[${i}]` : `domains[${i}][${place.at(-1)}]`);
      else check.report(place, `Name ${shown} stands already in ${first}`);
      const reason = whyNotOrdered(name, rules);
      if (reason !== null) check.report(place, `Name ${shown} ${reason}`);
    }
  }
}
