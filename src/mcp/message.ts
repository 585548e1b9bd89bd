// What the body of a POST says as an MCP message, and whether its headers say the same (2026-07-28, Streamable HTTP, "Server Validation").
import { headerValue } from "../lib/header-name.ts";
import { parseJson } from "./json-text.ts";

/** One JSON-RPC message, as far as it is decided by. `method` null: it is an answer. */
export type McpMessage = {
  readonly id: string | number | null;
  readonly method: string | null;
  readonly isRequest: boolean;
  /** What it is about: the name of a tool or prompt, the URI of a resource, the id of a task; null when the method names nothing. */
  readonly name: string | null;
  readonly params: Readonly<Record<string, unknown>> | null;
};

export type McpRefusal = { readonly status: 400 | 404 | 415; readonly code: number; readonly message: string; readonly id: string | number | null };

export type McpBody = { readonly messages: readonly McpMessage[]; readonly isBatch: boolean };

/** The first revision whose requests say in headers what they are. */
const MODERN = "2026-07-28";
const PARSE_ERROR = -32_700;
const INVALID_REQUEST = -32_600;
// As the SDKs' servers answer what is no message for them.
const TRANSPORT_ERROR = -32_000;
const HEADER_MISMATCH = -32_020;
const SESSION_NOT_FOUND = -32_001;

// Which parameter Mcp-Name repeats: SEP-2243, and SEP-2663 for tasks.
const NAME_SOURCES: ReadonlyMap<string, "name" | "uri" | "taskId"> = new Map([
  ["tools/call", "name"],
  ["prompts/get", "name"],
  ["resources/read", "uri"],
  ["tasks/get", "taskId"],
  ["tasks/update", "taskId"],
  ["tasks/cancel", "taskId"],
]);
// Subscriptions name a resource, too, but no header repeats it.
const OTHER_NAMES: ReadonlyMap<string, "uri"> = new Map([
  ["resources/subscribe", "uri"],
  ["resources/unsubscribe", "uri"],
]);

// Names that some decoders of JSON find in any case: for them {"Method": …} is a method, which would be none for us.
const MESSAGE_KEYS = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS_KEYS = ["name", "uri", "taskId", "arguments", "_meta", "ref", "argument"];

/** A POST to an upstream that does not know the session, as the SDKs' servers answer it. Clients begin a new one. */
export const UNKNOWN_SESSION: McpRefusal = { status: 404, code: SESSION_NOT_FOUND, message: "Session not found", id: null };

export function isRefusal(read: McpBody | McpRefusal): read is McpRefusal {
  return "status" in read;
}

/** The error as JSON-RPC says it, one line. */
export function refusalJson({ code, message, id }: McpRefusal): string {
  return JSON.stringify({ jsonrpc: "2.0", error: { code, message }, id });
}

/**
 * What can be said before the body has come.
 * @param headers flat, of a POST with a body
 * @returns null when the body may be read
 */
export function refuseHead(headers: readonly string[]): McpRefusal | null {
  for (const name of ["content-type", "content-encoding", "mcp-protocol-version", "mcp-method", "mcp-name"])
    if (count(headers, name) > 1) return refuse(400, INVALID_REQUEST, `Bad Request: several ${name} headers`);
  const encoding = headerValue(headers, "content-encoding");
  // What is packed is hidden from whoever decides by it, and unpacking it for that would invite bombs.
  if (encoding !== null && encoding.trim().toLowerCase() !== "identity") return refuse(400, TRANSPORT_ERROR, "Bad Request: encoded bodies are not taken");
  if (!isJson(headerValue(headers, "content-type"))) return refuse(415, TRANSPORT_ERROR, "Unsupported Media Type: Content-Type must be application/json");
  return null;
}

/** Reads the body of a POST and compares it with its headers. The bytes go on as they are; this is only what they mean. */
export function readMessages(bytes: Uint8Array, headers: readonly string[]): McpBody | McpRefusal {
  const parsed = parseJson(bytes);
  if (parsed === null) return refuse(400, PARSE_ERROR, "Parse error: the body is not JSON");
  if (parsed === "complex") return refuse(400, INVALID_REQUEST, "Invalid Request: the message has too many parts");
  const { value } = parsed;
  const isBatch = Array.isArray(value);
  const elements: readonly unknown[] = isBatch ? value : [value];
  const id = isBatch ? null : idOf(value);
  if (parsed.hasDuplicateKeys) return refuse(400, INVALID_REQUEST, "Invalid Request: an object has a key twice", id);
  if (elements.length === 0) return refuse(400, INVALID_REQUEST, "Invalid Request: an empty batch");
  const messages: McpMessage[] = [];
  for (const element of elements) {
    const message = readMessage(element);
    if (message === null) return refuse(400, INVALID_REQUEST, "Invalid Request: not a JSON-RPC message", id);
    const wrong = compare(message, headers);
    if (wrong !== null) return refuse(400, HEADER_MISMATCH, `Bad Request: ${wrong}`, id);
    messages.push(message);
  }
  return { messages, isBatch };
}

function readMessage(value: unknown): McpMessage | null {
  if (!isRecord(value) || hasDisguisedKey(value, MESSAGE_KEYS)) return null;
  const { method = null, params = null } = value;
  if (method !== null && typeof method !== "string") return null;
  if (method === null && !("result" in value) && !("error" in value)) return null;
  const source = method === null ? undefined : (NAME_SOURCES.get(method) ?? OTHER_NAMES.get(method));
  const record = isRecord(params) ? params : null;
  if (source !== undefined && record !== null && hasDisguisedKey(record, PARAMS_KEYS)) return null;
  const name = source === undefined || record === null ? null : record[source];
  return { id: idOf(value), method, isRequest: method !== null && "id" in value, name: typeof name === "string" ? name : null, params: record };
}

/** Null when the headers say what the message says, or need not say anything. */
function compare({ method, isRequest, name, params }: McpMessage, headers: readonly string[]): string | null {
  const version = headerValue(headers, "mcp-protocol-version");
  const meta = params?.["_meta"];
  const claimed = isRecord(meta) ? meta["io.modelcontextprotocol/protocolVersion"] : undefined;
  // Before that revision these headers mean nothing: nothing is decided by them.
  if (!isModern(version) && !isModern(claimed)) return null;
  // Answers and the headers of notifications are not spoken of, but what is there must not lie.
  if (method === null) return null;
  if (claimed !== undefined && version !== null && version !== claimed) return "MCP-Protocol-Version and the body name different versions";
  if (isRequest && version === null) return "the MCP-Protocol-Version header is missing";
  const saidMethod = headerValue(headers, "mcp-method");
  if (saidMethod === null ? isRequest : saidMethod !== method)
    return saidMethod === null ? "the Mcp-Method header is missing" : "Mcp-Method is not the body's method";
  const saidName = headerValue(headers, "mcp-name");
  if (!NAME_SOURCES.has(method) || !isRequest) return null;
  if (saidName === null) return name === null ? null : "the Mcp-Name header is missing";
  const decoded = decodeHeader(saidName);
  if (decoded === null) return "Mcp-Name is not well encoded";
  return name !== null && decoded !== name ? "Mcp-Name is not what the body names" : null;
}

const SENTINEL = /^=\?base64\?(.*)\?=$/s;

/** The value of a header that may be written as `=?base64?…?=`, UTF-8; null when what is between is not canonical. */
export function decodeHeader(value: string): string | null {
  const encoded = SENTINEL.exec(value)?.[1];
  if (encoded === undefined) return value;
  const bytes = Buffer.from(encoded, "base64");
  if (bytes.toString("base64") !== encoded) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

function isModern(version: unknown): boolean {
  return typeof version === "string" && /^\d{4}-\d{2}-\d{2}$/.test(version) && version >= MODERN;
}

/** Whether a key is one of the names in another case; also in the cases of Unicode, where ſ is an s and the Kelvin sign a k. */
function hasDisguisedKey(record: Readonly<Record<string, unknown>>, names: readonly string[]): boolean {
  return Object.keys(record).some((key) => !names.includes(key) && names.some((name) => fold(name) === fold(key)));
}

function fold(text: string): string {
  return text.toUpperCase().toLowerCase();
}

function isJson(contentType: string | null): boolean {
  const [type = "", ...parameters] = (contentType ?? "").toLowerCase().split(";");
  return type.trim() === "application/json" && parameters.every((parameter) => /^\s*(?:charset\s*=\s*"?utf-?8"?\s*)?$/.test(parameter));
}

function count(headers: readonly string[], lower: string): number {
  let found = 0;
  for (let i = 0; i < headers.length; i += 2) if (headers[i]?.toLowerCase() === lower) found += 1;
  return found;
}

function idOf(value: unknown): string | number | null {
  const id = isRecord(value) ? value["id"] : null;
  return typeof id === "string" || typeof id === "number" ? id : null;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refuse(status: McpRefusal["status"], code: number, message: string, id: string | number | null = null): McpRefusal {
  return { status, code, message, id };
}
