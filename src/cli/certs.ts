// sidegate certs: shows the certificates of the running gateway, has one renewed, and tells how to trust the internal CA.
import type { ActionResult, CertificateStatus, GatewayStatus } from "../admin/status.ts";
import { formatDuration } from "../lib/duration.ts";
import { isCovered } from "../lib/host-cover.ts";
import { nearest } from "../lib/nearest.ts";
import { AdminUnreachable, askAdmin } from "./admin-client.ts";
import { expiryCell, fromNow, NO_NAME, renewalText } from "./certificate-text.ts";
import { formatTrust, readTrust } from "./certs-trust.ts";
import { configFile, EXIT_FAILED, EXIT_OK, hasColors, parseCommand, UsageError, wordFirst, type Io } from "./io.ts";
import { colored, plainLine } from "./table.ts";

const TIMEOUT_MS = 5_000;
// An order waits for DNS to spread and for the CA to look.
const RENEW_TIMEOUT_MS = 300_000;
const PROGRESS_EVERY_MS = 1_000;
const WORDS = ["list", "renew", "trust"] as const;
const CLEAR_LINE = "\r\u001b[K";

export async function runCerts(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseCommand(args, { json: { type: "boolean", default: false } }, 3);
  const [word, ...rest] = wordFirst(positionals, WORDS);
  const name = word === "renew" ? rest.shift() : undefined;
  if (word === "renew" && name === undefined) throw new UsageError("'certs renew' needs a name: 'certs renew mcp.example.com'");
  if (rest[1] !== undefined) throw new UsageError(`Unexpected argument '${rest[1]}'`);
  const file = configFile(io, rest[0]);
  const { certificates } = JSON.parse((await askAdmin(file, io.env, "GET /status", TIMEOUT_MS)).body) as GatewayStatus;
  if (name !== undefined) return renew(name.toLowerCase().replace(/\.$/, ""), certificates, file, values.json, io);
  if (word === "trust") return trust(certificates, values.json, io);
  if (values.json) io.stdout(`${JSON.stringify(certificates, null, 2)}\n`);
  else io.stdout(formatCertificates(certificates, new Date(), hasColors(io)));
  return EXIT_OK;
}

/** One block a certificate: its names, then a line for each thing to know. */
export function formatCertificates(certificates: readonly CertificateStatus[], now: Date, colors: boolean): string {
  if (certificates.length === 0) return "No certificates: no listener of this gateway ends TLS with one\n";
  return certificates.map((each) => formatCertificate(each, now, colors)).join("\n");
}

function formatCertificate(each: CertificateStatus, now: Date, colors: boolean): string {
  const expiry = expiryCell(each, now);
  const at = (time: string | null): string => (time === null ? "" : `, ${time.slice(0, 16).replace("T", " ")} UTC`);
  const state = typeof expiry === "string" ? expiry : colored(expiry.text, expiry.color, colors);
  const source = { file: "file", acme: "ACME", tailscale: "Tailscale", internal: "internal CA" }[each.source];
  const lines: readonly (readonly [string, string])[] = [
    ["source", plainLine(`${source}${each.file === null ? "" : `, ${each.file}`}`)],
    ["issuer", plainLine(each.issuer)],
    ["expires", `${state}${at(each.expires_at)}`],
    ["renews", `${renewalText(each, now)}${at(each.renews_at)}`],
    ["listeners", plainLine(each.listeners.join(" "))],
    ["error", colored(plainLine(each.error), "red", colors && each.error !== "")],
  ];
  const shown = lines.filter(([, text]) => text !== "").map(([title, text]) => `  ${title.padEnd(10)} ${text}\n`);
  return `${colored(plainLine(each.names.join(" ") || (each.file ?? NO_NAME)), "bold", colors)}\n${shown.join("")}`;
}

async function renew(name: string, certificates: readonly CertificateStatus[], file: string, json: boolean, io: Io): Promise<number> {
  const end = (result: ActionResult): number => {
    if (json) io.stdout(`${JSON.stringify(result)}\n`);
    else (result.ok ? io.stdout : io.stderr)(`${plainLine(result.message)}\n`);
    return result.ok ? EXIT_OK : EXIT_FAILED;
  };
  const refusal = whyNot(name, certificates);
  if (refusal !== null) return end({ ok: false, message: refusal });
  const stopProgress = json ? () => {} : startProgress(`Ordering a certificate for '${plainLine(name)}' ...`, io);
  try {
    const answer = await askAdmin(file, io.env, `POST /certificates/renew?name=${encodeURIComponent(name)}`, RENEW_TIMEOUT_MS, io.stopped);
    stopProgress();
    const result = JSON.parse(answer.body) as Partial<ActionResult> & { error?: string };
    return end({ ok: result.ok === true, message: result.message ?? `The gateway cannot renew it: ${result.error ?? answer.status}` });
  } catch (error) {
    stopProgress();
    if (io.stopped.aborted) return end({ ok: false, message: "Not waited for; the gateway goes on with the order, 'sidegate certs' shows what came of it" });
    if (!(error instanceof AdminUnreachable)) throw error;
    return end({ ok: false, message: `No answer came from ${error.address} (${error.reason}); the log and 'sidegate certs' show what came of the order` });
  }
}

/** Why there is nothing to order; null when a CA can be asked for the name. */
function whyNot(name: string, certificates: readonly CertificateStatus[]): string | null {
  const found = certificates.filter(({ names }) => isCovered(name, new Set(names)));
  if (found.some(({ source }) => isOrdered(source))) return null;
  const [first] = found;
  if (first?.source === "file")
    return `The certificate for '${name}' is in '${first.file ?? "a file"}': who writes that file renews it, and the gateway takes the new one by itself`;
  if (first !== undefined) return `The certificate for '${name}' is from the internal CA: the gateway renews it by itself in time`;
  const known = certificates.flatMap(({ source, names }) => (isOrdered(source) ? names : []));
  const near = nearest(name, known);
  if (near !== null) return `No certificate has the name '${name}'. Did you mean '${near}'?`;
  return `No certificate has the name '${name}'; ${known.length === 0 ? "this gateway orders none" : `those that can be ordered: ${known.join(", ")}`}`;
}

function isOrdered(source: CertificateStatus["source"]): boolean {
  return source === "acme" || source === "tailscale";
}

/** Says what goes on; on a terminal with the time that it takes. */
function startProgress(text: string, io: Io): () => void {
  if (!io.isTty) {
    io.stdout(`${text}\n`);
    return () => {};
  }
  const startedAt = performance.now();
  io.stdout(text);
  const timer = setInterval(
    () => io.stdout(`${CLEAR_LINE}${text} ${formatDuration(Math.round((performance.now() - startedAt) / 1_000) * 1_000)}`),
    PROGRESS_EVERY_MS,
  );
  return () => {
    clearInterval(timer);
    io.stdout("\n");
  };
}

async function trust(certificates: readonly CertificateStatus[], json: boolean, io: Io): Promise<number> {
  const caFile = certificates.find(({ source }) => source === "internal")?.file ?? null;
  if (caFile === null) {
    if (json) io.stdout("null\n");
    else io.stdout("This gateway has no internal CA: no listener has 'tls: { internal: true }'. There is nothing to trust\n");
    return EXIT_OK;
  }
  const ca = await readTrust(caFile);
  io.stdout(json ? `${JSON.stringify(ca)}\n` : formatTrust(ca, fromNow(ca.expires_at, new Date())));
  return EXIT_OK;
}
