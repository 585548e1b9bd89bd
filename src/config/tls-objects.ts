// The `tls` objects of a configuration, whose they are, and the pairs of files in them.
import type { CheckContext } from "./check-context.ts";
import type { Path } from "./problem.ts";
import type { Listener, Tls } from "./types.ts";

export type TlsObject = {
  readonly path: Path;
  readonly tls: Tls;
  /** The listeners that it is for; none when all have their own. */
  readonly users: readonly (readonly [name: string, listener: Listener])[];
};

/** All `tls` objects that are sound: the one at the top, which is for HTTP listeners without their own, and those of listeners. */
export function tlsObjects(check: CheckContext): TlsObject[] {
  const listeners = check.entries<Listener>("listeners").filter(([, listener]) => typeof listener === "object" && listener !== null);
  const found: TlsObject[] = [];
  if (check.config.tls !== undefined && check.isSound(["tls"])) {
    const users = listeners.filter(([, listener]) => listener.protocol === "http" && listener.tls === undefined);
    found.push({ path: ["tls"], tls: check.config.tls, users });
  }
  for (const [name, listener] of listeners) {
    const path = ["listeners", name, "tls"];
    if (listener.tls !== undefined && check.isSound(path)) found.push({ path, tls: listener.tls, users: [[name, listener]] });
  }
  return found;
}

/** What a listener speaks: its own `tls`, or the one at the top for HTTP; "disabled" without either. Only for listeners whose TLS is sound. */
export function modeOf(check: CheckContext, listener: Listener): Tls["mode"] {
  return tlsOf(check, listener)?.mode ?? "disabled";
}

export function tlsOf(check: CheckContext, listener: Listener): Tls | undefined {
  return listener.tls ?? (listener.protocol === "http" ? check.config.tls : undefined);
}

/** Whether TLS ends at a listener with this mode. */
export function isTermination(mode: Tls["mode"]): boolean {
  return mode === "application" || mode === "auto";
}

export type FilePair = { cert_file?: string; key_file?: string };

/** The pairs of an object, each with the path of what holds it. One of both names may be missing. */
export function filePairs({ path, tls }: TlsObject): [Path, FilePair][] {
  const first: [Path, FilePair][] = tls.cert_file === undefined && tls.key_file === undefined ? [] : [[path, tls]];
  return [...first, ...(tls.certificates ?? []).map((pair, i): [Path, FilePair] => [[...path, "certificates", i], pair])];
}
