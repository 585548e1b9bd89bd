// Waits until a TXT record shows on the authoritative servers of its zone: a CA that looks before that fails the order.
import { setTimeout as delay } from "node:timers/promises";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { AcmeError } from "./acme-issuer.ts";
import { describeLookupError, findNameServers, lookUp, resolverList, type NameServer } from "./dns-lookup.ts";

export type PropagationRequest = {
  readonly name: string;
  readonly value: string;
  /** `address` or `address:port`; null = the system's. */
  readonly resolvers: readonly string[] | null;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Of the authoritative servers. Default: 53. */
  readonly port?: number;
  /** The first pause between two rounds; each is half as long again as the one before, up to 10 s. Default: 2 s. */
  readonly pollMs?: number;
};

const DNS_PORT = 53;
const POLL_MS = 2_000;
const MAX_POLL_MS = 10_000;
const NAMES_IN_MESSAGE = 4;

/** What a server showed last; `lacking`: it answered without the value. A server without an entry never answered. */
type Sightings = Map<NameServer, "shown" | "lacking">;

/**
 * @throws {AcmeError} after `timeoutMs`, naming the servers that do not show the value
 * @throws the signal's reason
 */
export async function waitForTxtRecord(request: PropagationRequest): Promise<void> {
  const deadline = AbortSignal.timeout(timerMs(request.timeoutMs));
  const signal = AbortSignal.any([request.signal, deadline]);
  const search = new Search(request, signal);
  try {
    for (let pauseMs = request.pollMs ?? POLL_MS; !(await search.round()); pauseMs = Math.min(pauseMs * 1.5, MAX_POLL_MS)) {
      await delay(pauseMs, undefined, { signal });
    }
  } catch (error) {
    request.signal.throwIfAborted();
    if (!deadline.aborted) throw error;
    throw new AcmeError(
      `TXT record '${request.name}' did not show within ${formatDuration(request.timeoutMs)}: ${search.problem()}; check that the zone is served from there, or raise 'propagation_timeout'`,
    );
  }
}

class Search {
  readonly #request: PropagationRequest;
  readonly #signal: AbortSignal;
  readonly #resolvers: readonly NameServer[];
  readonly #sightings: Sightings = new Map();
  /** Null until the DNS said who they are. */
  #nameServers: readonly NameServer[] | null = null;
  #lookupError: unknown = null;

  constructor(request: PropagationRequest, signal: AbortSignal) {
    this.#request = request;
    this.#signal = signal;
    this.#resolvers = resolverList(request.resolvers);
  }

  /** Asks those who did not show it yet; whether the record is where a CA will find it. */
  async round(): Promise<boolean> {
    const { name, resolvers, port = DNS_PORT } = this.#request;
    try {
      this.#nameServers ??= await findNameServers(name, resolvers, port, this.#signal);
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#lookupError = error;
      return false;
    }
    if (await this.#allShow(this.#nameServers)) return true;
    // Without authoritative servers (a private DNS), or when none of them can be reached (port 53 to the outside is often closed), the resolvers
    // are the next best witnesses. They come last because what they remember may be older than the record.
    if (this.#nameServers.some((server) => this.#sightings.has(server))) return false;
    return this.#allShow(this.#resolvers);
  }

  /**
   * A server that never answered does not count when another one shows the record: resolvers, those of the CA too, pass over a dead server, and
   * one that has no way to us (IPv6 on a host without it) would hold up every order. Once it answered, it has to show the record.
   */
  async #allShow(servers: readonly NameServer[]): Promise<boolean> {
    const waiting = servers.filter((server) => this.#sightings.get(server) !== "shown");
    await Promise.all(
      waiting.map(async (server) => {
        const seen = await this.#look(server);
        if (seen !== null) this.#sightings.set(server, seen);
      }),
    );
    const seen = servers.map((server) => this.#sightings.get(server));
    return seen.includes("shown") && !seen.includes("lacking");
  }

  async #look(server: NameServer): Promise<"shown" | "lacking" | null> {
    try {
      const records: readonly string[][] = await lookUp("resolveTxt", this.#request.name, [server.address], this.#signal);
      // A record is made of strings of up to 255 bytes, which are one text (RFC 8555 says nothing else; RFC 7208, 3.3 does the same).
      return records.some((strings) => strings.join("") === this.#request.value) ? "shown" : "lacking";
    } catch {
      // No answer, or one that says nothing about the record, as of a server that does not have the zone (RFC 1912, 2.8).
      this.#signal.throwIfAborted();
      return null;
    }
  }

  problem(): string {
    if (this.#nameServers === null) {
      const reason = this.#lookupError === null ? "no answer" : describeLookupError(this.#lookupError);
      return `the name servers of its zone are not known: ${reason} from ${listed(this.#resolvers)}`;
    }
    const lacking = [...this.#sightings].flatMap(([server, seen]) => (seen === "lacking" ? [server] : []));
    if (lacking.length > 0) return `it is not on ${listed(lacking)}`;
    return `no answer from ${listed([...this.#nameServers, ...this.#resolvers])}`;
  }
}

/** "'ns1.example.com' (192.0.2.1:53), '192.0.2.2:53' and 3 more". */
function listed(servers: readonly NameServer[]): string {
  const texts = servers.slice(0, NAMES_IN_MESSAGE).map(({ name, address }) => (name === "" ? `'${address}'` : `'${name}' (${address})`));
  const more = servers.length - texts.length;
  return texts.join(", ") + (more > 0 ? ` and ${more} more` : "");
}
