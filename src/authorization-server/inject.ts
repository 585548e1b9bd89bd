// The way into oidc-provider: a request as a whole, without a socket, and with nothing in it that a client says of us.
import { AsyncLocalStorage } from "node:async_hooks";
import inject from "light-my-request";
import type { Provider } from "oidc-provider";
import { findBrowser, type Browser } from "./browser.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";

/** A request on its way through oidc-provider. */
export type Call = {
  readonly request: EndpointRequest;
  readonly browser: Browser;
  /** An error that is to be shown to a person: there is nowhere to send it. */
  failure: { readonly error: string; readonly error_description?: string } | null;
  /** Why it was refused, where the client is told less. */
  detail: string | null;
  /** A person is asked next. */
  hasBegun: boolean;
  /** A document was fetched: one is enough, also where oidc-provider asks for it again to say what went wrong. */
  hasFetched: boolean;
  /** What is fetched next is that document. */
  isDocumentNext: boolean;
};

export type Injected = { readonly answer: EndpointAnswer; readonly call: Call };

const calls = new AsyncLocalStorage<Call>();

/** The request that is being served; null outside of one. */
export function currentCall(): Call | null {
  return calls.getStore() ?? null;
}

/** What is asked of oidc-provider beside its endpoints, for a request. */
export function forRequest<T>(request: EndpointRequest, work: () => Promise<T>): Promise<T> {
  return calls.run(newCall(request), work);
}

function newCall(request: EndpointRequest): Call {
  return { request, browser: findBrowser(request), failure: null, detail: null, hasBegun: false, hasFetched: false, isDocumentNext: false };
}

/** `path` with its query; `cookies`: the only ones that go through, both ways. */
export type Inner = {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly cookies: readonly string[];
};

export async function callProvider(provider: Provider, issuer: string, request: EndpointRequest, inner: Inner): Promise<Injected> {
  const call = newCall(request);
  const { host, protocol } = new URL(issuer);
  const cookie = passedCookies(request, inner.cookies);
  // Awaited inside: the request begins with that.
  const response = await calls.run(
    call,
    async () =>
      await inject(provider.callback(), {
        method: inner.method,
        url: inner.path,
        // oidc-provider takes its own address from these; both are the issuer's.
        headers: { ...inner.headers, host, "x-forwarded-proto": protocol.slice(0, -1), ...(cookie === "" ? {} : { cookie }) },
        remoteAddress: "127.0.0.1",
        ...(inner.method === "POST" ? { payload: inner.body } : {}),
      }),
  );
  const headers = answerHeaders(response.headers, inner.cookies);
  return { answer: { status: response.statusCode, headers: [...headers, ...(call.hasBegun ? call.browser.headers : [])], body: response.payload }, call };
}

function passedCookies({ headers }: EndpointRequest, names: readonly string[]): string {
  const passed: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]?.toLowerCase() !== "cookie") continue;
    for (const pair of (headers[i + 1] ?? "").split(";")) if (names.includes((pair.split("=", 1)[0] ?? "").trim())) passed.push(pair.trim());
  }
  return passed.join("; ");
}

const PASSED = new Set(["content-type", "location", "www-authenticate", "content-security-policy", "retry-after"]);

function answerHeaders(given: Readonly<Record<string, unknown>>, cookies: readonly string[]): string[] {
  const headers: string[] = [];
  for (const [name, value] of Object.entries(given)) {
    if (PASSED.has(name)) headers.push(name, String(value));
    if (name !== "set-cookie") continue;
    for (const line of [value].flat()) if (cookies.includes(String(line).split("=", 1)[0] ?? "")) headers.push("Set-Cookie", String(line));
  }
  return headers;
}
