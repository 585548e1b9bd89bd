// How the commands show the tailnet. All that peers and the control server name passes through plainLine.
import type { GatewayStatus, TailnetClientStatus } from "../admin/status.ts";
import type { TailnetState, TailnetStatus } from "../tailscale/status.ts";
import { fromNow } from "./certificate-text.ts";
import { colored, formatTable, plainLine, type Color } from "./table.ts";

type Tailnet = NonNullable<GatewayStatus["tailnet"]>;
type Line = readonly [title: string, text: string, color?: Color | undefined];

const STATES: Record<TailnetState, string> = {
  off: "tailscaled does not run",
  starting: "starting",
  needs_login: "needs a login",
  needs_approval: "needs the approval of an administrator",
  stopped: "stopped",
  expired: "the key has expired",
  running: "running",
};
const KEY_WARNING_MS = 7 * 86_400_000;

/** The node as a block of what is to be known of it, and who is connected as a table below it. */
export function formatTailnet(tailnet: Tailnet, now: Date, colors: boolean): string {
  const { name, hostname, state, reason, serving, warnings, login_url, addresses, user, tags, version, mode, socket, restarts, seal, clients } = tailnet;
  const lines: readonly Line[] = [
    ["state", `${STATES[state]}${state === "running" && !serving ? ", not serving" : ""}`, serving ? "green" : "red"],
    ["reason", reason, serving ? "yellow" : "red"],
    ["log in at", login_url ?? "", "bold"],
    ...warnings.map((warning): Line => ["warning", warning, "yellow"]),
    ["addresses", addresses.join(" ")],
    ["tailnet", tailnet.tailnet],
    ["tags", tags.join(" ")],
    ["user", tags.length > 0 ? "" : (user ?? "")],
    keyLine(tailnet, now),
    ["seal", sealText(seal), seal.enabled && !seal.active ? "red" : undefined],
    ["tailscaled", [mode, version, restarts > 0 ? `started again ${times(restarts)}` : "", socket].filter((text) => text !== "").join(", ")],
  ];
  const shown = lines.filter(([, text]) => text !== "");
  return (
    `${colored("TAILNET", "dim", colors)}  ${plainLine(name || (hostname ?? "") || "no name yet")}\n` +
    shown.map(([title, text, color]) => `  ${title.padEnd(10)} ${color === undefined ? plainLine(text) : colored(plainLine(text), color, colors)}\n`).join("") +
    (clients.length === 0 ? "" : `\n${formatClients(clients, colors)}`)
  );
}

function keyLine({ state, key_expires_at }: Tailnet, now: Date): Line {
  // Before the login there is no key.
  if (key_expires_at === null) return ["key", state === "running" ? "does not expire" : ""];
  const leftMs = Date.parse(key_expires_at) - now.getTime();
  const text = `${leftMs > 0 ? "expires" : "expired"} ${fromNow(key_expires_at, now)}, ${key_expires_at.slice(0, 16).replace("T", " ")} UTC`;
  return leftMs <= 0 ? ["key", text, "red"] : leftMs < KEY_WARNING_MS ? ["key", text, "yellow"] : ["key", text];
}

function sealText({ enabled, active, open, refused, foreign, error }: TailnetStatus["seal"]): string {
  const ports = open.length === 0 ? "" : `; open: ${open.join(" ")}`;
  if (!enabled) return `off: the tailnet reaches what else listens here${ports}`;
  const others = foreign.length === 0 ? "" : `; of other programs: ${foreign.join(" ")}`;
  return `${active ? `${refused} ports refused` : "not set"}${ports}${others}${error === "" ? "" : `; ${error}`}`;
}

function formatClients(clients: readonly TailnetClientStatus[], colors: boolean): string {
  return formatTable(
    ["LISTENER", "NODE", "USER/TAGS", "ADDRESS", "CONNECTIONS"],
    clients.map(({ listener, node, user, tags, address, connections }) => [
      listener,
      node,
      tags.length > 0 ? tags.join(" ") : (user ?? ""),
      address,
      String(connections),
    ]),
    colors,
  );
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}
