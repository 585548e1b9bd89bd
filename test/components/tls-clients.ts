// TLS clients that people use, each for one request on a connection of its own: openssl, curl, Python and Node.js.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import type { TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import { findProgram } from "./require.ts";

const PYTHON_CLIENT = fileURLToPath(new URL("python-client.py", import.meta.url));
const TIMEOUT_MS = 20_000;

export type TlsCase = {
  readonly port: number;
  /** The only version that the client speaks. */
  readonly version: "1.1" | "1.2" | "1.3";
  /** Server name to send and to verify; null = none is sent, and 127.0.0.1 is verified. */
  readonly name: string | null;
  /** Files of PEM; null = no certificate. */
  readonly ca: string;
  readonly cert: string | null;
  readonly key: string | null;
  /** Default: none. */
  readonly alpn?: readonly string[];
};

/** What the client saw, each in its own words as far as they are compared; `error` instead of a status when it got no answer. */
export type TlsAnswer = {
  readonly version?: string;
  /** Common name of the gateway's certificate. */
  readonly subject?: string;
  /** The protocol that was agreed on; null = none. */
  readonly alpn?: string | null;
  readonly status?: number;
  readonly body?: string;
  readonly error?: string;
};

/** Why one of the programs is not there, for `skipWithout`; null when all are. */
export function tlsClientsMissing(): string | null {
  const missing = ["openssl", "curl", "python3"].filter((program) => findProgram(program) === null);
  return missing.length === 0 ? null : `${missing.join(", ")} not installed`;
}

/** Runs a program to its end, whatever its exit code. Not synchronously: this process reads the log of the gateway. */
export function runProgram(program: string, args: readonly string[], input = ""): Promise<{ stdout: string; stderr: string }> {
  const { promise, resolve } = Promise.withResolvers<{ stdout: string; stderr: string }>();
  const child = execFile(program, [...args], { timeout: TIMEOUT_MS }, (_error, stdout, stderr) => resolve({ stdout, stderr }));
  // It may end before it has read all of it.
  child.stdin?.on("error", () => {});
  child.stdin?.end(input);
  return promise;
}

/** What `openssl s_client` prints of the handshake and of the answer to a GET. @param more further arguments */
export async function openssl({ port, version, name, ca, cert, key, alpn = [] }: TlsCase, more: readonly string[] = []): Promise<TlsAnswer & { text: string }> {
  const args = ["s_client", "-connect", `127.0.0.1:${port}`, `-tls${version.replace(".", "_")}`, "-CAfile", ca, "-verify_return_error", "-ign_eof"];
  if (version === "1.1") args.push("-cipher", "DEFAULT@SECLEVEL=0");
  args.push(...(name === null ? ["-noservername", "-verify_ip", "127.0.0.1"] : ["-servername", name, "-verify_hostname", name]));
  if (cert !== null && key !== null) args.push("-cert", cert, "-key", key);
  if (alpn.length > 0) args.push("-alpn", alpn.join(","));
  // HTTP/2 is not what it speaks: the connection is closed at the first line.
  const { stdout, stderr } = await runProgram("openssl", [...args, ...more], "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const text = `${stdout}${stderr}`;
  const protocol = /^(?:New|Reused), (TLSv[\d.]+), /m.exec(text)?.[1];
  // Its own lines may follow the last byte of the body at once.
  const answer = /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n([^\n]*)/m.exec(stdout);
  const agreed = /^ALPN protocol: (\S+)$/m.exec(text)?.[1] ?? null;
  const seen = {
    ...(protocol === undefined ? {} : { version: protocol }),
    subject: /^depth=0 (?:.*, )?CN = (\S+)$/m.exec(text)?.[1] ?? "",
    alpn: agreed,
    text,
  };
  return answer === null ? { ...seen, error: stderr } : { ...seen, status: Number(answer[1]), body: answer[2] ?? "" };
}

/** curl by https; `alpn` of h2 or http/1.1 alone chooses its version of HTTP. */
export async function curl({ port, version, name, ca, cert, key, alpn = ["http/1.1"] }: TlsCase): Promise<TlsAnswer> {
  const host = name ?? "127.0.0.1";
  const args = ["--silent", "--show-error", "--verbose", "--cacert", ca, `--tlsv${version}`, "--tls-max", version, "--noproxy", "*"];
  args.push(alpn[0] === "h2" ? "--http2" : "--http1.1", "--resolve", `${host}:${port}:127.0.0.1`, "--write-out", "\n%{http_code} %{http_version}");
  if (version === "1.1") args.push("--ciphers", "DEFAULT@SECLEVEL=0");
  if (cert !== null && key !== null) args.push("--cert", cert, "--key", key);
  const { stdout, stderr } = await runProgram("curl", [...args, `https://${host}:${port}/`]);
  const [, body = "", status = "000"] = /^([^]*)\n(\d+) \S+$/.exec(stdout) ?? [];
  if (status === "000") return { error: stderr };
  const protocol = /SSL connection using (TLSv[\d.]+)/.exec(stderr)?.[1] ?? "";
  const agreed = /ALPN: server accepted (\S+)/.exec(stderr)?.[1] ?? null;
  return { version: protocol, subject: /^\*\s+subject: .*CN=(\S+)$/m.exec(stderr)?.[1] ?? "", alpn: agreed, status: Number(status), body };
}

/** All cases in one process of Python. */
export async function python(cases: readonly TlsCase[]): Promise<TlsAnswer[]> {
  const input = JSON.stringify(cases.map((each) => ({ alpn: [], ...each })));
  const { stdout, stderr } = await runProgram("python3", [PYTHON_CLIENT], input);
  if (stdout === "") throw new Error(`Python's client ended: ${stderr}`);
  return JSON.parse(stdout) as TlsAnswer[];
}

/** Node.js's https. */
export function node({ port, version, name, ca, cert, key, alpn = [] }: TlsCase): Promise<TlsAnswer> {
  const { promise, resolve } = Promise.withResolvers<TlsAnswer>();
  const only = `TLSv${version}` as const;
  const call = request({
    host: "127.0.0.1",
    port,
    agent: false,
    servername: name ?? "",
    ca: readFileSync(ca),
    minVersion: only,
    maxVersion: only,
    ...(version === "1.1" ? { ciphers: "DEFAULT@SECLEVEL=0" } : {}),
    ...(cert === null || key === null ? {} : { cert: readFileSync(cert), key: readFileSync(key) }),
    ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
  });
  call.on("error", (error: NodeJS.ErrnoException) => resolve({ error: `${error.code} ${error.message}` }));
  call.on("response", (response) => {
    const socket = response.socket as TLSSocket;
    const seen = { version: socket.getProtocol() ?? "", subject: String(socket.getPeerCertificate().subject.CN), alpn: socket.alpnProtocol || null };
    let body = "";
    response.on("error", (error) => resolve({ error: error.message }));
    response.on("data", (chunk) => (body += String(chunk)));
    response.on("end", () => resolve({ ...seen, status: response.statusCode ?? 0, body }));
  });
  call.end();
  return promise;
}
