// Questions to the DNS: where a record really stands, and which servers speak for its zone.
import { randomBytes } from "node:crypto";
import { Resolver } from "node:dns/promises";
import { isHostName } from "../lib/address.ts";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { AcmeError } from "./acme-issuer.ts";

export type NameServer = {
  /** Empty for a resolver, which is known by its address alone. */
  readonly name: string;
  /** `192.0.2.1:53`, `[2001:db8::1]:53`. */
  readonly address: string;
};

type Answers = { resolveTxt: string[][]; resolveNs: string[]; resolveCname: string[]; resolve4: string[]; resolve6: string[] };

// Two tries of two seconds: a lost packet is no verdict, and a dead server must not use up the time of a whole round.
const QUERY = { timeout: 2_000, tries: 2, maxTimeout: 2_000 };
const MAX_CNAMES = 8;
// The root has 13; a zone with more servers than this is no zone that we have to be careful about.
const MAX_NAME_SERVERS = 16;

/**
 * Asks servers one after the other until one answers.
 * @param servers `address` or `address:port`; null = the system's
 * @returns the records; none when the name, or such a record of it, does not exist
 * @throws the resolver's error when there was no answer (ETIMEOUT, ECONNREFUSED), or one that says nothing (ESERVFAIL, EREFUSED, ENOTIMP)
 */
export async function lookUp<Q extends keyof Answers>(
  question: Q,
  name: string,
  servers: readonly string[] | null,
  signal: AbortSignal,
): Promise<Answers[Q] | readonly []> {
  signal.throwIfAborted();
  // One for each question: it is cheap, and nothing that it learned outlives the question.
  const resolver = new Resolver(QUERY);
  if (servers !== null) resolver.setServers(servers);
  const cancel = (): void => resolver.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  try {
    return (await resolver[question](name)) as Answers[Q];
  } catch (error) {
    signal.throwIfAborted();
    if (isOneOf(error, "ENOTFOUND", "ENODATA")) return [];
    throw error;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/** The servers that are asked, for messages and for questions to each one of them. */
export function resolverList(servers: readonly string[] | null): NameServer[] {
  return (servers ?? new Resolver().getServers()).map((address) => ({ name: "", address }));
}

/**
 * The name at the end of the CNAME records at a name, which is where a CA looks for the TXT record; the name itself when there are none.
 * @throws {AcmeError} when the DNS does not answer, or leads nowhere
 */
export async function followCnames(name: string, servers: readonly string[] | null, signal: AbortSignal): Promise<string> {
  let end = name;
  for (let hops = 0; hops < MAX_CNAMES; hops += 1) {
    const target = await explicitCname(end, servers, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      const where = resolverList(servers).map(({ address }) => `'${address}'`);
      throw new AcmeError(`Cannot look for a CNAME record at '${end}': ${describeLookupError(error)}; DNS servers: ${where.join(", ")}; see 'resolvers'`);
    });
    if (target === null) return end;
    // It becomes an argument of a program: a name of our own zone that begins with a hyphen, or one made up by somebody on the way, must not be an option.
    if (!isHostName(target)) throw new AcmeError(`The CNAME record at '${end}' does not lead to a host name; correct it or remove it`);
    end = target.toLowerCase();
  }
  throw new AcmeError(`More than ${MAX_CNAMES} CNAME records follow one another at '${name}'; let the first one lead to the last name`);
}

/**
 * A wildcard CNAME (`*.example.com`) answers for names that do not exist, and no longer once the TXT record is there (RFC 4592, 2.2.1):
 * it delegates nothing. A sibling that nobody ever set shows it.
 */
async function explicitCname(name: string, servers: readonly string[] | null, signal: AbortSignal): Promise<string | null> {
  const target = await cnameAt(name, servers, signal);
  const parent = parentOf(name);
  if (target === null || parent === "") return target;
  const sibling = `sidegate-${randomBytes(8).toString("hex")}.${parent}`;
  return (await cnameAt(sibling, servers, signal)) === target ? null : target;
}

async function cnameAt(name: string, servers: readonly string[] | null, signal: AbortSignal): Promise<string | null> {
  try {
    return (await lookUp("resolveCname", name, servers, signal))[0] ?? null;
  } catch (error) {
    // A private server that knows no such question has no such records either.
    if (isOneOf(error, "ENOTIMP", "EREFUSED")) return null;
    throw error;
  }
}

/**
 * The authoritative servers of the zone that a name is in: the first of its parents that has NS records, or itself.
 * @param port of the authoritative servers
 * @returns an entry for each IPv4 and IPv6 address; none when the DNS knows none, as a private one may
 * @throws the resolver's error when it does not answer at all
 */
export async function findNameServers(name: string, servers: readonly string[] | null, port: number, signal: AbortSignal): Promise<NameServer[]> {
  async function addressesOf(question: "resolve4" | "resolve6", server: string): Promise<NameServer[]> {
    const addresses: readonly string[] = await lookUp(question, server, servers, signal).catch(noneUnlessSilent);
    return addresses.map((address) => ({ name: server, address: address.includes(":") ? `[${address}]:${port}` : `${address}:${port}` }));
  }

  for (let zone = name; zone !== ""; zone = parentOf(zone)) {
    const names = await lookUp("resolveNs", zone, servers, signal).catch(noneUnlessSilent);
    // Behind a CNAME stand the servers of another zone: the apex of one has no CNAME (RFC 1034, 3.6.2).
    if (names.length === 0 || (await cnameAt(zone, servers, signal)) !== null) continue;
    const lookUps = names.slice(0, MAX_NAME_SERVERS).flatMap((server) => [addressesOf("resolve4", server), addressesOf("resolve6", server)]);
    const answers = await Promise.allSettled(lookUps);
    const found = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    const failure = answers.find((answer) => answer.status === "rejected");
    // A server whose address cannot be had is like one that never answers; without any address, nothing is known yet.
    if (found.length === 0 && failure !== undefined) throw failure.reason;
    return found;
  }
  return [];
}

function noneUnlessSilent(error: unknown): readonly [] {
  if (isOneOf(error, "ESERVFAIL", "EREFUSED", "ENOTIMP", "EFORMERR", "EBADRESP", "EBADNAME")) return [];
  throw error;
}

function parentOf(name: string): string {
  const dot = name.indexOf(".");
  return dot === -1 ? "" : name.slice(dot + 1);
}

function isOneOf(error: unknown, ...codes: readonly string[]): boolean {
  return codes.includes(systemErrorCode(error) ?? "");
}

const LOOKUP_REASONS: Readonly<Record<string, string>> = {
  ETIMEOUT: "no answer",
  ESERVFAIL: "the DNS server could not answer (SERVFAIL)",
  EREFUSED: "the DNS server refused to answer",
  ENOTIMP: "the DNS server does not know this question",
};

/** The reason of a failed question in words. */
export function describeLookupError(error: unknown): string {
  return LOOKUP_REASONS[systemErrorCode(error) ?? ""] ?? describeSystemError(error);
}
