// Checks upstreams: targets of one kind, nothing far away unless said, no setting that would do nothing.
import { isNeighbour, parseTarget } from "../lib/target.ts";
import type { CheckContext } from "./check-context.ts";
import { type Path, quote } from "./problem.ts";
import type { Listener, Route, UpstreamEntry } from "./types.ts";

/** What may use an upstream: HTTP routes, TCP listeners, or (unix sockets) both. */
export type UpstreamKind = "http" | "tcp" | "either";

const HTTPS_ONLY = ["ca_file", "server_name", "cert_file", "key_file", "insecure_skip_verify"] as const;
const HTTP_ONLY = [...HTTPS_ONLY, "authorization", "authorization_file", "max_connections", "health", "timeouts"] as const;

/** The kind of an entry of `upstreams`, by its first target that says. */
export function upstreamKind(entry: UpstreamEntry): UpstreamKind {
  const schemes = (typeof entry === "string" ? [entry] : entry.targets).map((text) => parseTarget(text)).map((parsed) => (parsed.ok ? parsed.scheme : "unix"));
  const telling = schemes.find((scheme) => scheme !== "unix");
  return telling === undefined ? "either" : telling === "tcp" ? "tcp" : "http";
}

/** The sentence for a target that is not a neighbour; null when it is one. */
export function farAway(text: string, shown: string, remedy: string): string | null {
  const parsed = parseTarget(text);
  if (!parsed.ok || isNeighbour(parsed.address)) return null;
  return `Target ${quote(shown)} is neither loopback, a unix socket nor a single-label host name; ${remedy}`;
}

export function checkUpstreams(check: CheckContext): void {
  for (const [name, entry] of check.entries<UpstreamEntry>("upstreams")) {
    const path = ["upstreams", name];
    if (name === "none") check.report(path, "'upstream: none' means that a route forwards nothing; give this upstream another name", "key");
    if (typeof entry === "string" && check.isSound(path)) {
      const far = farAway(entry, check.text(path, entry), "write it as 'targets' of an object with 'remote: true' if it is meant");
      if (far !== null) check.report(path, far);
    } else if (typeof entry === "object" && check.isSound([...path, "targets"])) {
      checkTargets(check, path, entry);
      checkUpstreamTls(check, path, entry);
    }
  }
}

function checkTargets(check: CheckContext, path: Path, entry: Exclude<UpstreamEntry, string>): void {
  const schemes = new Map<string, string>();
  for (const [i, text] of entry.targets.entries()) {
    const at = [...path, "targets", i];
    const parsed = parseTarget(text);
    if (!parsed.ok) continue;
    const far = entry.remote || !check.isSound([...path, "remote"]) ? null : farAway(text, check.text(at, text), "'remote: true' allows it");
    if (far !== null) check.report(at, far);
    // A unix socket speaks plain HTTP or plain TCP.
    const [first] = schemes.keys();
    const fits =
      first === undefined ||
      first === parsed.scheme ||
      [first, parsed.scheme].every((scheme) => ["unix", "http"].includes(scheme) || ["unix", "tcp"].includes(scheme));
    const mixed = !fits || (schemes.has("http") && parsed.scheme === "tcp") || (schemes.has("tcp") && parsed.scheme === "http");
    if (mixed)
      check.report(
        at,
        `Target ${quote(check.text(at, text))} is ${parsed.scheme}, but ${quote(schemes.get(first ?? "") ?? "")} is ${first}; the targets of an upstream have one scheme`,
      );
    else schemes.set(parsed.scheme, check.text(at, text));
  }
  const kind = upstreamKind(entry);
  if (kind === "tcp" || (kind === "either" && isForTcpAlone(check, String(path.at(-1))))) {
    for (const key of HTTP_ONLY) {
      if (!check.isWritten([...path, key])) continue;
      const remedy = key === "health" || key === "timeouts" ? "; the TCP listener has its own" : "";
      check.report(
        [...path, key],
        `'${key}' is for HTTP upstreams, but ${kind === "tcp" ? "the targets are tcp" : "only TCP listeners use this one"}${remedy}`,
        "key",
      );
    }
  } else if (schemes.size > 0 && !schemes.has("https")) {
    for (const key of HTTPS_ONLY) {
      if (check.isWritten([...path, key]) && entry[key] !== false) check.report([...path, key], `'${key}' does nothing: no target is https`, "key");
    }
  }
}

function checkUpstreamTls(check: CheckContext, path: Path, entry: Exclude<UpstreamEntry, string>): void {
  if (entry.cert_file !== undefined && entry.key_file === undefined && check.isSound([...path, "key_file"]))
    check.report([...path, "cert_file"], "'cert_file' needs its 'key_file'", "key");
  if (entry.key_file !== undefined && entry.cert_file === undefined && check.isSound([...path, "cert_file"]))
    check.report([...path, "key_file"], "'key_file' needs its 'cert_file'", "key");
  if (entry.insecure_skip_verify && check.isSound([...path, "insecure_skip_verify"]))
    check.warn(
      [...path, "insecure_skip_verify"],
      "Whoever is between here and the targets can read and change everything; name their CA in 'ca_file' instead",
      "key",
    );
  if (entry.insecure_skip_verify && entry.ca_file !== undefined && check.isSound([...path, "insecure_skip_verify"]))
    check.report(
      [...path, "insecure_skip_verify"],
      "'insecure_skip_verify' takes any certificate, so that 'ca_file' does nothing; take one of them away",
      "key",
    );
}

/** Whether TCP listeners use the upstream and no route does: a unix socket then speaks plain TCP. */
function isForTcpAlone(check: CheckContext, name: string): boolean {
  const routes: unknown = check.config.routes;
  const isRouted = !Array.isArray(routes) || (routes as (Route | null)[]).some((route) => route?.upstream === name);
  return !isRouted && check.entries<Listener>("listeners").some(([, listener]) => listener?.protocol === "tcp" && listener.upstream === name);
}
