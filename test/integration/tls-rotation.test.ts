// Certificates from files that are replaced while clients are busy: nobody notices but by the new certificate, and what does not fit never serves.
import assert from "node:assert/strict";
import { mkdir, readdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { Agent, request, type RequestOptions } from "node:https";
import { connect } from "node:tls";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { createTestCa, type Pair } from "../components/pki.ts";
import { waitFor } from "../components/wait.ts";

const ROTATIONS = 50;
// On each of the two listeners.
const KEPT = 8;
const FRESH = 8;
// Between two requests of a client, so that it and the gateway share two cores with others.
const PAUSE_MS = 25;
// The promise is a second, on a machine that does nothing else.
const MAX_ROTATION_MS = 3_000;
const MEDIAN_ROTATION_MS = 1_000;

const ca = createTestCa("Rotating CA");
// Neighbours differ, that is what counts.
const pairs = Array.from({ length: 6 }, (_, i) => ca.issue(`/CN=pair-${i}`, { san: "DNS:localhost" }));
const pairOf = (i: number): Pair => pairs[i % pairs.length] as Pair;
const nameOf = (i: number): string => `pair-${i % pairs.length}`;

let origin: Origin;
before(async () => {
  origin = await startOrigin((_, response) => void response.end("ok"));
});
after(() => origin[Symbol.asyncDispose]());

const yaml = (): string => `listeners:
  files: { protocol: http, listen: "127.0.0.1:0", tls: { cert_file: tls.crt, key_file: tls.key } }
  mounted: { protocol: http, listen: "127.0.0.1:0", tls: { cert_file: secret/tls.crt, key_file: secret/tls.key } }
access_log: off
routes:
  - { upstream: "${origin.url}", auth: none }
`;

/** Starts with pair 0 in both places. */
async function start(): Promise<{ gateway: Gateway; dir: string }> {
  const { cert, key } = pairOf(0);
  // The directory of the secret cannot be made before the start: its listener begins with the files beside the configuration.
  const gateway = await startGateway({
    yaml: yaml().replaceAll("secret/", ""),
    files: { "tls.crt": cert, "tls.key": key },
    env: { SIDEGATE_LOG_LEVEL: "info" },
    expectErrors: true,
  });
  const dir = `${gateway.dir}/config`;
  await mkdir(`${dir}/secret`);
  await swapDirectory(dir, 0);
  for (const name of ["tls.crt", "tls.key"]) await symlink(`..data/${name}`, `${dir}/secret/${name}`);
  await gateway.edit(yaml());
  return { gateway, dir };
}

async function replaceFile(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

/** As Kubernetes renews a mounted secret: a new directory, to which the link ..data is turned by one rename; the old one is deleted. */
async function swapDirectory(dir: string, i: number): Promise<void> {
  const [secret, { cert, key }] = [`${dir}/secret`, pairOf(i)];
  const old = (await readdir(secret)).filter((name) => name.startsWith("..2"));
  await mkdir(`${secret}/..2026_${i}`);
  await writeFile(`${secret}/..2026_${i}/tls.crt`, cert);
  await writeFile(`${secret}/..2026_${i}/tls.key`, key);
  await symlink(`..2026_${i}`, `${secret}/..data_tmp`);
  await rename(`${secret}/..data_tmp`, `${secret}/..data`);
  for (const name of old) await rm(`${secret}/${name}`, { recursive: true });
}

/** Common name of the certificate that a new connection gets; its chain is verified. */
function servedBy(port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect({ port, host: "127.0.0.1", servername: "localhost", ca: ca.cert }, () => {
    resolve(String(socket.getPeerCertificate().subject.CN));
    socket.destroy();
  });
  socket.on("error", reject);
  return promise;
}

type Load = AsyncDisposable & { readonly failures: string[]; readonly answers: () => number; readonly keptConnections: () => number; end(): Promise<void> };

/** Half of the clients keep their connection, half open a new one for each request. */
function load(ports: readonly number[]): Load {
  const failures: string[] = [];
  const locals = new Set<string>();
  let answers = 0;
  let ended = false;
  const ask = (options: RequestOptions, kept: boolean): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const fail = (error: Error): void => {
      failures.push(error.message);
      resolve();
    };
    const call = request({ host: "127.0.0.1", servername: "localhost", ca: ca.cert, ...options }, (response) => {
      if (response.statusCode !== 200) failures.push(`status ${response.statusCode}`);
      if (kept) locals.add(`${String(options.port)} ${response.socket.localPort}`);
      response.on("error", fail);
      response.resume().on("end", () => {
        answers += 1;
        resolve();
      });
    });
    call.on("error", fail);
    call.end();
    return promise;
  };
  const agents: Agent[] = [];
  const clients = ports.flatMap((port) => {
    const agent = new Agent({ keepAlive: true, maxSockets: KEPT });
    agents.push(agent);
    return Array.from({ length: KEPT + FRESH }, async (_, i) => {
      while (!ended) {
        await ask({ port, agent: i < KEPT ? agent : false }, i < KEPT);
        await delay(PAUSE_MS);
      }
    });
  });
  const end = async (): Promise<void> => {
    ended = true;
    await Promise.all(clients);
    for (const agent of agents) agent.destroy();
  };
  return { failures, answers: () => answers, keptConnections: () => locals.size, end, [Symbol.asyncDispose]: end };
}

const refused = (gateway: Gateway): string[] => gateway.log.filter(({ event }) => event === "reload_refused").map(({ text }) => String(text));

test("fifty rotations under 32 busy clients, in either order, by rename and by a swapped directory, cost no handshake and no request", async (t) => {
  const { gateway, dir } = await start();
  await using _ = gateway;
  const [files, mounted] = [gateway.port("files"), gateway.port("mounted")];
  await using busy = load([files, mounted]);
  const times: number[] = [];
  let mismatches = 0;
  for (let i = 1; i <= ROTATIONS; i += 1) {
    const { cert, key } = pairOf(i);
    const isSwap = i % 3 === 0;
    const port = isSwap ? mounted : files;
    const before = await servedBy(port);
    assert.notEqual(before, nameOf(i));
    if (isSwap) await swapDirectory(dir, i);
    else {
      const steps = [
        ["tls.crt", cert],
        ["tls.key", key],
      ] as const;
      const [first, second] = i % 2 === 0 ? steps : [steps[1], steps[0]];
      const count = refused(gateway).length;
      await replaceFile(`${dir}/${first[0]}`, first[1]);
      // Now and then the second file is later than the moment that it gets, as when somebody copies them by hand.
      if (i % 20 === 1) {
        await waitFor(() => refused(gateway).length > count, { what: () => `the pair of rotation ${i} to be refused` });
        assert.match(refused(gateway).at(-1) ?? "", /tls\.key' (?:is|does)/);
        assert.equal(await servedBy(port), before);
        mismatches += 1;
      }
      await replaceFile(`${dir}/${second[0]}`, second[1]);
    }
    const replacedAt = performance.now();
    await waitFor(async () => (await servedBy(port)) === nameOf(i), {
      timeoutMs: MAX_ROTATION_MS,
      what: () => `rotation ${i} to serve: ${refused(gateway).at(-1)}`,
    });
    times.push(performance.now() - replacedAt);
  }
  await busy.end();
  assert.deepEqual([...new Set(busy.failures)], []);
  assert.ok(busy.answers() > ROTATIONS * 5, `only ${busy.answers()} answers`);
  assert.equal(busy.keptConnections(), 2 * KEPT, "connections that were open go on");
  assert.ok(mismatches >= 2);
  assert.equal(refused(gateway).length, mismatches, "two files that follow each other are no mistake");
  const sorted = times.toSorted((a, b) => a - b);
  const median = sorted[ROTATIONS / 2] ?? Infinity;
  assert.ok(median < MEDIAN_ROTATION_MS, `median ${Math.round(median)} ms`);
  t.diagnostic(
    `served after ${Math.round(median)} ms (median), ${Math.round(sorted.at(-1) ?? 0)} ms (longest); ${busy.answers()} answers; ${refused(gateway).length} refusals of ${mismatches} late files`,
  );
});

test("a broken file is refused once, with its name, while the old pair serves and open connections go on; the next good pair serves", async () => {
  const { gateway, dir } = await start();
  await using _ = gateway;
  const port = gateway.port("files");
  await using busy = load([port]);
  const kept = connect({ port, host: "127.0.0.1", servername: "localhost", ca: ca.cert });
  const answered = async (): Promise<void> => {
    assert.ok(!kept.destroyed, "the open connection goes on");
    const heard = new Promise<Buffer>((resolve, reject) => kept.once("data", resolve).once("error", reject).once("close", reject));
    kept.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert.match((await heard).toString(), /^HTTP\/1\.1 200/);
    kept.removeAllListeners("error").removeAllListeners("close");
  };
  const put: Record<string, (path: string, text: string) => Promise<void>> = {
    truncated: (path, text) => replaceFile(path, text.slice(0, text.length / 2)),
    empty: (path) => replaceFile(path, ""),
    "no PEM": (path) => replaceFile(path, "not found"),
    missing: (path) => rm(path),
    "a directory": async (path) => {
      await rm(path);
      await mkdir(path);
    },
    // To root no permission is denied, but links in a circle and the memory of a process are beyond it, too.
    "links in a circle": async (path) => {
      await rm(path);
      await symlink(path, path);
    },
    "an unreadable file": async (path) => {
      await rm(path);
      await symlink("/proc/self/mem", path);
    },
  };
  let next = 0;
  for (const [i, [what, breakFile]] of Object.entries(put).entries()) {
    // Either of both in turn.
    const name = i % 2 === 0 ? "tls.crt" : "tls.key";
    const path = `${dir}/${name}`;
    const count = refused(gateway).length;
    const { cert, key } = pairOf(next);
    await breakFile(path, name === "tls.crt" ? cert : key);
    await waitFor(() => refused(gateway).length > count, { what: () => `${what} as ${name} to be refused` });
    assert.match(refused(gateway).at(-1) ?? "", new RegExp(`${path}'`), what);
    assert.doesNotMatch(refused(gateway).join("\n"), /PRIVATE KEY-----\n|^[A-Za-z0-9+/]{40}/m);
    assert.equal(await servedBy(port), nameOf(next), what);
    await answered();
    next += 1;
    await rm(path, { recursive: true, force: true });
    await replaceFile(`${dir}/tls.crt`, pairOf(next).cert);
    await replaceFile(`${dir}/tls.key`, pairOf(next).key);
    await waitFor(async () => (await servedBy(port)) === nameOf(next), { timeoutMs: MAX_ROTATION_MS, what: () => `the pair after ${what} to serve` });
    await answered();
  }
  await busy.end();
  assert.deepEqual([...new Set(busy.failures)], []);
  assert.equal(busy.keptConnections(), KEPT);
  kept.destroy();
});
