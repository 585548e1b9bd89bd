// Looks at certificates beside the routes: hosts that no certificate covers, and certificates that clients refuse or soon will.
import { Breather } from "../lib/breather.ts";
import { isCovered, isTailnetName, orderRules, whyNotOrdered } from "../lib/host-cover.ts";
import type { Placed } from "../lib/listener-hosts.ts";
import { knownChain } from "../lib/pem-memory.ts";
import type { CertificateFacts, Chain } from "../lib/pem.ts";
import { sharedServer } from "./auth-ways.ts";
import { routesOf } from "./check-acme.ts";
import type { CheckContext } from "./check-context.ts";
import { arePlacesSound, hostsBy } from "./check-hosts.ts";
import { type Path, quote, quoteFile } from "./problem.ts";
import { type TlsObject, filePairs, isTermination, tlsObjects } from "./tls-objects.ts";
import type { Tls, UpstreamEntry } from "./types.ts";

const SOON_MS = 7 * 24 * 3_600_000;

/**
 * Judges the certificates of a configuration whose files are read.
 * @param files texts by absolute path. @param now milliseconds since the epoch.
 */
export async function checkCover(check: CheckContext, files: ReadonlyMap<string, string>, now: number): Promise<void> {
  const breather = new Breather();
  const chains = new Map<string, Chain>();
  const judge = (path: Path, file: string | undefined): Chain | null => {
    const text = file === undefined ? undefined : files.get(file);
    const chain = text === undefined ? null : knownChain(text);
    if (file === undefined || chain === null || typeof chain === "string") return null;
    // A file that stands in several places is judged once.
    if (!chains.has(file)) for (const warning of warningsOf(chain, now)) check.warn(path, `File ${quoteFile(check.text(path, file))} ${warning}`);
    chains.set(file, chain);
    return chain;
  };
  for (const [name, entry] of check.entries<UpstreamEntry>("upstreams")) {
    if (typeof entry === "object" && entry !== null) judge(["upstreams", name, "cert_file"], entry.cert_file);
  }
  for (const object of tlsObjects(check)) {
    if (!isTermination(object.tls.mode)) continue;
    const pairs = filePairs(object);
    const read: Chain[] = [];
    for (const [path, pair] of pairs) {
      const chain = judge([...path, "cert_file"], pair.cert_file);
      if (chain !== null) read.push(chain);
      await breather.breathe();
    }
    // Of a file that cannot be read nobody knows what it covers.
    if (read.length === pairs.length) checkHosts(check, object, read);
  }
}

function time(date: Date): string {
  return `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** What is wrong with a chain that OpenSSL takes, as ends of the sentence "File 'x' ...". */
function warningsOf(chain: Chain, now: number): string[] {
  const what = ({ subject }: CertificateFacts, i: number): string => (i === 0 ? "a certificate" : `a certificate (number ${i + 1}, ${quote(subject)})`);
  const dates = chain.certificates.flatMap((certificate, i) => {
    const { notBefore, notAfter } = certificate;
    if (notAfter.getTime() <= now) return [`holds ${what(certificate, i)} that expired on ${time(notAfter)}: clients refuse it; replace it`];
    if (notBefore.getTime() > now)
      return [`holds ${what(certificate, i)} that is not valid before ${time(notBefore)}: clients refuse it until then, unless the clock here is wrong`];
    // As /ready has it: the last week of a certificate, or the last quarter of a short life.
    const soonMs = Math.min(SOON_MS, (notAfter.getTime() - notBefore.getTime()) / 4);
    return notAfter.getTime() <= now + soonMs ? [`holds ${what(certificate, i)} that expires on ${time(notAfter)}; renew it now`] : [];
  });
  return chain.gap === null ? dates : [...dates, chain.gap];
}

/** Compares the names by which clients come with what a listener has certificates for. */
function checkHosts(check: CheckContext, { path, tls, users }: TlsObject, chains: readonly Chain[]): void {
  const names = new Set(chains.flatMap((chain) => chain.names));
  const seen = new Set<string>();
  const server = sharedServer(check);
  const hostsAt = hostsBy(check);
  for (const user of users) {
    const [listener] = user;
    const placed: [Path, Placed][] = routesOf(check, [user]).map(([i, route]) => [["routes", i], route]);
    if (server !== null && user[1].protocol === "http") placed.unshift([["auth", "server"], server]);
    for (const [at, one] of placed) {
      const hosts = hostsAt(one, listener).filter(({ isCertain }) => isCertain);
      for (const { host, key } of hosts) {
        if (seen.has(`${listener}\0${host}`)) continue;
        seen.add(`${listener}\0${host}`);
        checkHost(check, [...at, key], key === "host" ? (one.host ?? host) : host, { listener, tls, isFor: path, names, chains });
      }
      if (hosts.length > 0 || one === server || seen.has(listener)) continue;
      seen.add(listener);
      if (arePlacesSound(check) && chains.length === 0 && !tls.internal && !tls.tailscale && tls.acme?.domains === undefined)
        check.warn(
          at,
          `Route has no 'host', and listener '${listener}' gets certificates from 'acme' alone: for hosts that no other route names there is none, so that clients cannot connect; give the route its 'host', or name the hosts in 'domains'`,
          "key",
        );
    }
  }
}

/** Whether another control server than Tailscale's, whose names can end in anything, may give the node this name. */
function isAskedName(check: CheckContext, host: string): boolean {
  const { control_url: controlUrl, hostname } = check.config.tailscale ?? {};
  return controlUrl !== undefined && hostname !== undefined && check.isSound(["tailscale"]) && host.startsWith(`${hostname}.`);
}

function checkHost(
  check: CheckContext,
  at: Path,
  written: string,
  { listener, tls, isFor, names, chains }: { listener: string; tls: Tls; isFor: Path; names: ReadonlySet<string>; chains: readonly Chain[] },
): void {
  const host = written.toLowerCase();
  // Below a wildcard some names may have a certificate, which is what it may be for.
  const covers = isCovered(host, names) || (host.startsWith("*.") && Array.from(names).some((name) => name.endsWith(host.slice(1))));
  // The node's own name is not known before it has joined.
  if (covers || tls.internal || (tls.tailscale && (isTailnetName(host) || isAskedName(check, host)))) return;
  const shown = quote(check.text(at, written));
  const place = `${isFor.length === 1 ? "" : `listeners.${listener}.`}tls`;
  if (tls.acme === undefined) {
    const first = chains[0]?.names[0];
    const instead = first === undefined ? "the node's own name" : quote(first);
    const told = `Host ${shown} is in no certificate of listener '${listener}': clients would be shown that of ${instead}, and refuse it`;
    const isOrdered = whyNotOrdered(host, orderRules({ directory: "letsencrypt" })) === null;
    check.warn(at, `${told}; add the files of one that has it to 'certificates' of '${place}'${isOrdered ? ", or let 'acme' there order one" : ""}`);
    return;
  }
  const reason = whyNotOrdered(host, orderRules(tls.acme));
  if (reason === null) return;
  const message = `Host ${shown} ${reason}; ${host.startsWith("*.") ? "or " : ""}give '${place}' a certificate file for it, or 'internal: true'`;
  // A 'public_url' is there to tell clients of the route: the listener may be for other names, so that one which no CA takes refuses no file.
  if (at[0] === "routes" && at.at(-1) === "public_url") check.warn(at, message);
  else check.report(at, message);
}
