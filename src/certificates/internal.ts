// Certificates of the local CA, issued when a client first asks for their name.
import { hostname, networkInterfaces } from "node:os";
import { isHostName, plainIp } from "../lib/address.ts";
import { wildcardOf } from "../lib/host-cover.ts";
import type { InternalCa } from "./internal-ca.ts";
import type { CertificateSource, ServerCertificate } from "./source.ts";

/** A third of the life of a leaf before its end. */
const RENEW_BEFORE_MS = 30 * 86_400_000;

/**
 * Answers for the hosts of the routes and for nothing else, so that a client cannot make us issue without limit; everybody else
 * gets the certificate of this machine: localhost, its loopback and listen addresses, and its host name.
 * @param hosts exact and `*.example.com`; a wildcard covers one label, as in every certificate.
 * @param listenHost host of the listen address; null for all interfaces.
 */
export function createInternalSource(ca: InternalCa, hosts: Iterable<string>, listenHost: string | null, now: () => number = Date.now): CertificateSource {
  const machine = machineNames(listenHost);
  const allowed = new Map<string, readonly string[]>();
  for (const host of hosts) allowed.set(host, [host]);
  for (const name of machine) allowed.set(name, machine);
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
  // Proves before the configuration serves that the CA can sign.
  issue(machine);

  return {
    get(serverName) {
      const names = allowed.get(serverName) ?? allowed.get(wildcardOf(serverName));
      return names === undefined ? null : issue(names);
    },
    fallback: () => issue(machine),
    // One that nobody asked for until it was due is renewed here, so that it is never shown as expired.
    list: () => [...issued.keys()].map((names) => issue(names).info),
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
