// TXT records in zones at Cloudflare, by its API (v4).
import { domainToASCII } from "node:url";
import { formatDuration } from "../lib/duration.ts";
import { createConnector } from "../lib/connector.ts";
import { describeSystemError } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";
import { parseRetryAfter } from "../lib/retry-after.ts";
import type { DnsPlan } from "../plan/model.ts";
import { AcmeError } from "./acme-issuer.ts";

type CloudflarePlan = Extract<DnsPlan, { provider: "cloudflare" }>;

/** A record at a provider. `remove` may be called whatever became of `set`. */
export type DnsRecord = { set(signal: AbortSignal): Promise<void>; remove(): Promise<void> };

/** What the API said, as far as it is believed. */
type Answer = { readonly status: number; readonly result: unknown; readonly errors: readonly ApiProblem[]; readonly retryAfterMs: number | null };
type ApiProblem = { readonly code: number; readonly message: string };

const TTL_SECONDS = 60;
const CALL_TIMEOUT_MS = 15_000;
const MAX_BODY_BYTES = 1024 * 1024;
const MAX_MESSAGE_CHARS = 300;
// "Record already exists" and "An identical record already exists".
const ALREADY_EXISTS = new Set([81057, 81058]);
// "Invalid request headers" (of a token that is none), "Invalid access token" and "Authentication error".
const TOKEN_REFUSED = new Set([6003, 9109, 10000]);
const TOKEN_ADVICE = "check 'api_token': it needs the permissions Zone.Zone:Read and Zone.DNS:Edit for the zone";

/** @param name without a dot at its end; the zone is the longest one that the token can read */
export function createCloudflareRecord(plan: CloudflarePlan, name: string, value: string): DnsRecord {
  // Records of TXT content are quoted strings (RFC 1035, 5.1); Cloudflare warns about others.
  const content = `"${value}"`;
  let path: string | null = null;

  async function set(signal: AbortSignal): Promise<void> {
    const failed = `Cannot set TXT record '${name}' at Cloudflare`;
    const call = (method: "GET" | "POST", to: string, body?: object): Promise<Answer> => callApi(plan, method, to, body, signal, failed);
    const records = `/zones/${await findZone(plan, name, signal, failed)}/dns_records`;
    const made = await call("POST", records, { type: "TXT", name, content, ttl: TTL_SECONDS });
    let id = idOf(made.result);
    if (made.errors.some(({ code }) => ALREADY_EXISTS.has(code))) {
      // A CA asks again for the value of an authorization that is still pending; the record is one that an attempt before left behind.
      const { result, ...list } = await call("GET", `${records}?${new URLSearchParams({ type: "TXT", name, per_page: "100" }).toString()}`);
      check(plan, list, failed);
      id = idOf(Array.isArray(result) ? result.find((record) => isObject(record) && (record["content"] === content || record["content"] === value)) : null);
    } else {
      check(plan, made, failed);
    }
    if (id === null) throw new AcmeError(`${failed}: its answer does not say which record that is; see 'api_url'`);
    path = `${records}/${id}`;
  }

  async function remove(): Promise<void> {
    if (path === null) return;
    const failed = `Cannot remove TXT record '${name}' at Cloudflare`;
    // Also when the order is cancelled: the call has its own time limit.
    const answer = await callApi(plan, "DELETE", path, undefined, new AbortController().signal, failed);
    // Somebody else removed it.
    if (answer.status !== 404) check(plan, answer, failed);
    path = null;
  }

  return { set, remove };
}

async function findZone(plan: CloudflarePlan, name: string, signal: AbortSignal, failed: string): Promise<string> {
  const labels = name.split(".");
  for (let first = 0; first < labels.length - 1; first += 1) {
    const zone = labels.slice(first).join(".");
    const answer = await callApi(plan, "GET", `/zones?${new URLSearchParams({ name: zone }).toString()}`, undefined, signal, failed);
    check(plan, answer, failed);
    const found: unknown = Array.isArray(answer.result)
      ? answer.result.find((entry) => isObject(entry) && domainToASCII(String(entry["name"])) === zone)
      : null;
    const id = idOf(found);
    if (id !== null) return id;
  }
  throw new AcmeError(`${failed}: the API token can read no zone that '${name}' is in; add the zone to the token's zone resources, or to the account`);
}

/** @throws {AcmeError} unless the call succeeded */
function check(plan: CloudflarePlan, { status, errors, retryAfterMs }: Omit<Answer, "result">, failed: string): void {
  if (status === 429) {
    const wait = retryAfterMs === null ? "" : `; it asks to wait ${formatDuration(retryAfterMs)}`;
    throw new AcmeError(`${failed}: too many requests${wait}`, { retryAfterMs });
  }
  if (status >= 200 && status <= 299 && errors.length === 0) return;
  const said = errors.map(({ code, message }) => `${printable(withoutToken(message, plan.apiToken))} (${code})`).join(", ");
  const reason = said === "" ? `status ${status}` : said.slice(0, MAX_MESSAGE_CHARS);
  const refused = status === 401 || status === 403 || errors.some(({ code }) => TOKEN_REFUSED.has(code));
  throw new AcmeError(`${failed}: ${reason}${refused ? `; ${TOKEN_ADVICE}` : ""}`, { retryAfterMs });
}

/**
 * One call on a connection of its own. Redirects are not followed: the token is for this host alone.
 * @throws {AcmeError} when there is no answer, or one that is not the API's
 * @throws the signal's reason
 */
async function callApi(
  plan: CloudflarePlan,
  method: "GET" | "POST" | "DELETE",
  to: string,
  body: object | undefined,
  signal: AbortSignal,
  failed: string,
): Promise<Answer> {
  signal.throwIfAborted();
  const undici = await import("undici");
  const url = new URL(plan.apiUrl.replace(/\/+$/, "") + to);
  const timeout = AbortSignal.timeout(CALL_TIMEOUT_MS);
  const stop = AbortSignal.any([signal, timeout]);
  const client = new undici.Client(url.origin, { allowH2: false, connect: createConnector(undici, { allowH2: false, timeoutMs: 0 }, stop) });
  try {
    const response = await client.request({
      method,
      path: url.pathname + url.search,
      headers: { authorization: `Bearer ${plan.apiToken}`, "content-type": "application/json", accept: "application/json", "user-agent": "sidegate" },
      body: body === undefined ? null : JSON.stringify(body),
      signal: stop,
    });
    const answer = parseAnswer(await readText(response.body));
    const retryAfterMs = parseRetryAfter(response.headers["retry-after"], Date.now());
    const status = response.statusCode;
    // An error page of something on the way has no JSON in it; its status says enough.
    if (answer === null && status >= 200 && status <= 299) throw new AcmeError(`${failed}: the answer of '${url.host}' is not the API's; see 'api_url'`);
    return { status, result: answer?.result, errors: answer?.errors ?? [], retryAfterMs };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof AcmeError) throw error;
    // The library's error is not handed on as the cause: it may hold the request with its token.
    const reason = timeout.aborted ? `no answer within ${formatDuration(CALL_TIMEOUT_MS)}` : printable(withoutToken(describeSystemError(error), plan.apiToken));
    throw new AcmeError(`${failed}: ${reason} at '${url.host}'`);
  } finally {
    void client.destroy();
  }
}

async function readText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw new Error("the answer is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Null when the text is not `{ success, result, errors }`. A failure without a reason gets one, so that no errors means success. */
function parseAnswer(text: string): { result: unknown; errors: ApiProblem[] } | null {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(answer) || typeof answer["success"] !== "boolean") return null;
  const list: unknown[] = Array.isArray(answer["errors"]) ? answer["errors"] : [];
  const errors = list.flatMap((entry) => (isObject(entry) ? [{ code: Number(entry["code"]), message: String(entry["message"]) }] : []));
  if (!answer["success"] && errors.length === 0) errors.push({ code: 0, message: "no reason given" });
  return { result: answer["result"], errors: answer["success"] ? [] : errors };
}

/** Identifiers become a part of a path. */
function idOf(value: unknown): string | null {
  const id = isObject(value) ? value["id"] : null;
  return typeof id === "string" && /^[\w-]{1,64}$/.test(id) ? id : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function withoutToken(text: string, token: string): string {
  return token === "" ? text : text.replaceAll(token, "***");
}
