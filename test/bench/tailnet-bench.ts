// A tailnet to measure: a peer, a gateway, and a node without one, with the same service behind both.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../components/free-port.ts";
import { startTailnet } from "../components/tailnet.ts";
import { startTailnetGateway } from "../components/tailnet-gateway.ts";
import { openTcpPeer } from "./tcp-load.ts";

export type TailnetBench = {
  /** Ports of 127.0.0.1 that lead from the peer to the service, and the process whose children and itself bring it there: behind the gateway first, then direct. */
  readonly ways: readonly { readonly name: "sidegate" | "direct"; readonly port: number; readonly pid: number }[];
  /** Idempotent. */
  close(): Promise<void>;
};

/** Starts all of it. A tailscaled without a seal hands its ports to localhost: that is the direct way. */
export async function openTailnetBench(): Promise<TailnetBench> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "sidegate-bench-tailnet-"));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const service = await openTcpPeer();
  stack.defer(() => service.close());
  const tailnet = stack.use(await startTailnet());
  const [peer, plain] = await Promise.all([tailnet.node("peer"), tailnet.node("plain")]);
  const port = await freePort();
  const gateway = stack.use(
    await startTailnetGateway(tailnet, {
      yaml: `access_log: { dir: ${dir} }
listeners:
  relay: { protocol: tcp, listen: "tailnet:${port}", upstream: "127.0.0.1:${service.port}" }
`,
      // Its lines would cost the process that makes the load.
      env: { SIDEGATE_LOG_LEVEL: "info" },
      expectErrors: true,
    }),
  );
  const [behind, direct] = [stack.use(await peer.forward("gateway", port)), stack.use(await peer.forward("plain", service.port))];
  const all = stack.move();
  return {
    ways: [
      { name: "sidegate", port: behind.port, pid: gateway.child.pid ?? 0 },
      { name: "direct", port: direct.port, pid: plain.child.pid ?? 0 },
    ],
    close: () => all.disposeAsync(),
  };
}
