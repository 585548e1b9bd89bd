// Who is at the other end of a connection, as tailscaled tells it. When in doubt, nobody.
import { isIPv6 } from "node:net";
import { plainIp } from "../lib/address.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { Log } from "../telemetry/log.ts";
import type { LocalApi, WhoIs } from "./local-api-types.ts";

/** What is known of our own node when somebody is asked for. */
export type Asker = { readonly api: LocalApi; readonly selfId: string; readonly suffix: string };

const MAX_AT_ONCE = 256;
const COMPLAIN_EVERY_MS = 30_000;

/** `asker` gives null while nobody may come in. */
export class WhoIsDesk {
  readonly #asker: () => Asker | null;
  readonly #log: Log;
  #underWay = 0;
  #complainedAt = -Infinity;

  constructor(asker: () => Asker | null, log: Log) {
    this.#asker = asker;
    this.#log = log;
  }

  /** The peer of a connection; null: refuse it. */
  async whois(address: string, port: number): Promise<TailnetPeer | null> {
    const ip = plainIp(address);
    return (await this.#ask(isIPv6(ip) ? `[${ip}]:${port}` : `${ip}:${port}`)) ?? null;
  }

  /** The node with this address; null: there is none that may come in. Undefined: tailscaled does not say. */
  node(address: string): Promise<TailnetPeer | null | undefined> {
    return this.#ask(plainIp(address));
  }

  async #ask(whom: string): Promise<TailnetPeer | null | undefined> {
    const asker = this.#asker();
    if (asker === null) return undefined;
    if (this.#underWay >= MAX_AT_ONCE) {
      this.#complain(`More than ${MAX_AT_ONCE} connections wait to be told apart by tailscaled: further ones are refused`);
      return undefined;
    }
    this.#underWay += 1;
    try {
      const answer = await asker.api.whois(whom);
      return answer === null ? null : asPeer(answer, asker);
    } catch (error) {
      this.#complain(`tailscaled does not say who connects: connections are refused (${error instanceof Error ? error.message : String(error)})`);
      return undefined;
    } finally {
      this.#underWay -= 1;
    }
  }

  #complain(message: string): void {
    const now = performance.now();
    if (now - this.#complainedAt < COMPLAIN_EVERY_MS) return;
    this.#complainedAt = now;
    this.#log.warn({ event: "tailnet_whois_failed" }, message);
  }
}

/** Null for a node that may not come in: ours, because then a local process connects, and one whose key has expired. */
function asPeer(answer: WhoIs, { selfId, suffix }: Asker): TailnetPeer | null {
  const [address] = answer.addresses;
  if (answer.id === "" || answer.id === selfId || answer.expired || address === undefined) return null;
  return {
    address,
    id: answer.id,
    name: answer.name,
    shortName: shortName(answer.name, suffix),
    // A tagged node acts for nobody, whatever profile tailscaled shows beside the tags.
    user: answer.tags.length > 0 ? null : answer.user,
    tags: answer.tags,
  };
}

/** Only names of our own tailnet are short: a node that is shared in could have any first label. */
function shortName(name: string, suffix: string): string {
  const end = `.${suffix}`;
  if (suffix === "" || !name.endsWith(end)) return name;
  const label = name.slice(0, -end.length);
  return label === "" || label.includes(".") ? name : label;
}
