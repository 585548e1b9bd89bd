import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startDnsServer, type DnsServer } from "../../test/components/dns-server.ts";
import { waitFor } from "../../test/components/wait.ts";
import { AcmeError } from "./acme-issuer.ts";
import { waitForTxtRecord } from "./dns-propagation.ts";

const NAME = "_acme-challenge.example.com";
const TXT = `TXT ${NAME}`;
const HOSTS = ["127.0.0.2", "127.0.0.3"];

type Zone = AsyncDisposable & {
  readonly resolver: DnsServer;
  readonly servers: DnsServer[];
  /** Whether the wait is over. */
  readonly state: () => "waiting" | "done" | "failed";
  wait(more?: { timeoutMs?: number; signal?: AbortSignal; pollMs?: number }): Promise<void>;
};

/** A zone with two name servers of its own, and a resolver that knows them. */
async function startZone(hosts: readonly string[] = HOSTS, more: Record<string, string[]> = {}): Promise<Zone> {
  const resolver = await startDnsServer();
  const servers: DnsServer[] = [];
  resolver.records.set("NS example.com", []);
  for (const [index, host] of hosts.entries()) {
    const server: DnsServer = await startDnsServer({ host, ...(servers[0] === undefined ? {} : { port: servers[0].port }) });
    servers.push(server);
    resolver.records.get("NS example.com")?.push(`ns${index + 1}.example.com`);
    resolver.records.set(`${host.includes(":") ? "AAAA" : "A"} ns${index + 1}.example.com`, [host]);
  }
  for (const [key, values] of Object.entries(more)) resolver.records.set(key, values);
  let state: "waiting" | "done" | "failed" = "waiting";
  return {
    resolver,
    servers,
    state: () => state,
    wait: async ({ timeoutMs = 10_000, signal = new AbortController().signal, pollMs = 10 } = {}) => {
      try {
        await waitForTxtRecord({ name: NAME, value: "value", resolvers: [resolver.address], timeoutMs, signal, port: servers[0]?.port ?? 1, pollMs });
        state = "done";
      } catch (error) {
        state = "failed";
        throw error;
      }
    },
    [Symbol.asyncDispose]: async () => void (await Promise.allSettled([resolver, ...servers].map((server) => server[Symbol.asyncDispose]()))),
  };
}

const asked = (server: DnsServer | undefined): number => server?.questions.filter((question) => question === TXT).length ?? 0;

async function message(waiting: Promise<void>): Promise<string> {
  const error: unknown = await waiting.catch((reason: unknown) => reason);
  assert.ok(error instanceof AcmeError, String(error));
  return error.message;
}

test("a record that shows late is waited for, on every name server", async () => {
  await using zone = await startZone();
  const [first, second] = zone.servers;
  const waiting = zone.wait();
  await waitFor(() => asked(first) >= 2 && asked(second) >= 2);
  first?.records.set(TXT, ["value"]);
  const before = asked(second);
  await waitFor(() => asked(second) >= before + 3);
  assert.equal(zone.state(), "waiting", "one of two shows it");
  const known = asked(first);
  second?.records.set(TXT, ["another", "value"]);
  await waiting;
  assert.equal(asked(first), known, "a server that shows it is not asked again");
  assert.equal(asked(zone.resolver), 0, "the resolver must not remember that there was no record");
});

test("a server that lags is named when the time is over", async () => {
  await using zone = await startZone();
  const [first, second] = zone.servers;
  first?.records.set(TXT, ["value"]);
  second?.records.set(TXT, ["old", "value and more"]);
  assert.equal(
    await message(zone.wait({ timeoutMs: 300 })),
    `TXT record '${NAME}' did not show within 300ms: it is not on 'ns2.example.com' (${second?.address}); check that the zone is served from there, or raise 'propagation_timeout'`,
  );
});

test("a server that never answers does not hold up the others", async () => {
  await using zone = await startZone();
  const [first, second] = zone.servers;
  if (second !== undefined) second.mode = "silent";
  first?.records.set(TXT, ["value"]);
  await zone.wait();
  assert.ok(asked(second) >= 2, "it had a second chance");
});

test("a server that lacked the record counts when it gives no answer later", async () => {
  await using zone = await startZone();
  const [first, second] = zone.servers;
  const waiting = zone.wait();
  await waitFor(() => asked(second) >= 1 && asked(first) >= 2);
  if (second !== undefined) second.mode = "servfail";
  const before = asked(second);
  first?.records.set(TXT, ["value"]);
  await waitFor(() => asked(second) >= before + 4);
  assert.equal(zone.state(), "waiting");
  if (second !== undefined) second.mode = "normal";
  second?.records.set(TXT, ["value"]);
  await waiting;
});

test("a server that does not have the zone does not count", async () => {
  await using zone = await startZone();
  const [first, second] = zone.servers;
  if (second !== undefined) second.mode = "refused";
  first?.records.set(TXT, ["value"]);
  await zone.wait();
});

test("name servers on IPv6 are asked", async (t) => {
  const zone = await startZone(["::1"]).catch(() => null);
  if (zone === null) return t.skip("this machine has no IPv6 loopback address");
  await using _ = zone;
  zone.servers[0]?.records.set(TXT, ["value"]);
  await zone.wait();
  assert.equal(asked(zone.servers[0]), 1);
});

test("values are found in several strings of one record, and beside others", async () => {
  await using zone = await startZone(["127.0.0.2"]);
  const waiting = zone.wait();
  await waitFor(() => asked(zone.servers[0]) >= 1);
  // dns-packet makes one record of several strings of a list in the list.
  zone.servers[0]?.records.set(TXT, ["x", ["val", "ue"] as unknown as string]);
  await waiting;
});

test("without name servers the resolvers are asked themselves, all of them", async () => {
  await using first = await startDnsServer({ records: { [TXT]: ["value"] } });
  await using second = await startDnsServer();
  let done = false;
  const signal = new AbortController().signal;
  const resolvers = [first.address, second.address];
  const waiting = waitForTxtRecord({ name: NAME, value: "value", resolvers, timeoutMs: 10_000, signal, pollMs: 10 }).then(() => (done = true));
  await waitFor(() => asked(second) >= 3);
  assert.equal(done, false, "one of two shows it");
  second.records.set(TXT, ["value"]);
  await waiting;
});

test("when no name server can be reached, the resolvers are asked", async () => {
  await using zone = await startZone([], { "NS example.com": ["ns.example.com"], "A ns.example.com": ["127.0.0.2"], [TXT]: ["value"] });
  await zone.wait();
  assert.equal(asked(zone.resolver), 1);
});

test("a resolver that is away for a while does not end the wait", async () => {
  await using zone = await startZone(["127.0.0.2"]);
  zone.servers[0]?.records.set(TXT, ["value"]);
  await zone.resolver[Symbol.asyncDispose]();
  const waiting = zone.wait();
  // Long enough for some rounds, which end at once with a refused connection.
  await Promise.race([waiting, delay(200)]);
  assert.equal(zone.state(), "waiting");
  await using resolver = await startDnsServer({ port: zone.resolver.port, records: Object.fromEntries(zone.resolver.records) });
  await waiting;
  assert.ok(resolver.questions.includes("NS example.com"));
});

test("resolvers that do not answer are named when the time is over", async () => {
  await using zone = await startZone();
  zone.resolver.mode = "silent";
  assert.equal(
    await message(zone.wait({ timeoutMs: 200 })),
    `TXT record '${NAME}' did not show within 200ms: the name servers of its zone are not known: no answer from '${zone.resolver.address}'; check that the zone is served from there, or raise 'propagation_timeout'`,
  );
});

test("nobody answers about the record: those who were asked are named", async () => {
  await using zone = await startZone([], { "NS example.com": ["ns.example.com"], "A ns.example.com": ["127.0.0.2"] });
  zone.resolver.records.delete(TXT);
  const text = await message(zone.wait({ timeoutMs: 200 }));
  assert.equal(
    text,
    `TXT record '${NAME}' did not show within 200ms: it is not on '${zone.resolver.address}'; check that the zone is served from there, or raise 'propagation_timeout'`,
  );
});

test("the wait ends at once with the signal, during a question and between two", async () => {
  await using zone = await startZone();
  for (const [mode, pollMs] of [
    ["silent", 10],
    ["normal", 60_000],
  ] as const) {
    for (const server of zone.servers) server.mode = mode;
    const abort = new AbortController();
    const before = asked(zone.servers[1]);
    const waiting = zone.wait({ signal: abort.signal, pollMs });
    await waitFor(() => asked(zone.servers[1]) > before);
    const start = performance.now();
    abort.abort(new Error("stop"));
    await assert.rejects(waiting, /stop/);
    assert.ok(performance.now() - start < 1_000, mode);
  }
});
