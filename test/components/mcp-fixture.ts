// The server that the conformance suite of the protocol's authors expects: tools, resources and prompts by the names that its scenarios call. One definition
// for both eras, with the official SDK: sessions until 2025-11-25, single requests from 2026-07-28 on.
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import {
  acceptedContent,
  CLIENT_CAPABILITIES_META_KEY,
  createMcpHandler,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
  isInitializeRequest,
  isLegacyRequest,
  McpServer,
  ResourceTemplate,
  WebStandardStreamableHTTPServerTransport,
  type CallToolResult,
  type EventStore,
  type InputRequiredResult,
  type McpHttpHandler,
  type ServerContext,
} from "@modelcontextprotocol/server";
import { hostHeaderValidationResponse, localhostAllowedHostnames, localhostAllowedOrigins, originValidationResponse } from "@modelcontextprotocol/server";

export type McpFixture = AsyncDisposable & {
  readonly port: number;
  /** Of the MCP endpoint. */ readonly url: string;
  /** Ends the streams of subscriptions as a server does that stops. */
  closeStreams(): Promise<void>;
};

type ToolResult = CallToolResult | InputRequiredResult;
type Json = Record<string, unknown>;

const IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const AUDIO = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";
const states = createRequestStateCodec<Json>({ key: randomBytes(32) });
const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));
const says = (text: string): CallToolResult => ({ content: [{ type: "text", text }] });
const anObject = (properties: Json = {}, more: Json = {}): ReturnType<typeof fromJsonSchema<Json>> =>
  fromJsonSchema<Json>({ type: "object", properties, ...more } as Parameters<typeof fromJsonSchema>[0]);
const resource = (uri: string, mimeType: string, text: string): { type: "resource"; resource: { uri: string; mimeType: string; text: string } } => ({
  type: "resource",
  resource: { uri, mimeType, text },
});
const image = { type: "image" as const, data: IMAGE, mimeType: "image/png" };

/** Asks a person for one field. */
function ask(message: string, field: string, type: "string" | "boolean" = "string"): ReturnType<typeof inputRequired.elicit> {
  return inputRequired.elicit({ message, requestedSchema: { type: "object", properties: { [field]: { type } }, required: [field] } } as Parameters<
    typeof inputRequired.elicit
  >[0]);
}

function askModel(text: string): ReturnType<typeof inputRequired.createMessage> {
  return inputRequired.createMessage({ messages: [{ role: "user", content: { type: "text", text } }], maxTokens: 64 });
}

const given = (ctx: ServerContext, key: string): Json | undefined => acceptedContent<Json>(ctx.mcpReq.inputResponses, key);
const response = (ctx: ServerContext, key: string): any => ctx.mcpReq.inputResponses?.[key]; // eslint-disable-line typescript/no-explicit-any

/** What a server does that a 2025 client is asked by: a request of its own. */
// eslint-disable-next-line typescript/no-explicit-any
async function askClient(ctx: ServerContext, method: string, params: Json): Promise<any> {
  return await ctx.mcpReq.send({ method, params } as { method: "sampling/createMessage"; params: Json });
}

async function elicited(ctx: ServerContext, what: string, properties: Json, required: string[] = []): Promise<CallToolResult> {
  const { action, content } = await askClient(ctx, "elicitation/create", { message: what, requestedSchema: { type: "object", properties, required } });
  return says(`Elicitation completed: action=${String(action)}, content=${JSON.stringify(content ?? {})}`);
}

const options = (names: string[]): Json[] => names.map((title, i) => ({ const: `value${i + 1}`, title }));
const ENUMS = {
  untitledSingle: { type: "string", enum: ["option1", "option2", "option3"] },
  titledSingle: { type: "string", oneOf: options(["First Option", "Second Option", "Third Option"]) },
  legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
  untitledMulti: { type: "array", minItems: 1, maxItems: 3, items: { type: "string", enum: ["option1", "option2", "option3"] } },
  titledMulti: { type: "array", minItems: 1, maxItems: 3, items: { anyOf: options(["First Choice", "Second Choice", "Third Choice"]) } },
};
const DEFAULTS = {
  name: { type: "string", default: "John Doe" },
  age: { type: "integer", default: 30 },
  score: { type: "number", default: 95.5 },
  status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
  verified: { type: "boolean", default: true },
};
const DIALECT = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  $defs: { address: { $anchor: "addressDef", type: "object", properties: { street: { type: "string" }, city: { type: "string" } } } },
  allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
  if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
  // oxlint-disable-next-line unicorn/no-thenable -- a word of JSON Schema
  then: { required: ["phone"] },
  else: { required: ["email"] },
  additionalProperties: false,
};
const text = { type: "string" };

type Tool = (ctx: ServerContext, args: Json) => ToolResult | Promise<ToolResult>;

const TOOLS: Record<string, Tool | { readonly schema: ReturnType<typeof anObject>; readonly run: Tool }> = {
  test_simple_text: () => says("This is a simple text response for testing."),
  test_image_content: () => ({ content: [image] }),
  test_audio_content: () => ({ content: [{ type: "audio", data: AUDIO, mimeType: "audio/wav" }] }),
  test_embedded_resource: () => ({ content: [resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")] }),
  test_multiple_content_types: () => ({
    content: [
      { type: "text", text: "Multiple content types test:" },
      image,
      resource("test://mixed-content-resource", "application/json", JSON.stringify({ test: "data", value: 123 })),
    ],
  }),
  test_tool_with_logging: async (ctx) => {
    for (const data of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await ctx.mcpReq.notify({ method: "notifications/message", params: { level: "info", data } });
      await pause(50);
    }
    return says("Tool with logging executed successfully");
  },
  test_tool_with_progress: async (ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of progressToken === undefined ? [] : [0, 50, 100]) {
      await ctx.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      await pause(50);
    }
    return says(String(progressToken ?? "none"));
  },
  test_error_handling: () => {
    throw new Error("This tool intentionally returns an error for testing");
  },
  test_reconnection: async (ctx) => {
    ctx.http?.closeSSE?.();
    await pause(100);
    return says("Reconnection test completed successfully");
  },
  test_sampling: {
    schema: anObject({ prompt: text }, { required: ["prompt"] }),
    run: async (ctx, { prompt }) => {
      const messages = [{ role: "user", content: { type: "text", text: prompt } }];
      const { content } = await askClient(ctx, "sampling/createMessage", { messages, maxTokens: 100 });
      return says(`LLM response: ${String(content?.text)}`);
    },
  },
  test_elicitation: {
    schema: anObject({ message: text }, { required: ["message"] }),
    run: (ctx, { message }) => elicited(ctx, String(message), { response: text }, ["response"]),
  },
  test_elicitation_sep1034_defaults: (ctx) => elicited(ctx, "Please review the fields", DEFAULTS),
  test_elicitation_sep1330_enums: (ctx) => elicited(ctx, "Please select", ENUMS),
  json_schema_2020_12_tool: {
    schema: anObject(
      { name: text, address: { $ref: "#/$defs/address" }, contactMethod: { type: "string", enum: ["phone", "email"] }, phone: text, email: text },
      DIALECT,
    ),
    run: (_ctx, args) => says(JSON.stringify(args)),
  },

  // From 2026-07-28 on
  test_x_mcp_header: {
    schema: anObject({ region: { type: "string", "x-mcp-header": "Region" }, level: { type: "integer" } }),
    run: (_ctx, { region }) => says(`region=${String(region)}`),
  },
  test_missing_capability: (ctx) =>
    response(ctx, "answer") === undefined ? inputRequired({ inputRequests: { answer: askModel("Say pong") } }) : says("It can sample"),
  test_streaming_elicitation: () => says("No request in this stream"),
  test_logging_tool: async (ctx) => {
    await ctx.mcpReq.log("info", "Only for those who asked for logs");
    return says("Logged");
  },
  test_input_required_result_elicitation: (ctx) => {
    const name = given(ctx, "user_name")?.["name"];
    return typeof name === "string" ? says(`Hello, ${name}!`) : inputRequired({ inputRequests: { user_name: ask("What is your name?", "name") } });
  },
  test_input_required_result_sampling: (ctx) => {
    const answer = response(ctx, "capital_question");
    if (answer === undefined) return inputRequired({ inputRequests: { capital_question: askModel("What is the capital of France?") } });
    return says(`Sampling response: ${String(answer.content?.text)}`);
  },
  test_input_required_result_list_roots: (ctx) => {
    const roots = response(ctx, "client_roots")?.roots;
    return Array.isArray(roots) ? says(`Roots: ${JSON.stringify(roots)}`) : inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  },
  test_input_required_result_request_state: async (ctx) => {
    if (given(ctx, "confirm") !== undefined && ctx.mcpReq.requestState() !== undefined) return says("state-ok");
    return inputRequired({ inputRequests: { confirm: ask("Please confirm", "ok", "boolean") }, requestState: await states.mint({ nonce: randomUUID() }) });
  },
  test_input_required_result_tampered_state: async (ctx) => {
    if (given(ctx, "confirm") !== undefined && ctx.mcpReq.requestState() !== undefined) return says("integrity-ok");
    return inputRequired({ inputRequests: { confirm: ask("Please confirm", "ok", "boolean") }, requestState: await states.mint({ nonce: randomUUID() }) });
  },
  test_input_required_result_multiple_inputs: async (ctx) => {
    const name = given(ctx, "user_name")?.["name"];
    const greeting = response(ctx, "greeting")?.content?.text;
    const roots = response(ctx, "client_roots")?.roots;
    if (typeof name === "string" && typeof greeting === "string" && Array.isArray(roots)) return says(`${greeting} ${name}: ${roots.length}`);
    return inputRequired({
      inputRequests: { user_name: ask("What is your name?", "name"), greeting: askModel("Generate a greeting"), client_roots: inputRequired.listRoots() },
      requestState: await states.mint({ nonce: randomUUID() }),
    });
  },
  test_input_required_result_multi_round: async (ctx) => {
    const state = ctx.mcpReq.requestState<Json>();
    const round = Number(state?.["round"] ?? 0);
    if (round === 2) return says(`${String(state?.["name"])} likes ${String(given(ctx, "step2")?.["color"])}`);
    const name = given(ctx, "step1")?.["name"];
    const inputRequests = round === 0 ? { step1: ask("Step 1: What is your name?", "name") } : { step2: ask("Step 2: What is your favorite color?", "color") };
    return inputRequired({
      inputRequests,
      requestState: await states.mint({ round: round + 1, name, nonce: randomUUID() }),
    });
  },
  test_input_required_result_capabilities: (ctx) => {
    if (ctx.mcpReq.inputResponses !== undefined) return says("Fulfilled");
    const can = ((ctx.mcpReq.envelope as Json | undefined)?.[CLIENT_CAPABILITIES_META_KEY] ?? {}) as Json;
    const requests = {
      ...(can["elicitation"] === undefined ? {} : { user_name: ask("What is your name?", "name") }),
      ...(can["sampling"] === undefined ? {} : { greeting: askModel("Generate a greeting") }),
      ...(can["roots"] === undefined ? {} : { client_roots: inputRequired.listRoots() }),
    };
    return Object.keys(requests).length === 0 ? says("Nothing can be asked") : inputRequired({ inputRequests: requests });
  },
};

function createFixture(modern: () => McpHttpHandler): McpServer {
  const capabilities = {
    tools: { listChanged: true },
    resources: { subscribe: true, listChanged: true },
    prompts: { listChanged: true },
    logging: {},
    completions: {},
  };
  const server = new McpServer({ name: "fixture", version: "1.0.0" }, { capabilities, requestState: { verify: (state, ctx) => states.verify(state, ctx) } });
  for (const [name, tool] of Object.entries(TOOLS)) {
    const { schema, run } = typeof tool === "function" ? { schema: anObject(), run: tool } : tool;
    server.registerTool(name, { description: `Fixture ${name}`, inputSchema: schema }, async (args, ctx) => await run(ctx, args));
  }
  const trigger = (name: string, run: () => void): void => {
    server.registerTool(name, { description: "Tells subscribers of a change", inputSchema: anObject() }, () => {
      run();
      return says("Told");
    });
  };
  trigger("test_trigger_tool_change", () => modern().notify.toolsChanged());
  trigger("test_trigger_prompt_change", () => modern().notify.promptsChanged());

  const plain = (name: string, contents: Json): void => {
    server.registerResource(name, `test://${name}`, { title: name, description: name, mimeType: String(contents["mimeType"]) }, () => ({
      contents: [{ uri: `test://${name}`, ...contents } as { uri: string; text: string }],
    }));
  };
  plain("static-text", { mimeType: "text/plain", text: "This is the content of the static text resource." });
  plain("static-binary", { mimeType: "image/png", blob: IMAGE });
  plain("watched-resource", { mimeType: "text/plain", text: "Watched resource content" });
  server.registerResource(
    "template",
    new ResourceTemplate("test://template/{id}/data", { list: undefined }),
    { title: "Template", mimeType: "application/json" },
    (uri, { id }) => ({
      contents: [{ uri: uri.toString(), mimeType: "application/json", text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${String(id)}` }) }],
    }),
  );

  const user = (content: Json): { role: "user"; content: { type: "text"; text: string } } => ({
    role: "user",
    content: content as { type: "text"; text: string },
  });
  server.registerPrompt("test_simple_prompt", { description: "Simple" }, () => ({
    messages: [user({ type: "text", text: "This is a simple prompt for testing." })],
  }));
  server.registerPrompt(
    "test_prompt_with_arguments",
    {
      description: "Arguments",
      argsSchema: anObject({ arg1: { type: "string", description: "First" }, arg2: { type: "string", description: "Second" } }, { required: ["arg1", "arg2"] }),
    },
    ({ arg1, arg2 }) => ({ messages: [user({ type: "text", text: `Prompt with arguments: arg1='${String(arg1)}', arg2='${String(arg2)}'` })] }),
  );
  server.registerPrompt(
    "test_prompt_with_embedded_resource",
    { description: "Resource", argsSchema: anObject({ resourceUri: { type: "string", description: "URI" } }, { required: ["resourceUri"] }) },
    ({ resourceUri }) => ({
      messages: [
        user(resource(String(resourceUri), "text/plain", "Embedded resource content for testing.")),
        user({ type: "text", text: "Please process it." }),
      ],
    }),
  );
  server.registerPrompt("test_prompt_with_image", { description: "Image" }, () => ({
    messages: [user(image), user({ type: "text", text: "Please analyze it." })],
  }));
  server.registerPrompt("test_input_required_result_prompt", { description: "Asks first" }, (first: unknown) => {
    const context = given(first as ServerContext, "user_context")?.["context"];
    if (typeof context !== "string") return inputRequired({ inputRequests: { user_context: ask("What context?", "context") } });
    return { messages: [user({ type: "text", text: `Use the following context: ${context}` })] };
  });

  server.server.setRequestHandler("resources/subscribe", () => ({}));
  server.server.setRequestHandler("resources/unsubscribe", () => ({}));
  server.server.setRequestHandler("logging/setLevel", () => ({}));
  server.server.setRequestHandler("completion/complete", () => ({ completion: { values: [], total: 0, hasMore: false } }));
  return server;
}

/** Keeps the events of all streams in their order, for clients that come again. */
function createEventStore(): EventStore {
  const events: { readonly id: string; readonly stream: string; readonly message: unknown }[] = [];
  return {
    storeEvent: async (stream, message) => {
      const id = `${stream}_${events.length}`;
      events.push({ id, stream, message });
      return id;
    },
    getStreamIdForEventId: async (id) => events.find((event) => event.id === id)?.stream,
    replayEventsAfter: async (last, { send }) => {
      const index = events.findIndex(({ id }) => id === last);
      const stream = events[index]?.stream ?? "";
      for (const { id, message, stream: of } of events.slice(index + 1))
        if (of === stream && Object.keys(message as object).length > 0) await send(id, message as Parameters<typeof send>[1]);
      return stream;
    },
  };
}

/** Listens on loopback, by default on any free port. */
export async function startMcpFixture(port = 0): Promise<McpFixture> {
  const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>();
  const modern: McpHttpHandler = createMcpHandler(() => createFixture(() => modern), { legacy: "reject" });

  const serve = async (request: Request): Promise<Response> => {
    const rejected = hostHeaderValidationResponse(request, localhostAllowedHostnames()) ?? originValidationResponse(request, localhostAllowedOrigins());
    if (rejected !== undefined) return rejected;
    if (!(await isLegacyRequest(request.clone()))) return await modern.fetch(request);
    const id = request.headers.get("mcp-session-id");
    const known = id === null ? undefined : sessions.get(id);
    if (known !== undefined) return await known.handleRequest(request);
    const refuse = (status: number, code: number, message: string): Response =>
      Response.json({ jsonrpc: "2.0", error: { code, message }, id: null }, { status });
    if (id !== null) return refuse(404, -32_001, "Session not found");
    const body: unknown =
      request.method === "POST"
        ? await request
            .clone()
            .json()
            .catch(() => null)
        : null;
    if (!isInitializeRequest(body)) return refuse(400, -32_000, "Bad Request: Session ID required");
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: createEventStore(),
      retryInterval: 500,
      onsessioninitialized: (session) => void sessions.set(session, transport),
      onsessionclosed: (session) => void sessions.delete(session),
    });
    await createFixture(() => modern).connect(transport);
    return await transport.handleRequest(request);
  };

  const sockets = new Set<Socket>();
  const server = createServer((req, res) => void carry(req, res, serve));
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const bound = (server.address() as AddressInfo).port;
  return {
    port: bound,
    url: `http://127.0.0.1:${bound}/mcp`,
    closeStreams: () => modern.close(),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await modern.close();
      await Promise.all([...sessions.values()].map((transport) => transport.close()));
    },
  };
}

/** From Node.js to the Fetch standard and back, without holding anything back. */
async function carry(req: IncomingMessage, res: ServerResponse, serve: (request: Request) => Promise<Response>): Promise<void> {
  const abort = new AbortController();
  res.on("close", () => abort.abort());
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of req) chunks.push(chunk as Buffer);
    const headers = new Headers();
    for (let i = 0; i + 1 < req.rawHeaders.length; i += 2) headers.append(req.rawHeaders[i] ?? "", req.rawHeaders[i + 1] ?? "");
    const body = chunks.length === 0 ? null : Buffer.concat(chunks);
    const answer = await serve(
      new Request(`http://${req.headers.host ?? "localhost"}${req.url ?? "/"}`, { method: req.method ?? "GET", headers, body, signal: abort.signal }),
    );
    res.writeHead(answer.status, Object.fromEntries(answer.headers));
    res.flushHeaders();
    const reader = answer.body?.getReader();
    res.on("close", () => void reader?.cancel().catch(() => {}));
    for (;;) {
      const piece = await reader?.read();
      if (piece === undefined || piece.done) break;
      res.write(piece.value);
    }
    res.end();
  } catch {
    res.destroy();
  }
}
