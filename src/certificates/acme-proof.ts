// Proving to an ACME CA that names are ours: challenges are shown, the CA looks, and they are taken away.
import { setTimeout as delay } from "node:timers/promises";
import type { Authorization, Client } from "acme-client";
import { printable } from "../lib/printable.ts";
import type { Log } from "../telemetry/log.ts";
import type { DnsPlan } from "../plan/model.ts";
import type { AcmeChallenges } from "./acme-challenges.ts";
import { AcmeError, type OrderRequest } from "./acme-issuer.ts";
import { describeProblem, parseProblem } from "./acme-problem.ts";
import type { AcmeConnection, AcmeLibrary } from "./acme-transport.ts";

/** Sets a TXT record and waits until it shows; what it resolves with removes the record. */
export type SetDnsRecord = (plan: DnsPlan, recordName: string, value: string, signal: AbortSignal) => Promise<() => Promise<void>>;

/** By what challenges are shown. */
export type ProofTools = { readonly challenges: AcmeChallenges; readonly setDnsRecord: SetDnsRecord; readonly log: Log };

type Proof = { readonly name: string; readonly authorization: Authorization; readonly challenge: Authorization["challenges"][number] };

/** What is waited before each look: two minutes in all, unless the CA asks for more patience, a minute at most each time. */
const POLL_DELAYS_MS = [200, 800, 2000, 4000, 8000, 15_000, 30_000, 60_000];
const MAX_POLL_DELAY_MS = 60_000;

/** Where a CA that looks must come in. */
const REMEDIES: Readonly<Record<string, string>> = {
  "http-01": "port 80 of the name must lead to this gateway",
  "tls-alpn-01": "port 443 of the name must lead to this gateway, and nothing in between may end TLS",
};

/**
 * Looks until `isDone`, once after each of the delays, or later where the CA asks for it.
 * @param first what is known already. @throws {AcmeError} when it takes too long.
 */
export async function poll<T>(
  connection: Pick<AcmeConnection, "ca" | "signal" | "takeRetryAfterMs">,
  first: T,
  read: (last: T) => Promise<T>,
  isDone: (value: T) => boolean,
  delaysMs: readonly number[] = POLL_DELAYS_MS,
): Promise<T> {
  let value = first;
  for (const ms of delaysMs) {
    if (isDone(value)) return value;
    await delay(Math.max(ms, Math.min(connection.takeRetryAfterMs(), MAX_POLL_DELAY_MS)), undefined, { signal: connection.signal });
    value = await read(value);
  }
  if (isDone(value)) return value;
  throw new AcmeError(`CA '${connection.ca}' takes too long: it was asked ${delaysMs.length} times`);
}

/** Proves all that the CA does not take for proven. Nothing is shown any more when it ends, however it ends. @throws {AcmeError} */
export async function prove(
  connection: AcmeConnection,
  library: AcmeLibrary,
  client: Client,
  authorizations: readonly Authorization[],
  request: OrderRequest,
  tools: ProofTools,
): Promise<void> {
  const proofs = authorizations.filter((each) => each.status !== "valid").map((each) => proofOf(connection, each, request));
  if (proofs.length === 0) return;
  await using shown = new AsyncDisposableStack();
  // All are waited for, so that none appears after the others were taken away.
  const results = await Promise.allSettled(
    proofs.map(async (proof) => {
      const remove = await show(proof, library, client, request, tools);
      shown.defer(async () => {
        try {
          await remove();
        } catch (error) {
          tools.log.warn({ name: proof.name, reason: error instanceof Error ? error.message : String(error) }, "An ACME challenge was left behind");
        }
      });
    }),
  );
  for (const result of results) if (result.status === "rejected") throw result.reason;
  await Promise.all(proofs.map(({ challenge }) => client.completeChallenge(challenge)));
  let pending = proofs.map(({ authorization }) => authorization);
  await poll(
    connection,
    pending,
    async () => {
      const looked = await client.getAuthorizations(orderWith(pending.map(({ url }) => url)));
      const failed = looked.filter(({ status }) => status !== "pending" && status !== "valid");
      if (failed.length > 0) throw failure(connection, failed, request);
      return (pending = looked.filter(({ status }) => status === "pending"));
    },
    (left) => left.length === 0,
  );
}

/** What the CA wants proven must be what was asked for: it does not get to choose names, for which records would be set. */
function proofOf(connection: AcmeConnection, authorization: Authorization, { names, challenge: type, dns }: OrderRequest): Proof {
  const name = nameOf(authorization);
  if (!names.includes(name)) throw new AcmeError(`CA '${connection.ca}' wants '${printable(name)}' proven, which is not in the order`);
  if (authorization.status !== "pending") throw failure(connection, [authorization], { challenge: type });
  const challenge = authorization.challenges.find((each) => each.type === type);
  if (challenge === undefined) {
    const offered = authorization.challenges.map((each) => `'${printable(each.type)}'`).join(", ");
    const remedy = name.startsWith("*.") && type !== "dns-01" ? "; wildcards need 'dns-01'" : "";
    throw new AcmeError(`CA '${connection.ca}' does not offer '${type}' for '${name}', only ${offered}${remedy}`);
  }
  // RFC 8555, 8.1: it becomes part of a path.
  if (!/^[\w-]+$/.test(challenge.token)) throw new AcmeError(`CA '${connection.ca}' sent a challenge for '${name}' that cannot be used`);
  if (type === "dns-01" && dns === null) throw new AcmeError(`Cannot prove '${name}' by 'dns-01': no DNS provider is configured`);
  return { name, authorization, challenge };
}

async function show(
  { authorization, challenge }: Proof,
  { crypto }: AcmeLibrary,
  client: Client,
  { challenge: type, dns, signal }: OrderRequest,
  { challenges, setDnsRecord }: ProofTools,
): Promise<() => void | Promise<void>> {
  const answer = await client.getChallengeKeyAuthorization(challenge);
  const { value } = authorization.identifier;
  switch (type) {
    case "http-01":
      return challenges.showHttp(challenge.token, answer);
    case "tls-alpn-01": {
      const [key, cert] = await crypto.createAlpnCertificate(authorization, answer, await crypto.createPrivateEcdsaKey("P-256"));
      return challenges.showTlsAlpn(value, cert.toString(), key.toString());
    }
    case "dns-01":
      return dns === null ? () => {} : await setDnsRecord(dns, `_acme-challenge.${value}`, answer, signal);
    default:
      return type satisfies never;
  }
}

function failure({ ca }: AcmeConnection, failed: readonly Authorization[], { challenge: type }: Pick<OrderRequest, "challenge">): AcmeError {
  let problem: string | null = null;
  const reasons = failed.map((authorization) => {
    const found = parseProblem(authorization.challenges.find((each) => each.error !== undefined)?.error);
    problem ??= found?.type ?? null;
    return `'${printable(nameOf(authorization))}': ${found === null ? `it is ${printable(authorization.status)}` : describeProblem(found)}`;
  });
  const remedy = REMEDIES[type];
  return new AcmeError(`CA '${ca}' could not verify ${reasons.join("; ")}${remedy === undefined ? "" : `; ${remedy}`}`, { problem });
}

function nameOf({ identifier, wildcard }: Authorization): string {
  return `${wildcard === true ? "*." : ""}${identifier.value}`;
}

/** The library reads authorizations by the order that names them. */
function orderWith(authorizations: string[]): Parameters<Client["getAuthorizations"]>[0] {
  return { status: "pending", identifiers: [], authorizations, finalize: "", url: "" };
}
