// One order at an ACME CA: from the names to a certificate that was looked at (RFC 8555, 7.4).
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { Client, Order } from "acme-client";
import { certificateNames, hasDates, splitCertificates } from "../lib/pem.ts";
import { printable } from "../lib/printable.ts";
import type { AcmeAccount } from "./acme-account.ts";
import { AcmeError, type IssuedCertificate, type OrderRequest } from "./acme-issuer.ts";
import { describeProblem, parseProblem } from "./acme-problem.ts";
import { poll, prove, type ProofTools } from "./acme-proof.ts";
import { renewalInfoId, renewalInfoUrl } from "./acme-renewal-info.ts";
import type { AcmeConnection } from "./acme-transport.ts";

/** A certificate may begin this much later than now: our clock is allowed to be behind. */
const CLOCK_SKEW_MS = 300_000;
/** Refusals of an order that do not come from naming the certificate it replaces. Of that, CAs speak in many ways. */
const NOT_ABOUT_REPLACING: readonly (string | null)[] = [null, "accountDoesNotExist", "rateLimited", "userActionRequired"];

/** @throws {AcmeError} with `problem` "accountDoesNotExist" when the account has to be made again. */
export async function orderCertificate(connection: AcmeConnection, account: AcmeAccount, request: OrderRequest, tools: ProofTools): Promise<IssuedCertificate> {
  const replaces = await replacedId(connection, request);
  return await connection.run(async (library) => {
    const client = new library.Client({ directoryUrl: connection.directoryUrl, accountKey: account.key, accountUrl: account.url });
    let order = await createOrder(client, request, replaces, tools);
    if (order.authorizations.length > request.names.length) throw new AcmeError(`CA '${connection.ca}' wants more proven than was ordered`);
    await prove(connection, library, client, await client.getAuthorizations(order), request, tools);
    const refresh = (last: Order): Promise<Order> => client.getOrder(last);
    order = await poll(connection, await refresh(order), refresh, ({ status }) => status !== "pending");
    if (order.status !== "ready") throw refusal(connection, order);
    const key = (await library.crypto.createPrivateEcdsaKey("P-256")).toString();
    const [, csr] = await library.crypto.createCsr({ altNames: [...request.names] }, key);
    order = await poll(connection, await client.finalizeOrder(order, csr), refresh, ({ status }) => status !== "processing" && status !== "ready");
    if (order.status !== "valid") throw refusal(connection, order);
    return { cert: checkChain(connection.ca, await client.getCertificate(order), key, request.names, Date.now()), key };
  });
}

/** Null when the CA does not know renewals, or there is nothing to replace. */
async function replacedId(connection: AcmeConnection, { replaces }: OrderRequest): Promise<string | null> {
  if (replaces === null || (await renewalInfoUrl(connection)) === null) return null;
  return await renewalInfoId(replaces);
}

async function createOrder(client: Client, { names }: OrderRequest, replaces: string | null, { log }: ProofTools): Promise<Order> {
  const order = { identifiers: names.map((value) => ({ type: "dns", value })) };
  if (replaces === null) return await client.createOrder(order);
  try {
    const renewal = { ...order, replaces }; // RFC 9773, 5
    return await client.createOrder(renewal);
  } catch (error) {
    if (!(error instanceof AcmeError) || NOT_ABOUT_REPLACING.includes(error.problem)) throw error;
    log.info({ names, reason: error.message }, "The CA does not take the order for a renewal: it is made as a new one");
    return await client.createOrder(order);
  }
}

function refusal({ ca }: AcmeConnection, order: Order): AcmeError {
  const problem = parseProblem(order.error);
  const reason = problem === null ? `it is ${printable(order.status)}` : describeProblem(problem);
  return new AcmeError(`CA '${ca}' did not fulfil the order: ${reason}`, { problem: problem?.type ?? null });
}

/**
 * Looks at what came back before anybody is served with it.
 * @returns the PEM of the chain, without anything between.
 * @throws {AcmeError} unless the leaf fits key and names and is valid.
 */
export function checkChain(ca: string, text: unknown, key: string, names: readonly string[], nowMs: number): string {
  const wrong = (reason: string): AcmeError => new AcmeError(`CA '${ca}' issued a certificate that cannot be used: ${reason}`);
  const chain = splitCertificates(typeof text === "string" ? text : "");
  let certificates: X509Certificate[];
  try {
    certificates = chain.map((pem) => new X509Certificate(pem));
  } catch {
    throw wrong("it cannot be decoded");
  }
  const [leaf] = certificates;
  if (leaf === undefined) throw wrong("it holds no certificate");
  if (!leaf.checkPrivateKey(createPrivateKey(key))) throw wrong("it has another key");
  const covered = certificateNames(leaf);
  const missing = names.filter((name) => !covered.includes(name));
  if (missing.length > 0) throw wrong(`it lacks ${missing.map((name) => `'${name}'`).join(", ")}`);
  if (!hasDates(leaf)) throw wrong("it has no valid dates");
  if (leaf.validToDate.getTime() <= nowMs) throw wrong(`it expired at ${leaf.validToDate.toISOString()}`);
  if (leaf.validFromDate.getTime() > nowMs + CLOCK_SKEW_MS)
    throw wrong(`it is not valid before ${leaf.validFromDate.toISOString()}; is the clock of this machine right?`);
  return `${chain.join("\n")}\n`;
}
