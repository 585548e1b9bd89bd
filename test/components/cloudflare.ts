// A stand-in of Cloudflare's API for DNS records: zones, TXT records, refusals in its words.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type CloudflareRecord = { readonly id: string; readonly name: string; readonly content: string };

/** What becomes of calls whose `METHOD /path` begins with a text: another answer than the API's own, or none. */
export type CloudflareTrouble = { readonly status: number; readonly body: string; readonly headers?: Record<string, string> } | "hang" | "cut";

export type Cloudflare = AsyncDisposable & {
  /** For `api_url`. */
  readonly url: string;
  readonly records: readonly CloudflareRecord[];
  /** As `GET /zones?name=example.com`. */
  readonly calls: string[];
  /** The last one set counts. */
  trouble(call: string, trouble: CloudflareTrouble): void;
};

export type CloudflareOptions = {
  /** Default: `test-token`. */
  readonly token?: string;
  /** Those that the token can read. Default: `example.com`. */
  readonly zones?: readonly string[];
  /** Records that are there at the start. */
  readonly records?: readonly { readonly name: string; readonly content: string }[];
  /** A DNS server that shows the records, such as Pebble's. */
  readonly dns?: { setTxt(name: string, value: string): Promise<void>; clearTxt(name: string): Promise<void> };
};

const BASE = "/client/v4";

class ApiError extends Error {
  readonly status: number;
  readonly code: number;

  constructor(status: number, code: number, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export async function startCloudflare(options: CloudflareOptions = {}): Promise<Cloudflare> {
  const { token = "test-token", zones = ["example.com"], dns } = options;
  let count = 0;
  let records: CloudflareRecord[] = [];
  const calls: string[] = [];
  const troubles: [string, CloudflareTrouble][] = [];

  async function add(name: string, content: string): Promise<CloudflareRecord> {
    const record = { id: `${(count += 1)}`.padStart(32, "0"), name, content };
    records.push(record);
    await dns?.setTxt(name, unquoted(content));
    return record;
  }

  async function answer(method: string, url: URL, body: string, authorization: string | undefined): Promise<unknown> {
    if (authorization !== `Bearer ${token}`) throw new ApiError(403, 9109, "Invalid access token");
    const path = url.pathname.slice(BASE.length);
    if (method === "GET" && path === "/zones") {
      return zones.flatMap((name, index) => (name === url.searchParams.get("name") ? [{ id: zoneId(index), name, status: "active" }] : []));
    }
    const [, zonesWord, zone, recordsWord, id] = path.split("/");
    const zoneName = zones.find((_, index) => zoneId(index) === zone);
    if (zonesWord !== "zones" || recordsWord !== "dns_records" || zoneName === undefined) {
      throw new ApiError(404, 7003, "Could not route to this path, perhaps your object identifier is invalid?");
    }
    if (method === "GET") return records.filter(({ name }) => name === url.searchParams.get("name"));
    if (method === "POST") {
      const { type, name, content, ttl } = JSON.parse(body) as Record<string, unknown>;
      if (type !== "TXT" || typeof name !== "string" || typeof content !== "string") throw new ApiError(400, 9000, "DNS name is invalid.");
      if (!`.${name}`.endsWith(`.${zoneName}`)) throw new ApiError(400, 9000, "DNS name is invalid.");
      if (!/^"[^"]*"$/.test(content)) throw new ApiError(400, 9021, "Invalid TXT record. Must be in quotation marks.");
      if (typeof ttl !== "number" || ttl < 60) throw new ApiError(400, 9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.");
      if (records.some((record) => record.name === name && unquoted(record.content) === unquoted(content))) {
        throw new ApiError(400, 81058, "An identical record already exists.");
      }
      return await add(name, content);
    }
    const gone = records.find((record) => record.id === id);
    if (method !== "DELETE" || gone === undefined) throw new ApiError(404, 81044, "Record does not exist.");
    records = records.filter((record) => record !== gone);
    if (dns !== undefined) {
      await dns.clearTxt(gone.name);
      for (const record of records) if (record.name === gone.name) await dns.setTxt(record.name, unquoted(record.content));
    }
    return { id: gone.id };
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? "";
    const url = new URL(request.url ?? "", "http://localhost");
    const call = `${method} ${url.pathname.slice(BASE.length)}${url.search}`;
    calls.push(call);
    let body = "";
    for await (const chunk of request) body += String(chunk);
    const trouble = troubles.findLast(([text]) => call.startsWith(text))?.[1];
    if (trouble === "hang") return;
    if (trouble === "cut") {
      response.destroy();
      return;
    }
    if (trouble !== undefined) {
      response.writeHead(trouble.status, { "content-type": "application/json", ...trouble.headers }).end(trouble.body);
      return;
    }
    try {
      const result = await answer(method, url, body, request.headers.authorization);
      send(response, 200, { result, success: true, errors: [], messages: [] });
    } catch (error) {
      const known = error instanceof ApiError ? error : new ApiError(500, 10001, String(error));
      send(response, known.status, { result: null, success: false, errors: [{ code: known.code, message: known.message }], messages: [] });
    }
  }

  for (const { name, content } of options.records ?? []) await add(name, content);
  const server = createServer((request, response) => void handle(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${BASE}`,
    get records() {
      return records;
    },
    calls,
    trouble: (call, trouble) => void troubles.push([call, trouble]),
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function zoneId(index: number): string {
  return `zone${index}`.padEnd(32, "0");
}

function unquoted(content: string): string {
  return content.replace(/^"(.*)"$/, "$1");
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}
