import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test } from "node:test";
import { startCloudflare, type Cloudflare } from "../../test/components/cloudflare.ts";
import { waitFor } from "../../test/components/wait.ts";
import { AcmeError } from "./acme-issuer.ts";
import { createCloudflareRecord, type DnsRecord } from "./dns-cloudflare.ts";

const NAME = "_acme-challenge.a.b.example.com";
const TOKEN = "test-token";
const never = new AbortController().signal;
const failed = `Cannot set TXT record '${NAME}' at Cloudflare`;
const advice = "check 'api_token': it needs the permissions Zone.Zone:Read and Zone.DNS:Edit for the zone";

function record(apiUrl: string, apiToken = TOKEN, value = "value", name = NAME): DnsRecord {
  return createCloudflareRecord({ provider: "cloudflare", apiToken, apiUrl, resolvers: null, propagationTimeoutMs: 1_000 }, name, value);
}

/** The error, after a look into every corner of it for the token. */
async function failure(attempt: Promise<void>, token = TOKEN): Promise<AcmeError> {
  const error: unknown = await attempt.then(
    () => "no error",
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof AcmeError, String(error));
  assert.ok(!inspect(error, { depth: 20, showHidden: true }).includes(token), "the token shows");
  return error;
}

const refusal = (...errors: { code: number; message: string }[]): string => JSON.stringify({ result: null, success: false, errors, messages: [] });

async function troubled(call: string, trouble: Parameters<Cloudflare["trouble"]>[1]): Promise<AcmeError> {
  await using api = await startCloudflare();
  api.trouble(call, trouble);
  return await failure(record(api.url).set(never));
}

test("records of one name are set side by side in the longest zone, and removed alone", async () => {
  await using api = await startCloudflare({ zones: ["example.com", "b.example.com"] });
  const [first, second] = [record(`${api.url}/`), record(api.url, TOKEN, "other")];
  await first.set(never);
  await second.set(never);
  assert.deepEqual(
    api.records.map(({ name, content }) => [name, content]),
    [
      [NAME, '"value"'],
      [NAME, '"other"'],
    ],
  );
  const zone = "zone1".padEnd(32, "0");
  assert.deepEqual(api.calls.slice(0, 4), [
    `GET /zones?name=${NAME}`,
    "GET /zones?name=a.b.example.com",
    "GET /zones?name=b.example.com",
    `POST /zones/${zone}/dns_records`,
  ]);
  await first.remove();
  assert.deepEqual(
    api.records.map(({ content }) => content),
    ['"other"'],
  );
  const calls = api.calls.length;
  await first.remove();
  assert.equal(api.calls.length, calls, "what is gone is not removed again");
  await second.remove();
  assert.equal(api.records.length, 0);
});

test("a record that was never set needs no removal", async () => {
  await using api = await startCloudflare();
  await record(api.url).remove();
  assert.deepEqual(api.calls, []);
});

test("a record that an attempt before left behind is taken over, quoted or not, and no other", async () => {
  for (const content of ['"value"', "value"]) {
    await using api = await startCloudflare({
      records: [
        { name: NAME, content: '"other"' },
        { name: NAME, content },
      ],
    });
    const again = record(api.url);
    await again.set(never);
    assert.equal(api.records.length, 2);
    await again.remove();
    assert.deepEqual(
      api.records.map((entry) => entry.content),
      ['"other"'],
    );
  }
});

test("a record that somebody else removed counts as removed; a removal that fails is told", async () => {
  await using api = await startCloudflare();
  const gone = record(api.url);
  await gone.set(never);
  api.trouble("DELETE", { status: 500, body: refusal({ code: 1, message: "Out of order" }) });
  assert.equal((await failure(gone.remove())).message, `Cannot remove TXT record '${NAME}' at Cloudflare: Out of order (1)`);
  api.trouble("DELETE", { status: 404, body: refusal({ code: 81044, message: "Record does not exist." }) });
  await gone.remove();
});

test("a zone that the token cannot read is told", async () => {
  await using api = await startCloudflare({ zones: ["example.org"] });
  assert.equal(
    (await failure(record(api.url).set(never))).message,
    `${failed}: the API token can read no zone that '${NAME}' is in; add the zone to the token's zone resources, or to the account`,
  );
  assert.equal(api.calls.at(-1), "GET /zones?name=example.com", "a top-level domain is nobody's zone");
});

test("an answer about another zone is not believed", async () => {
  const zone = { id: "0123456789", name: "evil.example" };
  assert.match(
    (await troubled("GET /zones", { status: 200, body: JSON.stringify({ success: true, errors: [], result: [zone] }) })).message,
    /can read no zone/,
  );
  const path = { id: "../../accounts", name: "example.com" };
  assert.match(
    (await troubled("GET /zones", { status: 200, body: JSON.stringify({ success: true, errors: [], result: [path] }) })).message,
    /can read no zone/,
  );
});

test("a token that is refused says what it needs", async () => {
  await using api = await startCloudflare();
  const wrong = "wrong-secret-token";
  assert.equal((await failure(record(api.url, wrong).set(never), wrong)).message, `${failed}: Invalid access token (9109); ${advice}`);
  const malformed = { status: 400, body: refusal({ code: 6003, message: "Invalid request headers" }) };
  assert.equal((await troubled("GET", malformed)).message, `${failed}: Invalid request headers (6003); ${advice}`);
  const readOnly = { status: 403, body: refusal({ code: 10000, message: "Authentication error" }) };
  assert.equal((await troubled("POST", readOnly)).message, `${failed}: Authentication error (10000); ${advice}`);
  assert.equal((await troubled("POST", { status: 403, body: "<html>Blocked" })).message, `${failed}: status 403; ${advice}`);
});

test("other refusals are told in the API's words, harmless, short and without the token", async () => {
  const errors = [
    { code: 9000, message: `Bad\u001b[31m ${TOKEN}\nname` },
    { code: 9001, message: "y".repeat(500) },
  ];
  const { message } = await troubled("POST", { status: 400, body: refusal(...errors) });
  assert.ok(message.startsWith(`${failed}: Bad [31m *** name (9000), yyy`), message);
  assert.ok(message.length < failed.length + 310);
  assert.equal((await troubled("POST", { status: 500, body: "oops" })).message, `${failed}: status 500`);
  assert.equal((await troubled("POST", { status: 200, body: refusal() })).message, `${failed}: no reason given (0)`);
});

test("too many requests: the wait that the API asks for is handed on", async () => {
  const body = refusal({ code: 971, message: "Rate limited" });
  const seconds = await troubled("POST", { status: 429, body, headers: { "retry-after": "90" } });
  assert.equal(seconds.message, `${failed}: too many requests; it asks to wait 1m 30s`);
  assert.equal(seconds.retryAfterMs, 90_000);
  const date = await troubled("GET", { status: 429, body, headers: { "retry-after": new Date(Date.now() + 60_000).toUTCString() } });
  assert.ok((date.retryAfterMs ?? 0) > 50_000 && (date.retryAfterMs ?? 0) <= 60_000);
  const silent = await troubled("GET", { status: 429, body: "" });
  assert.equal(silent.retryAfterMs, null);
  assert.equal(silent.message, `${failed}: too many requests`);
});

test("answers that are not the API's are told, and none is read to its end whatever its length", async () => {
  for (const body of ["<html>", "{}", "null", `{"success":"yes"}`]) {
    assert.match((await troubled("GET", { status: 200, body })).message, /: the answer of '127\.0\.0\.1:\d+' is not the API's; see 'api_url'$/, body);
  }
  assert.match((await troubled("POST", { status: 200, body: `{"success":true,"errors":[],"result":{}}` })).message, /does not say which record that is/);
  assert.match((await troubled("GET", { status: 200, body: "x".repeat(2_000_000) })).message, /: the answer is too long at '127\.0\.0\.1:\d+'$/);
});

test("a redirect is not followed: the token stays here", async () => {
  await using other = await startCloudflare();
  assert.equal((await troubled("GET", { status: 307, body: "", headers: { location: other.url } })).message, `${failed}: status 307`);
  assert.deepEqual(other.calls, []);
});

test("an API that cannot be reached, or cuts the connection, is named", async () => {
  const { url } = await startCloudflare().then(async (api) => {
    await api[Symbol.asyncDispose]();
    return api;
  });
  assert.equal((await failure(record(url).set(never))).message, `${failed}: connection refused at '${new URL(url).host}'`);
  assert.match((await troubled("POST", "cut")).message, /other side closed at '127\.0\.0\.1:\d+'$/);
});

test("an API that hangs is given up after a while, and at once with the signal", async (t) => {
  await using api = await startCloudflare();
  api.trouble("POST", "hang");
  const abort = new AbortController();
  const aborted = record(api.url).set(abort.signal);
  await waitFor(() => api.calls.at(-1)?.startsWith("POST"));
  const start = performance.now();
  abort.abort(new Error("stop"));
  await assert.rejects(aborted, /^Error: stop$/);
  assert.ok(performance.now() - start < 5_000);

  const timeout = AbortSignal.timeout.bind(AbortSignal);
  t.mock.method(AbortSignal, "timeout", (ms: number) => timeout(ms / 30));
  assert.match((await failure(record(api.url).set(never))).message, /: no answer within 15s at '127\.0\.0\.1:\d+'$/);
});
