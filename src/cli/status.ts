// sidegate status: what the running gateway serves, and how it fares.
import { setTimeout as delay } from "node:timers/promises";
import { buildReadiness } from "../admin/ready.ts";
import type { GatewayStatus, TargetStatus } from "../admin/status.ts";
import { formatDuration } from "../lib/duration.ts";
import { askAdmin } from "./admin-client.ts";
import { expiryCell, fromNow, namesText, renewalText, sourceText } from "./certificate-text.ts";
import { formatTailnet } from "./tailnet-text.ts";
import { configFile, EXIT_OK, hasColors, parseCommand, type Io } from "./io.ts";
import { colored, formatTable, plainLine, type Cell } from "./table.ts";

const TIMEOUT_MS = 5_000;
const WATCH_EVERY_MS = 2_000;
const CLEAR_SCREEN = "\u001b[H\u001b[2J\u001b[3J";

export async function runStatus(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseCommand(args, { json: { type: "boolean", default: false }, watch: { type: "boolean", default: false } }, 1);
  const file = configFile(io, positionals[0]);
  for (;;) {
    const answer = await askAdmin(file, io.env, "GET /status", TIMEOUT_MS);
    // One line a time for programs that follow it, an indented object for people.
    if (values.json) io.stdout(values.watch ? answer.body : `${JSON.stringify(JSON.parse(answer.body), null, 2)}\n`);
    else io.stdout((values.watch && io.isTty ? CLEAR_SCREEN : "") + formatStatus(JSON.parse(answer.body) as GatewayStatus, new Date(), hasColors(io)));
    if (!values.watch) return EXIT_OK;
    await delay(WATCH_EVERY_MS, undefined, { signal: io.stopped }).catch(() => {});
    if (io.stopped.aborted) return EXIT_OK;
  }
}

/** The status as tables. */
export function formatStatus(status: GatewayStatus, now: Date, colors: boolean): string {
  const { status: readiness, problems } = buildReadiness(status, now);
  const color = readiness === "ready" ? "green" : readiness === "degraded" ? "yellow" : "red";
  const sections = [
    `Sidegate ${status.version}, ${colored(readiness, color, colors)}, up ${formatDuration(status.uptime_seconds * 1_000)}, process ${status.pid}\n` +
      `${status.config.file}, taken ${fromNow(status.config.loaded_at, now)}, digest ${status.config.digest}\n` +
      problems
        .map(({ what, name, reason }) => `${colored(plainLine(`${what} '${name}': ${reason}`), what === "config" ? "yellow" : color, colors)}\n`)
        .join(""),
    formatTable(
      ["LISTENER", "PROTOCOL", "ADDRESS", "TLS", "CONNECTIONS"],
      status.listeners.map(({ name, protocol, address, tls, connections, down }) => [
        name,
        protocol,
        address,
        tls,
        down === "" ? String(connections) : { text: down, color: "red" },
      ]),
      colors,
    ) + (status.draining_listeners > 0 ? `and ${status.draining_listeners} removed, whose connections still end\n` : ""),
    formatTable(
      ["ROUTE", "HOST", "PATH", "METHODS", "LISTENERS", "UPSTREAM", "AUTH"],
      status.routes.map((route) => [
        route.name,
        route.host ?? "*",
        route.path,
        route.methods?.join(" ") ?? "*",
        route.listeners?.join(" ") ?? "*",
        route.upstream,
        route.auth.join(", "),
      ]),
      colors,
    ),
    formatTable(
      ["UPSTREAM", "TARGET", "HEALTH", "ACTIVE", "REASON"],
      status.upstreams.flatMap(({ name, verified, targets }) =>
        targets.map((target, i) => [
          i === 0 ? name : "",
          verified ? target.url : { text: `${target.url} (not verified)`, color: "yellow" },
          healthCell(target),
          String(target.active),
          target.reason,
        ]),
      ),
      colors,
    ),
    formatTable(
      ["CERTIFICATE", "LISTENERS", "SOURCE", "EXPIRES", "RENEWS", "ERROR"],
      status.certificates.map((each) => [
        namesText(each),
        each.listeners.join(" "),
        sourceText(each),
        expiryCell(each, now),
        renewalText(each, now),
        { text: each.error, color: "red" },
      ]),
      colors,
    ),
    formatTable(
      ["AUTHORIZATION SERVER", "LOGIN", "FOR"],
      status.authorization_servers.map(({ issuer, login, resources, session_origins }) => [
        issuer,
        login.join(", ") || "none",
        [...resources, ...session_origins.map((origin) => `sessions of ${origin}`)].join(", "),
      ]),
      colors,
    ),
    status.tailnet === null ? "" : formatTailnet(status.tailnet, now, colors),
  ];
  return sections.filter((section) => section !== "").join("\n");
}

function healthCell({ health, ejected, reason }: TargetStatus): Cell {
  if (health === "unhealthy") return { text: health, color: "red" };
  if (ejected) return { text: "left out", color: "yellow" };
  if (health === "degraded") return { text: health, color: "yellow" };
  if (health === "healthy") return { text: health, color: "green" };
  // Its first checks failed, but not yet as often as it takes to call it unhealthy.
  return reason === "" ? "not checked" : { text: "failing", color: "yellow" };
}
