// Documents that clients are known by (client ID metadata documents) and their keys: fetched from public addresses alone.
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { Agent, buildConnector, request } from "undici";
import { createConnector } from "../lib/connector.ts";
import { GatewayError } from "../lib/errors.ts";
import { untilAborted } from "../lib/until-aborted.ts";
import { shapeClient } from "./registration.ts";

const TIMEOUT_MS = 5_000;
const MAX_BYTES = 65_536;

export type FetchDeps = {
  /** The addresses of a host name. */
  readonly resolve: (host: string) => Promise<readonly string[]>;
  readonly isPublic: (address: string) => boolean;
  /** PEM; null = the system's CAs. */
  readonly ca: string | null;
};

export const FETCH_DEPS: FetchDeps = {
  resolve: async (host) => (await lookup(host, { all: true })).map(({ address }) => address),
  isPublic: isPublicAddress,
  ca: null,
};

/**
 * A GET of a URL that a stranger named: https, a host with a name and none but public addresses, of which the one that was looked at is the one that is used;
 * no redirects, at most 5 s and 64 KiB. A metadata document comes shaped like a registration.
 * @throws {GatewayError} when nothing comes that can be used
 */
export async function fetchClientDocument(target: string | URL, { resolve, isPublic, ca }: FetchDeps): Promise<Response> {
  const url = new URL(target);
  if (url.protocol !== "https:" || url.username !== "" || url.password !== "") throw refusal("it is no https URL");
  const host = url.hostname;
  if (isIP(host.replace(/^\[(.*)\]$/, "$1")) !== 0) throw refusal("its host is an address instead of a name");
  const stop = AbortSignal.timeout(TIMEOUT_MS);
  const addresses = await untilAborted(resolve(host), stop);
  const [address] = addresses;
  if (address === undefined || !addresses.every(isPublic)) throw refusal(`'${host}' has an address that is not public`);
  const connectTo = createConnector({ buildConnector }, { timeoutMs: TIMEOUT_MS, allowH2: false, ...(ca === null ? {} : { ca }) }, stop);
  const agent = new Agent({
    maxResponseSize: MAX_BYTES,
    allowH2: false,
    // The name is not looked up again: another answer could lead elsewhere.
    connect: (options, callback) => connectTo({ ...options, hostname: address, servername: host }, callback),
  });
  try {
    const { statusCode, headers, body } = await request(url, {
      dispatcher: agent,
      signal: stop,
      headers: { accept: "application/json", "user-agent": "sidegate" },
    });
    const text = await body.text();
    if (statusCode !== 200) throw refusal(`'${host}' answered with status ${statusCode}`);
    const passed = Object.fromEntries(["cache-control", "expires"].flatMap((name) => (typeof headers[name] === "string" ? [[name, headers[name]]] : [])));
    return new Response(shapeDocument(text), { status: statusCode, headers: passed });
  } finally {
    await agent.destroy();
  }
}

/** A document says what a registration says. What it says of itself beside that is looked at by oidc-provider. */
function shapeDocument(text: string): string {
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== "object" || parsed === null || !("client_id" in parsed)) return text;
  const given = parsed as Record<string, unknown>;
  const shaped = shapeClient({ token_endpoint_auth_method: "none", ...given });
  if ("error" in shaped) throw refusal(shaped.description);
  const kept = ["client_id", "client_secret", "client_secret_expires_at"].filter((name) => name in given).map((name) => [name, given[name]]);
  return JSON.stringify({ ...shaped.metadata, ...Object.fromEntries(kept) });
}

/** Whether an address is one of the public Internet: not of this machine, of a private or a carrier's network, of the tailnet, or one that stands for another. */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== "unicast") return false;
  // Of IPv6 only what is given out; the rest holds IPv4 addresses in other forms (64:ff9b:1::/48, ::/96).
  return address.kind() === "ipv4" || address.match(ipaddr.parseCIDR("2000::/3"));
}

function refusal(reason: string): GatewayError {
  return new GatewayError("ERR_CLIENT_DOCUMENT", `The document of the client cannot be used: ${reason}`);
}
