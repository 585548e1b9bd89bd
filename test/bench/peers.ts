// The proxies that are compared, each as a child process with one worker and its best settings for one job.
import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openInternalCa, type InternalCa } from "../../src/certificates/internal-ca.ts";
import { freePort } from "../components/free-port.ts";
import { componentsDir, findProgram } from "../components/require.ts";

export const HOST = "bench.example.com";
export const TOKEN = `sgt_${randomBytes(32).toString("base64url")}`;
const START_TIMEOUT_MS = 20_000;
const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

/** What all proxies have in common: a directory, the certificate, and the addresses they forward to. */
export type Setting = {
  readonly dir: string;
  readonly ca: InternalCa;
  readonly certFile: string;
  readonly keyFile: string;
  /** nginx that answers everything with 250 bytes of JSON. */
  readonly jsonPort: number;
  /** Answers everything with an event stream. */
  readonly ssePort: number;
};

export type Proxy = {
  readonly name: string;
  readonly version: string;
  readonly pid: number;
  /** HTTPS for HTTP proxies; forwards /mcp to the JSON origin and /sse to the stream origin. */
  readonly port: number;
  /** What its requests carry. */
  readonly token: string;
  /** From spawn to the first good answer. */
  readonly startMs: number;
  stop(): Promise<void>;
};

export type PeerName = "sidegate" | "sidegate-open" | "sidegate-oauth" | "sidegate-1000" | "caddy" | "nginx" | "haproxy";

/** The line that installs what is missing, or null. */
export function missingPeer(name: string): string | null {
  // The distribution's Caddy is too old to compare with.
  if (name === "caddy") return existsSync(join(componentsDir, "bin", "caddy")) ? null : "sh test/components/setup.sh --bench";
  if (name.startsWith("sidegate") || findProgram(name) !== null) return null;
  return `apt-get install ${{ nginx: "nginx-light", h2load: "nghttp2-client" }[name] ?? name}`;
}

/** Writes the certificate that every proxy serves: ECDSA P-256, issued by a CA made for this run. */
export async function openSetting(dir: string, ports: { jsonPort: number; ssePort: number }): Promise<Setting> {
  const ca = await openInternalCa(dir);
  const options = ca.issue([HOST, "localhost", "127.0.0.1"], Date.now());
  const [certFile, keyFile] = [join(dir, "tls.crt"), join(dir, "tls.key")];
  writeFileSync(certFile, options.cert);
  writeFileSync(keyFile, options.key, { mode: 0o600 });
  // HAProxy wants both in one file.
  writeFileSync(join(dir, "tls.pem"), `${options.cert}${options.key}`, { mode: 0o600 });
  return { dir, ca, certFile, keyFile, ...ports };
}

/** Starts a proxy in front of the origins. Nothing of it is left after `stop`. */
export async function startPeer(name: PeerName, setting: Setting): Promise<Proxy> {
  const port = await freePort();
  // Of its own: two of a name may run at the same time, and Sidegate watches its directory.
  const dir = mkdtempSync(join(setting.dir, `${name}-`));
  switch (name) {
    case "sidegate":
      return await startSidegate(name, port, setting, dir, {});
    case "sidegate-open":
      return await startSidegate(name, port, setting, dir, { ways: "none" });
    case "sidegate-oauth": {
      const proxy = await startSidegate(name, port, setting, dir, { auth: OAUTH, ways: OAUTH_WAYS });
      return { ...proxy, token: await fetchToken(port) };
    }
    case "sidegate-1000":
      return await startSidegate(name, port, setting, dir, { routes: manyRoutes(), certificates: manyCertificates(setting) });
    case "caddy": {
      const file = join(dir, "Caddyfile");
      // GOMAXPROCS=1 is its one worker.
      writeFileSync(file, caddyfile(port, setting, dir));
      return await startProxy(
        name,
        ["run", "--config", file, "--adapter", "caddyfile"],
        { GOMAXPROCS: "1", XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir, HOME: dir },
        port,
        ["build-info"],
      );
    }
    case "nginx": {
      const file = join(dir, "nginx.conf");
      writeFileSync(file, nginxConfig(dir, nginxProxy(port, setting)));
      return await startProxy(name, ["-c", file, "-g", "daemon off;"], {}, port, ["-v"]);
    }
    case "haproxy": {
      const file = join(dir, "haproxy.cfg");
      writeFileSync(file, haproxyConfig(port, setting));
      return await startProxy(name, ["-f", file], {}, port, ["-v"]);
    }
    default:
      return name satisfies never;
  }
}

async function startProxy(name: string, args: string[], env: Record<string, string>, port: number, versionArgs: string[]): Promise<Proxy> {
  const started = performance.now();
  const child = start(findProgram(name) ?? name, args, env);
  await answering(name, child, () => fetchStatus(port));
  const startMs = performance.now() - started;
  return { name, version: await versionOf(findProgram(name) ?? name, versionArgs), pid: child.pid ?? 0, port, token: TOKEN, startMs, stop: () => stop(child) };
}

const CLIENT_SECRET = randomBytes(32).toString("base64url");
const OAUTH = `  clients: [{ id: bench, secret: "${CLIENT_SECRET}", scopes: [mcp] }]\n`;
// The static token, beside it, is for the question whether the gateway is up.
const OAUTH_WAYS = "[{ token: {} }, { oauth: { scopes: [mcp], allow: { clients: [bench] } } }]";

type Variant = { readonly routes?: string; readonly certificates?: Record<string, string>; readonly auth?: string; readonly ways?: string };

async function startSidegate(name: string, port: number, setting: Setting, dir: string, variant: Variant): Promise<Proxy> {
  const { routes = "", certificates = {}, auth = "", ways = "[{ token: { scopes: [mcp] } }]" } = variant;
  for (const [file, text] of Object.entries(certificates)) writeFileSync(join(dir, file), text, { mode: 0o600 });
  const names = Object.keys(certificates).filter((file) => file.endsWith(".crt"));
  const more =
    names.length === 0
      ? ""
      : `\n      certificates:\n${names.map((file) => `        - { cert_file: ${join(dir, file)}, key_file: ${setting.keyFile} }\n`).join("")}`;
  const file = join(dir, "sidegate.yaml");
  writeFileSync(
    file,
    `version: 1
log: { level: warn }
access_log: { dir: ${join(dir, "log")} }
state: { dir: ${join(dir, "state")} }
admin: { listen: "unix:${join(dir, "admin.sock")}" }
auth:
  tokens:
    - { name: bench, sha256: "${createHash("sha256").update(TOKEN).digest("hex")}", scopes: [mcp] }
${auth}listeners:
  https:
    protocol: http
    listen: 127.0.0.1:${port}
    tls:
      cert_file: ${setting.certFile}
      key_file: ${setting.keyFile}${more}
routes:
${routes}  - { host: ${HOST}, path: /mcp, upstream: "http://127.0.0.1:${setting.jsonPort}", auth: ${ways} }
  - { host: ${HOST}, path: /sse, upstream: "http://127.0.0.1:${setting.ssePort}", auth: ${ways} }
`,
  );
  const started = performance.now();
  const child = start(process.execPath, [...sidegateNodeArgs(dir), MAIN, "run", file], {});
  await answering(name, child, () => fetchStatus(port));
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  return {
    name,
    version: `${version} on Node.js ${process.version}`,
    pid: child.pid ?? 0,
    port,
    token: TOKEN,
    startMs: performance.now() - started,
    stop: () => stop(child),
  };
}

/** `BENCH_CPU_PROF=dir` writes a CPU profile of each Sidegate there when it stops. */
function sidegateNodeArgs(dir: string): string[] {
  const profiles = process.env["BENCH_CPU_PROF"];
  return profiles === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profiles}`, `--cpu-prof-name=${dir.split("/").at(-1)}-${Date.now()}.cpuprofile`];
}

function manyRoutes(): string {
  return Array.from(
    { length: 998 },
    (_, i) => `  - { host: h${i % 100}.example.com, path_prefix: /p${i}, upstream: "http://127.0.0.1:9", auth: [{ token: {} }] }\n`,
  ).join("");
}

function manyCertificates(setting: Setting): Record<string, string> {
  return Object.fromEntries(Array.from({ length: 99 }, (_, i) => [`h${i}.crt`, setting.ca.issue([`h${i}.example.com`], Date.now()).cert]));
}

function caddyfile(port: number, { certFile, keyFile, jsonPort, ssePort }: Setting, dir: string): string {
  // Caddy sets X-Forwarded-For, -Proto and -Host by itself.
  const proxy = (to: number): string => `reverse_proxy 127.0.0.1:${to} {
      transport http {
        keepalive_idle_conns_per_host 128
        compression off
      }
    }`;
  return `{
  admin off
  auto_https off
  persist_config off
  storage file_system ${join(dir, "caddy")}
  log {
    level ERROR
  }
}
https://:${port} {
  bind 127.0.0.1
  tls ${certFile} ${keyFile}
  handle /sse {
    ${proxy(ssePort)}
  }
  handle {
    ${proxy(jsonPort)}
  }
}
`;
}

function nginxConfig(dir: string, http: string): string {
  const user = process.getuid?.() === 0 ? "user root;\n" : "";
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `  ${kind}_temp_path ${join(dir, `temp-${kind}`)};\n`).join("");
  return `${user}worker_processes 1;
worker_rlimit_nofile 65536;
pid ${join(dir, "nginx.pid")};
error_log stderr crit;
events { worker_connections 8192; }
http {
${temporary}  access_log off;
  keepalive_timeout 300s;
  keepalive_requests 100000000;
  tcp_nodelay on;
${http}}
`;
}

function nginxProxy(port: number, { certFile, keyFile, jsonPort, ssePort }: Setting): string {
  return `  upstream json { server 127.0.0.1:${jsonPort}; keepalive 128; keepalive_requests 100000000; }
  upstream sse { server 127.0.0.1:${ssePort}; keepalive 128; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $host;
  server {
    listen 127.0.0.1:${port} ssl http2 backlog=4096;
    ssl_certificate ${certFile};
    ssl_certificate_key ${keyFile};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / { proxy_pass http://json; }
    location = /sse { proxy_pass http://sse; proxy_buffering off; proxy_read_timeout 1h; }
  }
`;
}

function haproxyConfig(port: number, { dir, jsonPort, ssePort }: Setting): string {
  return `global
  nbthread 1
  maxconn 8192
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
  option forwardfor
frontend https
  bind 127.0.0.1:${port} ssl crt ${join(dir, "tls.pem")} alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Real-IP %[src]
  use_backend sse if { path /sse }
  default_backend json
backend json
  server origin 127.0.0.1:${jsonPort}
backend sse
  server origin 127.0.0.1:${ssePort}
`;
}

/** nginx as the origin: 250 bytes of JSON for everything. */
export async function startJsonOrigin(dir: string): Promise<Proxy> {
  const port = await freePort();
  const own = mkdtempSync(join(dir, "origin-"));
  const file = join(own, "nginx.conf");
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, result: { content: [{ type: "text", text: "x".repeat(172) }] } });
  writeFileSync(
    file,
    nginxConfig(own, `  default_type application/json;\n  server { listen 127.0.0.1:${port} backlog=4096; location / { return 200 '${body}'; } }\n`),
  );
  const started = performance.now();
  const child = start(findProgram("nginx") ?? "nginx", ["-c", file, "-g", "daemon off;"], {});
  await answering("nginx", child, () => connects(port));
  return { name: "origin", version: "", pid: child.pid ?? 0, port, token: TOKEN, startMs: performance.now() - started, stop: () => stop(child) };
}

/** A relay of TCP from a port to a port. */
export async function startRelay(name: "sidegate" | "socat" | "haproxy", dir: string, to: number): Promise<Proxy> {
  const port = await freePort();
  let command = findProgram(name) ?? name;
  let args: string[];
  if (name === "socat") args = ["-b65536", `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay`, `TCP:127.0.0.1:${to},nodelay`];
  else if (name === "haproxy") {
    const file = join(dir, "haproxy-tcp.cfg");
    const limits = "  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n";
    writeFileSync(
      file,
      `global\n  nbthread 1\n  maxconn 8192\ndefaults\n  mode tcp\n${limits}listen relay\n  bind 127.0.0.1:${port} backlog 1024\n  server peer 127.0.0.1:${to}\n`,
    );
    args = ["-f", file];
  } else {
    const own = join(dir, "sidegate-tcp");
    mkdirSync(own, { recursive: true });
    const file = join(own, "sidegate.yaml");
    const log = `log: { level: warn }\naccess_log: { dir: ${join(own, "log")} }\nstate: { dir: ${join(own, "state")} }\nadmin: { listen: "unix:${join(own, "admin.sock")}" }\n`;
    writeFileSync(file, `version: 1\n${log}listeners:\n  relay: { protocol: tcp, listen: "127.0.0.1:${port}", upstream: "127.0.0.1:${to}" }\n`);
    command = process.execPath;
    args = [...sidegateNodeArgs(own), MAIN, "run", file];
  }
  const started = performance.now();
  const child = start(command, args, {});
  await answering(name, child, () => connects(port));
  return { name, version: "", pid: child.pid ?? 0, port, token: TOKEN, startMs: performance.now() - started, stop: () => stop(child) };
}

const output = new WeakMap<ChildProcess, string[]>();

function start(command: string, args: readonly string[], env: Record<string, string>): ChildProcess {
  // In its own process group, so that Ctrl-C leaves the order of stopping to the benchmark.
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], ...env },
  });
  const lines: string[] = [];
  output.set(child, lines);
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => lines.length < 50 && lines.push(chunk.toString()));
  child.on("error", (error) => lines.push(error.message));
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  const late = setTimeout(() => child.kill("SIGKILL"), 12_000);
  child.kill("SIGTERM");
  await exited;
  clearTimeout(late);
  try {
    // The children of socat do not end with it.
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // Nobody is left.
  }
}

async function answering(name: string, child: ChildProcess, isUp: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await isUp())) {
    if (child.exitCode !== null || child.pid === undefined || performance.now() > deadline) {
      await stop(child);
      throw new Error(`Cannot start ${name}:\n${output.get(child)?.join("").trim()}`);
    }
    await sleep(2);
  }
}

function connects(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** An access token of the gateway's own server, as a machine gets it. */
function fetchToken(port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const body = new URLSearchParams({ grant_type: "client_credentials", scope: "mcp", resource: `https://${HOST}/mcp` }).toString();
  const headers = { host: HOST, authorization: `Basic ${btoa(`bench:${CLIENT_SECRET}`)}`, "content-type": "application/x-www-form-urlencoded" };
  const going = request({ host: "127.0.0.1", port, path: "/token", method: "POST", headers, agent: false, rejectUnauthorized: false }, (response) => {
    void response.toArray().then((chunks) => {
      const { access_token: token } = JSON.parse(Buffer.concat(chunks as Buffer[]).toString()) as { access_token?: string };
      if (token === undefined) reject(new Error(`No token: status ${response.statusCode}`));
      else resolve(token);
    }, reject);
  });
  going.on("error", reject).end(body);
  return promise;
}

function fetchStatus(port: number): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const headers = { host: HOST, authorization: `Bearer ${TOKEN}` };
  // The certificate is ours; that it is right is not what is measured.
  const going = request({ host: "127.0.0.1", port, path: "/mcp", headers, agent: false, rejectUnauthorized: false, timeout: 2_000 }, (response) => {
    response.resume();
    if (response.statusCode === 200) resolve(true);
    else reject(new Error(`Status ${response.statusCode} instead of 200`));
  });
  going.on("error", () => resolve(false)).on("timeout", () => going.destroy());
  going.end();
  return promise;
}

async function versionOf(command: string, args: readonly string[]): Promise<string> {
  const child = start(command, args, { HOME: tmpdir() });
  await once(child, "close");
  return /(?:caddy\/v2\s+v|nginx\/|version )(\d+\.\d+\.\d+)/.exec(output.get(child)?.join("") ?? "")?.[1] ?? "";
}
