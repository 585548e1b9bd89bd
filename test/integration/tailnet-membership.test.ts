// Who belongs to the tailnet changes: the key of the gateway's node expires, it is logged out, restarts; a peer goes, or loses what admitted it.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runSidegate } from "../components/command.ts";
import type { Running } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { skipWithout } from "../components/require.ts";
import { readiness, servesLocally, told } from "../components/tailnet-faults.ts";
import { startTailnetGateway, type TailnetGateway } from "../components/tailnet-gateway.ts";
import { knock, startSpeaker } from "../components/tailnet-knock.ts";
import { missingTailnet, startTailnet, type TailnetNode } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

// What the issue promises: cut within a minute. On top of it comes what a busy machine needs.
const PATIENCE = { timeoutMs: 50_000 };
const missing = missingTailnet();
const origin = createServer((_, response) => response.end("hello"));
// A session of the plain listener lives as long as its peer may.
origin.keepAliveTimeout = 0;
origin.on("upgrade", (_, socket) => void socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"));

let service: Running;
let dir: string;

before(async () => {
  service = await startSpeaker("service");
  dir = await mkdtemp(join(tmpdir(), "sidegate-members-"));
  await once(origin.listen(0, "127.0.0.1"), "listening");
});
after(async () => {
  origin.close();
  origin.closeAllConnections();
  await service[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

const listeners = (port: number): string => `listeners:
  node: { protocol: tcp, listen: "tailnet:${port}", upstream: "127.0.0.1:${service.port}" }
  local: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${service.port}" }
`;

/** Whether the node hears the service on the port. */
const hears = async (node: TailnetNode, port: number): Promise<boolean> => (await knock(node, "gateway", port)).heard === "service";

/** An HTTP connection of a node that is kept open: asks a path, and resolves with the status line. */
async function ask(socket: Socket, path: string, more = ""): Promise<string> {
  const answered = once(socket, "data");
  socket.resume();
  socket.write(`GET ${path} HTTP/1.1\r\nhost: gateway\r\n${more}\r\n`);
  return String((await answered)[0]).split("\r\n", 1)[0] ?? "";
}

function isCut(socket: Socket): Promise<unknown> {
  return waitFor(() => socket.closed, { ...PATIENCE, what: () => "the connection to be cut" });
}

// They mostly wait.
describe("on the tailnet", { concurrency: 3, timeout: 85_000 }, () => {
  test("a node whose key expires refuses connections and says so, and is back when the key is extended", async (t) => {
    if (skipWithout(t, missing)) return;
    const port = await freePort();
    await using tailnet = await startTailnet();
    const [laptop, gateway] = await Promise.all([tailnet.node("laptop"), startTailnetGateway(tailnet, { yaml: listeners(port) })]);
    await using _ = gateway;
    assert.ok(await hears(laptop, port));
    await tailnet.expire("gateway", "72h");
    await told(gateway, /The key of the node expires on .*: log in anew before, switch the expiry off in the admin console, or use tags/, "degraded");
    assert.ok(await hears(laptop, port));
    await tailnet.expireAll(true);
    await told(gateway, /The key of the node has expired.*; Put a new auth key in 'tailscale\.auth_key', or let an administrator extend the key of the node/);
    assert.notEqual((await knock(laptop, "gateway", port)).end, "answered");
    await servesLocally(gateway);
    await tailnet.expireAll(false);
    await tailnet.expire("gateway", null);
    await gateway.serving();
    // The test control may keep the old expiry beside the new key, of which a warning tells.
    assert.notEqual((await readiness(gateway)).status, "unready");
  });

  test("a logout by command lasts until the gateway is restarted, and says so", async (t) => {
    if (skipWithout(t, missing)) return;
    const port = await freePort();
    await using tailnet = await startTailnet();
    const yaml = `state: { dir: "${dir}/logout" }\n${listeners(port)}`;
    const laptop = await tailnet.node("laptop");
    {
      await using gateway = await startTailnetGateway(tailnet, { yaml });
      assert.ok(await hears(laptop, port));
      const out = await runSidegate(["tailnet", "logout", gateway.file]);
      assert.deepEqual([out.code, out.stdout], [0, "Logged out; a restart of the gateway or another 'tailscale.auth_key' joins again\n"], out.stderr);
      await told(gateway, /Logged out by command: to join again, restart the gateway or change 'tailscale\.auth_key'/);
      await servesLocally(gateway);
      assert.notEqual((await knock(laptop, "gateway", port)).end, "answered");
      const shown = await runSidegate(["tailnet", "status", gateway.file]);
      assert.match(shown.stdout, /stopped.*Logged out by command/s);
    }
    await using gateway = await startTailnetGateway(tailnet, { yaml });
    assert.equal((await readiness(gateway)).status, "ready");
    const { addresses } = (await gateway.status()).tailnet as { addresses: string[] };
    await waitFor(async () => (await knock(laptop, addresses[0] ?? "", port)).heard === "service", PATIENCE);
  });

  test("a restart keeps the node, without a key, under another host name and with other tags", async (t) => {
    if (skipWithout(t, missing)) return;
    const port = await freePort();
    await using tailnet = await startTailnet({ tagOwners: "tag:a=,tag:b=tag:a" });
    const yaml = (settings: string): string =>
      `tailscale: { control_url: "${tailnet.controlUrl}", ${settings} }\nstate: { dir: "${dir}/restart" }\n${listeners(port)}`;
    const first = await startTailnetGateway(tailnet, { yaml: yaml("hostname: gateway, tags: [tag:a]") });
    await first[Symbol.asyncDispose]();
    const [known] = await tailnet.nodes();
    assert.deepEqual([known?.Name, known?.Tags], ["gateway.tail.test", ["tag:a"]]);

    await using second = await startTailnetGateway(tailnet, { yaml: yaml("hostname: other, tags: [tag:b]"), authKey: null });
    // The test control grants new tags by itself, and new names when it is told.
    const settings = (): Promise<boolean> => second.status().then(({ tailnet: { tags, hostname } }) => hostname === "other" && tags.join() === "tag:b");
    await waitFor(settings, PATIENCE);
    await tailnet.rename("gateway", "other");
    await waitFor(async () => (await second.status()).tailnet.name === "other.tail.test", PATIENCE);
    const nodes = await tailnet.nodes();
    assert.deepEqual(
      nodes.map(({ ID, Name, Tags }) => [ID, Name, Tags]),
      [[known?.ID, "other.tail.test", ["tag:b"]]],
    );
    assert.ok(!second.log.some(({ event }) => event === "tailnet_login"));
  });

  test("a peer that is removed, and one that loses its tag, are cut within a minute, whatever they speak", async (t) => {
    if (skipWithout(t, missing)) return;
    const [tcp, http] = [await freePort(), await freePort()];
    await using tailnet = await startTailnet();
    const nodes = await Promise.all(["leaver", "demoted", "staying"].map((name) => tailnet.node(name, { tags: ["tag:bots"] })));
    const quiet = membersOnly(tcp, http);
    const gateway: TailnetGateway = await startTailnetGateway(tailnet, { yaml: quiet });
    await using _ = gateway;
    const upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    const connections = await Promise.all(
      nodes.map(async (node) => {
        const [plain, keptAlive, webSocket] = await Promise.all([node.dial("gateway", tcp), node.dial("gateway", http), node.dial("gateway", http)]);
        const all = [plain, keptAlive, webSocket];
        for (const socket of all) t.after(() => socket.on("error", () => {}).destroy());
        assert.equal(await ask(plain, "/"), "HTTP/1.1 200 OK");
        assert.equal(await ask(keptAlive, "/"), "HTTP/1.1 200 OK");
        assert.equal(await ask(webSocket, "/", upgrade), "HTTP/1.1 101 Switching Protocols");
        return { plain, keptAlive, webSocket, all };
      }),
    );
    const [leaver, demoted, staying] = connections;
    assert.ok(leaver !== undefined && demoted !== undefined && staying !== undefined);
    await tailnet.setTags("demoted", ["tag:others"]);
    await Promise.all([isCut(demoted.plain), isCut(demoted.webSocket)]);
    // What is asked on a connection that is kept is judged by whose it is now.
    if (!demoted.keptAlive.closed) assert.equal(await ask(demoted.keptAlive, "/"), "HTTP/1.1 403 Forbidden");
    // The test control tells of nothing else after a removal.
    await tailnet.remove("leaver");
    await waitFor(async () => !(await gateway.status()).tailnet.clients.some(({ node }: { node: string }) => node === "leaver"), PATIENCE);
    assert.ok(gateway.log.some(({ msg, reason }) => msg === "Connections from the tailnet are closed" && reason === "its node is gone or its key has expired"));
    assert.ok(gateway.log.some(({ msg, reason }) => msg === "Connections from the tailnet are judged anew" && reason === "its user, tags or name changed"));
    assert.equal(await ask(staying.plain, "/"), "HTTP/1.1 200 OK");
    assert.equal(await ask(staying.keptAlive, "/"), "HTTP/1.1 200 OK");
    assert.ok(!staying.webSocket.closed);
  });
});

function membersOnly(tcp: number, http: number): string {
  const { port } = origin.address() as AddressInfo;
  return `listeners:
  tcp: { protocol: tcp, listen: "tailnet:${tcp}", upstream: "127.0.0.1:${port}", allow: { tailnet: { tags: [tag:bots] } } }
  http: { protocol: http, listen: "tailnet:${http}" }
upstreams: { origin: "http://127.0.0.1:${port}" }
routes: [{ upstream: origin, auth: [{ tailnet: { tags: [tag:bots] } }] }]
`;
}
