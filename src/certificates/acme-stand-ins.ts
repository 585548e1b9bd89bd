// Certificates of earlier configurations, which serve a name until the one that is wanted now has come.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { isCovered } from "../lib/host-cover.ts";
import type { ServerCertificate } from "./source.ts";
import { checkCertificate } from "./store.ts";

const MAX_READING = 32;

/**
 * By name, the certificate that lasts longest of `present` and of all that the state holds, whatever CA, account or set of names it was
 * ordered for. One that has ended serves nobody. Never rejects: what cannot be read is left out.
 * @param missing names that have no certificate, lower case; a wildcard as `*.example.com`
 */
export async function findStandIns(
  stateDir: string,
  missing: readonly string[],
  present: Iterable<ServerCertificate>,
  nowMs: number,
): Promise<ReadonlyMap<string, ServerCertificate>> {
  const found = new Map<string, ServerCertificate>();
  if (missing.length === 0) return found;
  const offer = (certificate: ServerCertificate): void => {
    const names = new Set(certificate.info.names);
    const endMs = certificate.info.notAfter?.getTime() ?? 0;
    if (endMs <= nowMs) return;
    for (const name of missing) {
      if (isCovered(name, names) && endMs > (found.get(name)?.info.notAfter?.getTime() ?? 0)) found.set(name, certificate);
    }
  };
  for (const certificate of present) offer(certificate);
  const files = (await listFiles(stateDir)).values();
  const work = async (): Promise<void> => {
    for (const file of files) {
      const certificate = await readStored(file, missing);
      if (certificate !== null) offer(certificate);
    }
  };
  await Promise.all(Array.from({ length: MAX_READING }, work));
  return found;
}

async function listFiles(stateDir: string): Promise<string[]> {
  const directory = join(stateDir, "acme");
  const accounts = (await readdir(directory).catch(() => [])).map((account) => join(directory, account));
  const lists = await Promise.all(accounts.map(async (account) => (await readdir(account).catch(() => [])).map((file) => join(account, file))));
  return lists.flat().filter((file) => file.endsWith(".json") && !file.endsWith(".schedule.json"));
}

async function readStored(file: string, missing: readonly string[]): Promise<ServerCertificate | null> {
  try {
    const { names, cert, key } = JSON.parse(await readFile(file, "utf8")) as { names?: unknown; cert?: unknown; key?: unknown };
    if (!Array.isArray(names) || typeof cert !== "string" || typeof key !== "string") return null;
    const own = names.filter((name) => typeof name === "string");
    // Decoding is what takes time.
    if (!missing.some((name) => isCovered(name, new Set(own)))) return null;
    return checkCertificate("acme", own, cert, key).certificate;
  } catch {
    // Whoever wants this very file tells what is wrong with it.
    return null;
  }
}
