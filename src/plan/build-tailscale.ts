// The tailnet of the plan: what tailscaled is told, which ports are opened, and whom a listener or route admits.
import { join } from "node:path";
import type * as Language from "../config/types.ts";
import { parseListenAddress } from "../lib/address.ts";
import { parseTailscaleFlags } from "../lib/tailscale-flags.ts";
import type { TailnetMatch } from "./auth-model.ts";
import type { TailscalePlan } from "./model.ts";
import { durationMs } from "./units.ts";

/** Null when the configuration has no `tailscale`, which `loadConfig` gives to all that have a listener on the tailnet. */
export function buildTailscale({ tailscale, listeners, state }: Language.Config): TailscalePlan | null {
  if (tailscale === undefined) return null;
  const addresses = Object.values(listeners).map(({ listen }) => parseListenAddress(listen));
  const ports = addresses.flatMap((address) => (address?.kind === "tailnet" ? [address.port] : [])).toSorted((a, b) => a - b);
  const timeoutMs = durationMs(tailscale.timeout);
  if (tailscale.socket !== undefined) return { kind: "external", socket: tailscale.socket, timeoutMs, seal: tailscale.seal ?? false, ports };
  return {
    kind: "own",
    hostname: tailscale.hostname?.toLowerCase() ?? null,
    authKey: tailscale.auth_key ?? null,
    tags: tailscale.tags,
    controlUrl: tailscale.control_url ?? null,
    acceptDns: tailscale.accept_dns,
    ephemeral: tailscale.ephemeral,
    timeoutMs,
    seal: tailscale.seal ?? !tailscale.tun,
    tun: tailscale.tun,
    stateDir: tailscale.state_dir ?? join(state.dir, "tailscale"),
    flags: parseTailscaleFlags(tailscale.extra_args).flags,
    ports,
  };
}

export function tailnetMatch({ users, tags, nodes }: Language.TailnetMatch): TailnetMatch {
  return { users: lowerSet(users), tags: lowerSet(tags), nodes: lowerSet(nodes) };
}

function lowerSet(texts: readonly string[] | undefined): ReadonlySet<string> | null {
  return texts === undefined ? null : new Set(texts.map((text) => text.toLowerCase()));
}
