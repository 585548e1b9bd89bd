// The flags of `tailscale up` that `extra_args` may hold: parsed as Go parses them, and sorted into what is taken, what has a key of its own and what is refused.
import { isIP } from "node:net";
import { parseNetwork } from "./address.ts";
import { nearest } from "./nearest.ts";
import { firstAddress, hasHostBits } from "./network.ts";

/** What flags of `tailscale up` may set besides what has keys of its own. Everything is always told to tailscaled, so that a flag that is taken away has an effect. */
export type TailscaleFlags = {
  readonly acceptRoutes: boolean;
  /** Networks; an exit node has 0.0.0.0/0 and ::/0 among them. */
  readonly advertiseRoutes: readonly string[];
  /** Address of a node; null = none. */
  readonly exitNode: string | null;
  readonly exitNodeAllowLanAccess: boolean;
  readonly snatSubnetRoutes: boolean;
  readonly statefulFiltering: boolean;
  readonly advertiseConnector: boolean;
  readonly reportPosture: boolean;
  /** Null: none. */
  readonly operator: string | null;
};

/** A key of the `tailscale` section that says what a flag says. */
export type FlagKey = "hostname" | "tags" | "auth_key" | "control_url" | "accept_dns" | "timeout";

export type ParsedFlags = {
  readonly flags: TailscaleFlags;
  /** The arguments that `flags` come from. */
  readonly kept: readonly string[];
  /** Flags that have keys of their own; the last one of a kind wins. The value may be a secret. */
  readonly keys: readonly { readonly index: number; readonly flag: string; readonly key: FlagKey; readonly value: string }[];
  /** Flags that change nothing here. */
  readonly idle: readonly { readonly index: number; readonly message: string }[];
  /** Sentences, by the index of the argument that they are about. They hold no secret. */
  readonly problems: readonly { readonly index: number; readonly message: string }[];
};

type Kind = "boolean" | "text";

const TAKEN: Readonly<Record<string, Kind>> = {
  "accept-routes": "boolean",
  "advertise-routes": "text",
  "advertise-exit-node": "boolean",
  "exit-node": "text",
  "exit-node-allow-lan-access": "boolean",
  "snat-subnet-routes": "boolean",
  "stateful-filtering": "boolean",
  "advertise-connector": "boolean",
  "report-posture": "boolean",
  operator: "text",
};

const KEYS: Readonly<Record<string, { readonly key: FlagKey; readonly kind: Kind }>> = {
  hostname: { key: "hostname", kind: "text" },
  "advertise-tags": { key: "tags", kind: "text" },
  "auth-key": { key: "auth_key", kind: "text" },
  authkey: { key: "auth_key", kind: "text" },
  "login-server": { key: "control_url", kind: "text" },
  "accept-dns": { key: "accept_dns", kind: "boolean" },
  timeout: { key: "timeout", kind: "text" },
};

const SETTINGS_TOLD = "every setting is told to tailscaled at each start and reload";
const NO_TERMINAL = "nobody sits at a terminal";

/** With the reason why they change nothing. */
const IDLE: Readonly<Record<string, { readonly kind: Kind; readonly why: string }>> = {
  reset: { kind: "boolean", why: SETTINGS_TOLD },
  "force-reauth": { kind: "boolean", why: "'sidegate tailnet logout' makes the node log in anew" },
  "accept-risk": { kind: "text", why: NO_TERMINAL },
  json: { kind: "boolean", why: NO_TERMINAL },
  qr: { kind: "boolean", why: NO_TERMINAL },
  "qr-format": { kind: "text", why: NO_TERMINAL },
  "host-routes": { kind: "boolean", why: "Tailscale itself takes no other value than true" },
  nickname: { kind: "text", why: "tailscaled has one account here" },
  unattended: { kind: "boolean", why: "it is for Windows" },
};

const DAEMON = "is a flag of tailscaled, which Sidegate starts itself";
const FEDERATION = "is not supported: give 'auth_key', which may be an OAuth client secret (tskey-client-...)";

/** Ends of the sentence "'--flag' ...". */
const REFUSED: Readonly<Record<string, string>> = {
  ssh: "would open a second door past the gateway: shells on this machine for whom the tailnet's policy admits",
  webclient: "would open a second door past the gateway: the web interface of tailscaled on port 5252",
  "remote-config": "would hand the node, and with it the seal, to whoever administers the tailnet",
  "shields-up": "would close the node to the tailnet, and with it every 'tailnet:' listener; the seal closes all other TCP ports",
  "netfilter-mode": "is not supported: tailscaled's own choice is kept",
  "client-id": FEDERATION,
  "client-secret": FEDERATION,
  "id-token": FEDERATION,
  audience: FEDERATION,
  "auto-update": "is not supported: tailscaled comes with the image, and is updated with it",
  "update-check": "is not supported: tailscaled comes with the image, and is updated with it",
  tun: `${DAEMON}; write the key 'tun: true' for a kernel interface, and nothing for userspace networking`,
  statedir: `${DAEMON}; write the key 'state_dir'`,
  state: `${DAEMON}; write the key 'state_dir'`,
  socket: `${DAEMON}; the key 'socket' is for one that runs already`,
  port: DAEMON,
  verbose: DAEMON,
  "socks5-server": DAEMON,
  "outbound-http-proxy-listen": DAEMON,
};

// As strconv.ParseBool of Go.
const TRUE = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE = ["0", "f", "F", "FALSE", "false", "False"];

const EXIT_ROUTES = ["0.0.0.0/0", "::/0"];

/** Parses arguments of `tailscale up`: `--flag`, `--flag=value`, `--flag value` for those that are not switches, with one or two dashes. */
export function parseTailscaleFlags(args: readonly string[]): ParsedFlags {
  const problems: { index: number; message: string }[] = [];
  const idle: { index: number; message: string }[] = [];
  const keys: { index: number; flag: string; key: FlagKey; value: string }[] = [];
  const kept: string[] = [];
  const taken = new Map<string, { readonly index: number; readonly value: string }>();
  for (let i = 0; i < args.length; i += 1) {
    const index = i;
    const fail = (message: string): unknown => problems.push({ index, message });
    const [, name = "", rest] = /^--?(?!tskey)([A-Za-z0-9][\w-]*)(?:=(.*))?$/s.exec(args[i] ?? "") ?? [];
    if (name === "") {
      fail(explainNoFlag(args[i] ?? ""));
      continue;
    }
    const refused = entry(REFUSED, name);
    // A door that stays shut.
    if (refused !== undefined && FALSE.includes(rest ?? "")) {
      idle.push({ index, message: `'--${name}' does nothing here: it is off anyway` });
      continue;
    }
    const kind = entry(TAKEN, name) ?? entry(KEYS, name)?.kind ?? entry(IDLE, name)?.kind;
    if (kind === undefined) {
      fail(refused === undefined ? explainUnknown(name) : `'--${name}' ${refused}`);
      // Its value, if it is one.
      if (rest === undefined && args[i + 1]?.startsWith("-") === false) i += 1;
      continue;
    }
    let value = rest ?? "true";
    if (kind === "text" && rest === undefined) {
      i += 1;
      value = args[i] ?? "";
      if (i === args.length) {
        fail(`'--${name}' needs a value: --${name}=...`);
        continue;
      }
    }
    if (kind === "boolean") {
      if (!TRUE.includes(value) && !FALSE.includes(value)) {
        fail(`'--${name}' is true or false: write --${name}, or --${name}=false`);
        continue;
      }
      value = String(TRUE.includes(value));
    }
    const known = entry(KEYS, name);
    const why = entry(IDLE, name)?.why;
    if (known !== undefined) keys.push({ index, flag: name, key: known.key, value });
    else if (why !== undefined) idle.push({ index, message: `'--${name}' does nothing here: ${why}` });
    else {
      kept.push(`--${name}=${value}`);
      taken.set(name, { index, value });
    }
  }
  const flags = interpret(taken, (name, message) => problems.push({ index: taken.get(name)?.index ?? 0, message: `'--${name}' ${message}` }));
  return { flags, kept, keys, idle, problems: problems.toSorted((a, b) => a.index - b.index) };
}

/** Names such as 'constructor' are in no table. */
function entry<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

function explainNoFlag(arg: string): string {
  const [, flag] = /^(--?[A-Za-z][\w-]*)\s+\S/.exec(arg) ?? [];
  if (/\s-/.test(arg)) return "Several flags stand in one entry; give each of them an entry of its own";
  if (flag !== undefined) return `'${flag}' and its value are two arguments; write ${flag}=VALUE, each flag an entry of its own`;
  return "This is not a flag: flags begin with '--', and their values follow a '='";
}

function explainUnknown(name: string): string {
  const known = [...Object.keys(TAKEN), ...Object.keys(KEYS)];
  const meant = nearest(name, known);
  const shown = name.length > 40 ? `${name.slice(0, 37)}...` : name;
  return `Unknown flag '--${shown}'; ${meant === null ? `known: ${Object.keys(TAKEN).join(", ")}` : `did you mean '--${meant}'?`}`;
}

function interpret(taken: ReadonlyMap<string, { readonly value: string }>, fail: (name: string, message: string) => void): TailscaleFlags {
  const is = (name: string, otherwise = false): boolean => (taken.get(name)?.value ?? String(otherwise)) === "true";
  const text = (name: string): string => taken.get(name)?.value ?? "";
  const isExitNode = is("advertise-exit-node");
  const exitNode = text("exit-node");
  const operator = text("operator");
  if (exitNode !== "" && isIP(exitNode) === 0) fail("exit-node", "takes the address of a node, as 100.64.0.7; 'tailscale exit-node list' shows them");
  if (exitNode !== "" && isExitNode) fail("exit-node", "contradicts '--advertise-exit-node': a node that uses an exit node cannot be one");
  if (exitNode === "" && is("exit-node-allow-lan-access")) fail("exit-node-allow-lan-access", "does nothing without '--exit-node'");
  if (operator !== "" && !/^[A-Za-z_][\w.-]*\$?$/.test(operator)) fail("operator", "takes the name of a user of this machine");
  return {
    acceptRoutes: is("accept-routes"),
    advertiseRoutes: [...new Set([...routes(text("advertise-routes"), isExitNode, fail), ...(isExitNode ? EXIT_ROUTES : [])])],
    exitNode: exitNode === "" ? null : exitNode,
    exitNodeAllowLanAccess: is("exit-node-allow-lan-access"),
    snatSubnetRoutes: is("snat-subnet-routes", true),
    statefulFiltering: is("stateful-filtering"),
    advertiseConnector: is("advertise-connector"),
    reportPosture: is("report-posture"),
    operator: operator === "" ? null : operator,
  };
}

function routes(text: string, isExitNode: boolean, fail: (name: string, message: string) => void): string[] {
  if (text === "") return [];
  const networks = text.split(",").map((item) => parseNetwork(item.trim()));
  const sound = networks.filter((network) => network !== null);
  if (sound.length < networks.length || !text.split(",").every((item) => item.includes("/"))) {
    fail("advertise-routes", "takes networks with commas between: --advertise-routes=10.0.0.0/24,192.168.1.0/24");
    return [];
  }
  const crooked = sound.find(hasHostBits);
  if (crooked !== undefined)
    fail("advertise-routes", `has a network that does not begin where it is said to; write ${firstAddress(crooked)}/${crooked.prefix}`);
  const found = sound.map((network) => `${firstAddress(network)}/${network.prefix}`);
  // Half of an exit node is refused by Tailscale too.
  const all = EXIT_ROUTES.filter((route) => found.includes(route));
  if (all.length === 1 && !isExitNode) fail("advertise-routes", `has ${all[0]} alone; an exit node is --advertise-exit-node`);
  return found;
}
