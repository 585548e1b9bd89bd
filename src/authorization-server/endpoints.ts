// The endpoints of OAuth: what reaches oidc-provider, in which form, and what its answers look like.
import type { Provider } from "oidc-provider";
import { isLoopbackHost } from "../lib/address.ts";
import { printable } from "../lib/printable.ts";
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";
import { header, queryOf } from "./browser.ts";
import { claimedClient, encodedBasic } from "./client-credentials.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";
import { callProvider, type Inner } from "./inject.ts";
import { tryParseJson } from "./kept.ts";
import { shapeTokenForm } from "./jwt-tokens.ts";
import type { Limit } from "./limit.ts";
import { metadataDocument, metadataPaths } from "./metadata.ts";
import { errorPage, type ErrorPageOptions } from "./pages.ts";
import { RESUME_COOKIE } from "./provider.ts";
import { registeredScope, shapeAssertionClient, shapeClient } from "./registration.ts";
import { isForPeople, shapeAuthorization, shapeToken, takesAssertions } from "./resources.ts";

const FORM = "application/x-www-form-urlencoded";
const MAX_AUTHORIZATION_CHARS = 8_192;
const MAX_REGISTRATION_BYTES = 16_384;
// The longest that matter have two sets of keys and ten addresses.
const MAX_METADATA_CHARS = 8_192;
const RESUME = /^\/authorize\/[A-Za-z0-9_-]{1,100}$/;
const NO_STORE = ["Cache-Control", "no-store"];

type Place = { readonly methods: readonly string[]; readonly isOpen: boolean; readonly handle: (request: EndpointRequest) => Promise<EndpointAnswer> };

export class Endpoints {
  readonly #plan: AuthorizationServerPlan;
  readonly #provider: () => Provider;
  readonly #registrations: Limit;
  readonly #places: ReadonlyMap<string, Place>;

  /** @param provider that of now @param registrations how often one client address may register */
  constructor(plan: AuthorizationServerPlan, provider: () => Provider, registrations: Limit) {
    this.#plan = plan;
    this.#provider = provider;
    this.#registrations = registrations;
    const document = metadataDocument(plan);
    const metadata: Place = {
      methods: ["GET", "HEAD"],
      isOpen: true,
      handle: () => Promise.resolve(json(200, document, ["Cache-Control", "public, max-age=300"])),
    };
    this.#places = new Map<string, Place>([
      ["/authorize", { methods: ["GET", "POST"], isOpen: false, handle: (request) => this.#authorize(request) }],
      ["/token", { methods: ["POST"], isOpen: true, handle: (request) => this.#form(request, "/token", (params) => shapeToken(plan, params)) }],
      ["/register", { methods: ["POST"], isOpen: true, handle: (request) => this.#register(request) }],
      ["/revoke", { methods: ["POST"], isOpen: true, handle: (request) => this.#form(request, "/revoke", shapeTokenForm) }],
      ["/introspect", { methods: ["POST"], isOpen: true, handle: (request) => this.#form(request, "/introspect", shapeTokenForm) }],
      ["/jwks", { methods: ["GET", "HEAD"], isOpen: true, handle: (request) => this.#keys(request) }],
      ...[...metadataPaths(plan)].map((path): [string, Place] => [path, metadata]),
    ]);
  }

  serves(path: string): boolean {
    return this.#places.has(path) || RESUME.test(path);
  }

  async handle(request: EndpointRequest): Promise<EndpointAnswer> {
    const place = this.#places.get(request.path);
    if (place === undefined) return this.#resume(request);
    // No cookie and no page of ours is behind an open endpoint: whoever calls shows what it needs in the request itself.
    const cors = place.isOpen ? ["Access-Control-Allow-Origin", "*", "Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After"] : [];
    if (place.isOpen && request.method === "OPTIONS") return { status: 204, headers: [...cors, ...preflight(request, place.methods)], body: "" };
    if (!place.methods.includes(request.method)) {
      const answer = problem(405, "invalid_request", `${request.path} takes ${place.methods.join(" and ")}`);
      return { ...answer, headers: [...answer.headers, "Allow", place.methods.join(", "), ...cors] };
    }
    const answer = await place.handle(request);
    return { ...answer, headers: [...answer.headers, ...cors] };
  }

  async #authorize(request: EndpointRequest): Promise<EndpointAnswer> {
    if (!isForPeople(this.#plan)) return this.#nobodyPage(request);
    const isForm = (header(request, "content-type") ?? "").toLowerCase().startsWith(FORM);
    if (request.method === "POST" && !isForm) return this.#page(request, 400, "invalid_request", `a POST to /authorize is a form (${FORM})`);
    const given = request.method === "POST" ? new URLSearchParams(request.body.toString("utf8")) : queryOf(request);
    // What it asks for is kept until somebody answers.
    if (given.toString().length > MAX_AUTHORIZATION_CHARS)
      return this.#page(request, 400, "invalid_request", `the request is longer than ${MAX_AUTHORIZATION_CHARS} characters`);
    const query = shapeAuthorization(this.#plan, given).toString();
    const answer = await this.#forPeople(request, { method: "GET", path: `/authorize?${query}`, headers: {}, body: "", cookies: [] });
    return this.#isKnown(given.getAll("client_id")) ? answer : this.#notAtOnce(request, answer);
  }

  #isKnown([clientId, ...more]: readonly string[]): boolean {
    return more.length === 0 && this.#plan.clients.some(({ id }) => id === clientId);
  }

  /** Anybody can register, and must not have our address lead to a site of theirs before a person has seen which one it is (RFC 9700, 4.11.2). */
  #notAtOnce(request: EndpointRequest, answer: EndpointAnswer): EndpointAnswer {
    const at = answer.headers.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === "location");
    const target = at === -1 ? null : URL.parse(answer.headers[at + 1] ?? "", this.#plan.issuer);
    const isSite = target !== null && /^https?:$/.test(target.protocol) && target.origin !== this.#plan.issuer && !isLoopbackHost(target.hostname);
    if (!isSite) return answer;
    // A response type that is not ours has the answer behind the '#'.
    const told = target.searchParams.has("error") ? target.searchParams : new URLSearchParams(target.hash.slice(1));
    const link = { href: target.href, text: `Back to ${target.host}` };
    return this.#page(request, 400, told.get("error") ?? "unknown", told.get("error_description") ?? "", link);
  }

  #resume(request: EndpointRequest): Promise<EndpointAnswer> {
    if (request.method !== "GET") return Promise.resolve(this.#page(request, 405, "invalid_request", "it takes GET"));
    return this.#forPeople(request, { method: "GET", path: request.path, headers: {}, body: "", cookies: [] });
  }

  async #forPeople(request: EndpointRequest, inner: Inner): Promise<EndpointAnswer> {
    const cookies = [RESUME_COOKIE, `${RESUME_COOKIE}.sig`];
    const { answer, call } = await callProvider(this.#provider(), this.#plan.issuer, request, { ...inner, cookies, headers: { accept: "text/html" } });
    if (call.failure !== null) return this.#page(request, answer.status, call.failure.error, call.failure.error_description ?? "");
    return { ...answer, headers: [...answer.headers, ...NO_STORE, "Referrer-Policy", "no-referrer"] };
  }

  async #form(request: EndpointRequest, path: string, shape: (params: URLSearchParams) => URLSearchParams): Promise<EndpointAnswer> {
    const type = header(request, "content-type") ?? "";
    if (!type.toLowerCase().startsWith(FORM)) return problem(400, "invalid_request", `the body must be a form (${FORM})`);
    const authorization = header(request, "authorization");
    const form = new URLSearchParams(request.body.toString("utf8"));
    const clientId = claimedClient(authorization, form);
    const answer = await this.#forClients(request, {
      method: "POST",
      path,
      headers: { "content-type": FORM, ...(authorization === null ? {} : { authorization: encodedBasic(authorization, this.#plan.clients) }) },
      body: shape(form).toString(),
      cookies: [],
    });
    return answer.refusal === undefined ? answer : { ...answer, refusal: { ...answer.refusal, clientId } };
  }

  async #register(request: EndpointRequest): Promise<EndpointAnswer> {
    const isPeoples = isForPeople(this.#plan);
    if (!isPeoples && !this.#plan.resources.some(takesAssertions))
      return problem(403, "access_denied", "nobody can log in here, so that clients cannot register: the operator names them in the file");
    const waitS = this.#registrations.take(request.client);
    if (waitS > 0) {
      const answer = problem(429, "temporarily_unavailable", "too many registrations from this address; try again later");
      return { ...answer, headers: [...answer.headers, "Retry-After", String(waitS)] };
    }
    if (!/^application\/json\s*(;|$)/i.test(header(request, "content-type") ?? "")) return problem(400, "invalid_client_metadata", "the body must be JSON");
    if (request.body.length > MAX_REGISTRATION_BYTES) return problem(413, "invalid_client_metadata", `the body is larger than ${MAX_REGISTRATION_BYTES} bytes`);
    const given = tryParseJson(request.body.toString("utf8"));
    if (typeof given !== "object" || given === null || Array.isArray(given)) return problem(400, "invalid_client_metadata", "the body must be a JSON object");
    const shaped = (isPeoples ? shapeClient : shapeAssertionClient)(given as Record<string, unknown>);
    if ("error" in shaped) return problem(400, shaped.error, shaped.description);
    const body = JSON.stringify(shaped.metadata);
    if (body.length > MAX_METADATA_CHARS)
      return problem(400, "invalid_client_metadata", `what is to be kept of it is longer than ${MAX_METADATA_CHARS} characters`);
    const answer = await this.#forClients(request, { method: "POST", path: "/register", headers: { "content-type": "application/json" }, body, cookies: [] });
    const scope = registeredScope("scope" in given ? given.scope : undefined, this.#plan.resources);
    const registered = answer.status === 201 && scope !== "" ? tryParseJson(answer.body) : null;
    return typeof registered === "object" && registered !== null ? { ...answer, body: JSON.stringify({ ...registered, scope }) } : answer;
  }

  async #keys(request: EndpointRequest): Promise<EndpointAnswer> {
    const answer = await this.#forClients(request, { method: "GET", path: "/jwks", headers: {}, body: "", cookies: [] });
    return json(answer.status, answer.body, ["Cache-Control", "public, max-age=300"]);
  }

  async #forClients(request: EndpointRequest, inner: Inner): Promise<EndpointAnswer> {
    const { answer, call } = await callProvider(this.#provider(), this.#plan.issuer, request, {
      ...inner,
      headers: { ...inner.headers, accept: "application/json" },
    });
    const headers = [...answer.headers, ...NO_STORE, "Pragma", "no-cache"];
    if (answer.status < 400) return { ...answer, headers };
    const told = (tryParseJson(answer.body) ?? {}) as { readonly error?: unknown; readonly error_description?: unknown };
    return { ...answer, headers, refusal: refusalOf(String(told.error), String(told.error_description ?? ""), call.detail) };
  }

  #nobodyPage({ requestId }: EndpointRequest): EndpointAnswer {
    const title = "Nobody can log in here";
    const host = new URL(this.#plan.issuer).host;
    const message = `Applications cannot act for people at ${host}: the operator has set up no login for that. They get access with credentials of their own.`;
    return { ...errorPage({ status: 403, title, message, host, requestId }), refusal: refusalOf("access_denied", "nobody can log in here") };
  }

  #page({ requestId }: EndpointRequest, status: number, error: string, description: string, link: ErrorPageOptions["link"] = null): EndpointAnswer {
    const isOurs = status >= 500;
    const answer = errorPage({
      status,
      title: isOurs ? "This did not work" : "The request of the application cannot be served",
      message: isOurs
        ? "It is no fault of yours. Try again in a while."
        : `Its request was refused: ${description === "" ? error : `${description} (${error})`}.`,
      advice: error === "invalid_client" ? "The application is not known here, or not any more. Remove this server in the application and add it again." : null,
      host: new URL(this.#plan.issuer).host,
      requestId,
      link,
    });
    return { ...answer, refusal: refusalOf(error, description) };
  }
}

function preflight(request: EndpointRequest, methods: readonly string[]): string[] {
  const asked = header(request, "access-control-request-headers") ?? "";
  const allowed = /^[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}$/.test(asked) ? asked : "Authorization, Content-Type, Accept, MCP-Protocol-Version";
  return ["Access-Control-Allow-Methods", methods.join(", "), "Access-Control-Allow-Headers", allowed, "Access-Control-Max-Age", "3600"];
}

function problem(status: number, error: string, description: string): EndpointAnswer {
  return { ...json(status, JSON.stringify({ error, error_description: description }), NO_STORE), refusal: refusalOf(error, description) };
}

/** For the access log; `detail` is what the client is not told. */
function refusalOf(error: string, description: string, detail: string | null = null): NonNullable<EndpointAnswer["refusal"]> {
  const why = [error, ...(description === "" ? [] : [description])].join(": ");
  return { cause: `ERR_OAUTH: ${printable(detail === null ? why : `${why} (${detail})`)}`, clientId: null };
}

function json(status: number, body: string, headers: readonly string[]): EndpointAnswer {
  return { status, headers: ["Content-Type", "application/json", ...headers], body };
}
