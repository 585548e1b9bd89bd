// Certificates of the local CA, issued when a client first asks for their name.
import { hostname, networkInterfaces } from "node:os";
import { isHostName, plainIp } from "../lib/address.ts";
import { wildcardOf } from "../lib/host-cover.ts";
import type { InternalCa } from "./internal-ca.ts";
import type { CertificateSource, ServerCertificate } from "./source.ts";

/** A third of the life of a leaf before its end. */
const RENEW_BEFORE_MS = 30 * 86_400_000;

/**
 * Answers for the hosts that the file names and for nothing else, so that a client cannot make us issue without limit; everybody else
 * gets the certificate of this machine: localhost, its loopback and listen addresses, its host name, and what it is called in the tailnet.
 * @param hosts exact and `*.example.com`; a wildcard covers one label, as in every certificate.
 * @param listenHost host of the listen address; null for all interfaces.
 * @param tailnetNames names and addresses of the node, lower case, asked in every handshake: a change gives another certificate. None for a listener elsewhere.
 */
export function createInternalSource(
  ca: InternalCa,
  hosts: Iterable<string>,
  listenHost: string | null,
  tailnetNames: () => readonly string[],
  now: () => number = Date.now,
): CertificateSource {
  const machine = machineNames(listenHost);
  let [own, known] = [machine, ""];
  const allowed = new Map<string, readonly string[]>();
  for (const host of hosts) allowed.set(host, [host]);
  const issued = new Map<readonly string[], ServerCertificate>();

  const issue = (names: readonly string[]): ServerCertificate => {
    const present = issued.get(names);
    // Not the CA's own end, which no renewal can pass.
    const endMs = present?.info.notAfter?.getTime() ?? 0;
    if (present !== undefined && (endMs - RENEW_BEFORE_MS > now() || endMs >= ca.notAfter.getTime())) return present;
    const certificate = ca.issue(names, now());
    issued.set(names, certificate);
    return certificate;
  };
  const ownNames = (): readonly string[] => {
    const names = tailnetNames();
    const key = names.join(" ");
    if (key === known) return own;
    issued.delete(own);
    [own, known] = [[...new Set([...machine, ...names])], key];
    return own;
  };
  // Proves before the configuration serves that the CA can sign.
  issue(ownNames());

  return {
    get(serverName) {
      const present = ownNames();
      const names = present.includes(serverName) ? present : (allowed.get(serverName) ?? allowed.get(wildcardOf(serverName)));
      return names === undefined ? null : issue(names);
    },
    fallback: () => issue(ownNames()),
    // One that nobody asked for until it was due is renewed here, so that it is never shown as expired.
    list: () => [...new Set([ownNames(), ...issued.keys()])].map((names) => issue(names).info),
  };
}

function machineNames(listenHost: string | null): readonly string[] {
  const names = new Set(["localhost", "127.0.0.1", "::1"]);
  const host = hostname().toLowerCase();
  if (isHostName(host)) names.add(host);
  const everywhere = listenHost === null || listenHost === "0.0.0.0" || listenHost === "::";
  if (!everywhere) names.add(listenHost.toLowerCase());
  // Link-local addresses mean nothing without their zone, which no certificate holds.
  else
    for (const entry of Object.values(networkInterfaces()).flat())
      if (entry !== undefined && !entry.address.startsWith("fe80:")) names.add(plainIp(entry.address));
  return [...names];
}
