import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { startCloudflare, type Cloudflare } from "../../test/components/cloudflare.ts";
import { startDnsServer, type DnsServer } from "../../test/components/dns-server.ts";
import { waitFor } from "../../test/components/wait.ts";
import type { DnsPlan } from "../plan/model.ts";
import { AcmeError } from "./acme-issuer.ts";
import { setDnsRecord } from "./dns-01.ts";

const NAME = "_acme-challenge.example.com";
const never = new AbortController().signal;
const dir = mkdtempSync(join(tmpdir(), "sidegate-dns-01-"));
after(() => rmSync(dir, { recursive: true, force: true }));

/** The API, and a private DNS server that shows its records. */
async function start(shows = true): Promise<AsyncDisposable & { api: Cloudflare; dns: DnsServer; plan: (timeoutMs?: number) => DnsPlan }> {
  const dns = await startDnsServer();
  const api = await startCloudflare({
    zones: ["example.com", "validation.test"],
    dns: {
      setTxt: async (name, value) => void (shows && dns.records.set(`TXT ${name}`, [...(dns.records.get(`TXT ${name}`) ?? []), value])),
      clearTxt: async (name) => void dns.records.delete(`TXT ${name}`),
    },
  });
  return {
    api,
    dns,
    plan: (propagationTimeoutMs = 10_000) => ({
      provider: "cloudflare",
      apiToken: "test-token",
      apiUrl: api.url,
      resolvers: [dns.address],
      propagationTimeoutMs,
    }),
    [Symbol.asyncDispose]: async () => void (await Promise.all([api[Symbol.asyncDispose](), dns[Symbol.asyncDispose]()])),
  };
}

async function message(attempt: Promise<unknown>): Promise<string> {
  const error: unknown = await attempt.catch((reason: unknown) => reason);
  assert.ok(error instanceof AcmeError, String(error));
  return error.message;
}

test("a wildcard and its base name have their values at once, and each goes alone", async () => {
  await using all = await start();
  const [first, second] = await Promise.all(["one", "two"].map((value) => setDnsRecord(all.plan(), NAME, value, never)));
  assert.deepEqual(all.dns.records.get(`TXT ${NAME}`)?.toSorted(), ["one", "two"]);
  await first?.();
  assert.deepEqual(all.dns.records.get(`TXT ${NAME}`), ["two"]);
  await second?.();
  assert.deepEqual(all.api.records, []);
});

test("a delegated record is set where the CNAME leads, and removed there", async () => {
  await using all = await start();
  all.dns.records.set(`CNAME ${NAME}`, ["example-com.validation.test"]);
  const remove = await setDnsRecord(all.plan(), NAME, "value", never);
  assert.deepEqual(
    all.api.records.map(({ name }) => name),
    ["example-com.validation.test"],
  );
  all.dns.records.delete(`CNAME ${NAME}`);
  await remove();
  assert.deepEqual(all.api.records, []);
});

test("a record that does not show is removed again", async () => {
  await using all = await start(false);
  assert.match(
    await message(setDnsRecord(all.plan(200), NAME, "value", never)),
    /^TXT record '_acme-challenge\.example\.com' did not show within 200ms: it is not on/,
  );
  assert.deepEqual(all.api.records, []);
  assert.ok(all.api.calls.some((call) => call.startsWith("POST")));
});

test("the first failure is told, not that of the removal after it", async () => {
  await using all = await start(false);
  all.api.trouble("DELETE", { status: 500, body: "" });
  assert.match(await message(setDnsRecord(all.plan(200), NAME, "value", never)), /did not show within/);
});

test("a removal that fails is thrown to the caller", async () => {
  await using all = await start();
  const remove = await setDnsRecord(all.plan(), NAME, "value", never);
  all.api.trouble("DELETE", { status: 500, body: "" });
  assert.equal(await message(remove()), `Cannot remove TXT record '${NAME}' at Cloudflare: status 500`);
});

test("a cancelled order leaves no record behind", async () => {
  await using all = await start(false);
  const abort = new AbortController();
  const setting = setDnsRecord(all.plan(), NAME, "value", abort.signal);
  await waitFor(() => all.dns.questions.includes(`TXT ${NAME}`));
  abort.abort();
  assert.equal(await message(setting), `Setting TXT record '${NAME}' was cancelled`);
  assert.deepEqual(all.api.records, []);
  assert.equal(await message(setDnsRecord(all.plan(), NAME, "value", abort.signal)), `Setting TXT record '${NAME}' was cancelled`);
});

test("a program sets and removes the record; it cleans up after a failure, too", async () => {
  await using dns = await startDnsServer({ records: { [`CNAME ${NAME}`]: ["delegated.example.net"] } });
  const [file, log] = [join(dir, "dns.mjs"), join(dir, "log")];
  writeFileSync(file, `import { appendFileSync } from "node:fs"; appendFileSync(${JSON.stringify(log)}, process.argv.slice(2).join(" ") + "\\n");`);
  const plan: DnsPlan = {
    provider: "exec",
    command: [process.execPath, file],
    timeoutMs: 20_000,
    resolvers: [dns.address],
    propagationTimeoutMs: 20_000,
  };
  const lines = (): string[] => (existsSync(log) ? readFileSync(log, "utf8").trimEnd().split("\n") : []);
  const setting = setDnsRecord(plan, NAME, "value", never);
  await waitFor(() => lines().length > 0);
  assert.deepEqual(lines(), ["present delegated.example.net value"]);
  dns.records.set("TXT delegated.example.net", ["value"]);
  const remove = await setting;
  assert.equal(lines().length, 1);
  await remove();
  assert.deepEqual(lines().slice(1), ["cleanup delegated.example.net value"]);

  assert.match(await message(setDnsRecord({ ...plan, propagationTimeoutMs: 100 }, NAME, "late", never)), /did not show/);
  assert.deepEqual(lines().slice(2), ["present delegated.example.net late", "cleanup delegated.example.net late"]);
});
