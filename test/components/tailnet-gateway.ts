// The gateway as a node of a test tailnet.
import { dirname } from "node:path";
import { startGateway, type Gateway } from "./gateway.ts";
import { findProgram } from "./require.ts";
import type { TestTailnet } from "./tailnet.ts";
import { waitFor } from "./wait.ts";

const SERVE_TIMEOUT_MS = 45_000;

export type TailnetGateway = Gateway & {
  /** Waits until it serves the tailnet with these ports open, or with whatever is open. */
  serving(ports?: readonly number[]): Promise<void>;
};

/** What a gateway that runs a tailscaled of the tailnet needs in its environment. */
export function gatewayEnv(tailnet: TestTailnet): Record<string, string> {
  const programs = dirname(findProgram("tailscaled") ?? "");
  return { ...tailnet.env, PATH: `${programs}:${process.env["PATH"]}` };
}

/**
 * Starts a gateway and, unless `wait` is false, waits until it serves the tailnet.
 * @param args.yaml listeners and routes; the `tailscale` section is added where it has none
 * @param args.hostname default `gateway`
 * @param args.authKey default: one that the test control accepts; null: none
 */
export async function startTailnetGateway(
  tailnet: TestTailnet,
  args: Parameters<typeof startGateway>[0] & { hostname?: string; authKey?: string | null; wait?: boolean },
): Promise<TailnetGateway> {
  const { hostname = "gateway", authKey = "tskey-auth-test", wait = true } = args;
  const head = /^tailscale:/m.test(args.yaml) ? "" : `tailscale: { hostname: ${hostname}, control_url: "${tailnet.controlUrl}" }\n`;
  const withHead = (yaml: string): string => (/^tailscale:/m.test(yaml) ? yaml : head + yaml);
  const env = { ...gatewayEnv(tailnet), ...(authKey === null ? {} : { TS_AUTHKEY: authKey }), ...args.env };
  const gateway = await startGateway({ ...args, yaml: withHead(args.yaml), env });
  const serving = async (ports?: readonly number[]): Promise<void> => {
    let last: unknown;
    await waitFor(
      async () => {
        const { tailnet: now } = await gateway.status();
        last = now;
        return now?.serving === true && (ports === undefined || JSON.stringify(now.seal.open) === JSON.stringify(ports.toSorted((a, b) => a - b)));
      },
      { timeoutMs: SERVE_TIMEOUT_MS, what: () => `the tailnet to be served, which is ${JSON.stringify(last)}` },
    );
  };
  const node: TailnetGateway = {
    ...gateway,
    serving,
    edit: (yaml) => gateway.edit(withHead(yaml)),
    save: (yaml) => gateway.save(withHead(yaml)),
  };
  if (!wait) return node;
  try {
    await serving();
  } catch (error) {
    await gateway.stop("SIGKILL");
    throw error;
  }
  return node;
}
