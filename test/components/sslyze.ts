// sslyze, the scanner of TLS servers, in a virtual environment of Python.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { componentsDir } from "./require.ts";

const SSLYZE = join(componentsDir, "venv", "bin", "sslyze");
const TIMEOUT_MS = 60_000;

/** Why sslyze is not there, for `skipWithout`; null when it is. */
export function sslyzeMissing(): string | null {
  return existsSync(SSLYZE) ? null : "sslyze is not installed";
}

type Suites = { readonly is_tls_version_supported: boolean; readonly accepted_cipher_suites: readonly { readonly cipher_suite: { readonly name: string } }[] };

/** Results of the scan commands by their names, as sslyze writes them. */
export type Scan = {
  readonly [version in "ssl_2_0" | "ssl_3_0" | "tls_1_0" | "tls_1_1" | "tls_1_2" | "tls_1_3" as `${version}_cipher_suites`]: Suites;
} & {
  readonly tls_compression: { readonly supports_compression: boolean };
  readonly tls_1_3_early_data: { readonly supports_early_data: boolean };
  readonly openssl_ccs_injection: { readonly is_vulnerable_to_ccs_injection: boolean };
  readonly tls_fallback_scsv: { readonly supports_fallback_scsv: boolean };
  readonly heartbleed: { readonly is_vulnerable_to_heartbleed: boolean };
  readonly robot: { readonly robot_result: string };
  readonly session_renegotiation: {
    readonly supports_secure_renegotiation: boolean;
    readonly is_vulnerable_to_client_renegotiation_dos: boolean;
    readonly client_renegotiations_success_count: number;
  };
  readonly session_resumption: { readonly session_id_resumption_result: string; readonly tls_ticket_resumption_result: string };
  readonly elliptic_curves: { readonly supported_curves: readonly { readonly name: string }[] };
  readonly tls_extended_master_secret: { readonly supports_ems_extension: boolean };
};

export type ScanReport = {
  /** In the order of the ports. */
  readonly scans: readonly Scan[];
  /** What sslyze says of each target beside Mozilla's recommendation "intermediate", without the port: "OK - Compliant." */
  readonly compliance: readonly string[];
};

/**
 * Scans the ports of localhost with everything that sslyze checks, all at once.
 * @param caFile PEM of the CA that their certificates lead to. @param outFile where sslyze may write
 * @throws when it cannot be run, or a check of it does not come to an end
 */
export async function scanWithSslyze(ports: readonly number[], caFile: string, outFile: string): Promise<ScanReport> {
  const args = ["--json_out", outFile, "--mozilla_config", "intermediate", "--resum", "--early_data", "--certinfo", "--certinfo_ca_file", caFile];
  const { promise, resolve } = Promise.withResolvers<string>();
  // It exits with 1 when a target does not comply. Not run synchronously: this process reads the log of the gateway.
  execFile(SSLYZE, [...args, ...ports.map((port) => `localhost:${port}`)], { timeout: TIMEOUT_MS, maxBuffer: 2 ** 24 }, (_error, stdout, stderr) =>
    resolve(`${stdout}${stderr}`),
  );
  const said = await promise;
  const { server_scan_results: servers } = JSON.parse(await readFile(outFile, "utf8").catch(() => assertRan(said))) as {
    server_scan_results: { server_location: { port: number }; scan_result: Record<string, { status: string; result: unknown }> | null }[];
  };
  const scans = ports.map((port) => {
    const server = servers.find(({ server_location }) => server_location.port === port);
    const commands = Object.entries(server?.scan_result ?? assertRan(said));
    const unfinished = commands.filter(([, { status }]) => status === "ERROR").map(([name]) => name);
    if (unfinished.length > 0) throw new Error(`sslyze did not come to an end with ${unfinished.join(", ")}:\n${said}`);
    return Object.fromEntries(commands.map(([name, { result }]) => [name, result])) as Scan;
  });
  const compliance = ports.map((port) => new RegExp(`^ +localhost:${port}: ((?:OK|FAILED|ERROR) [^]*?)\\n\\s*\\n`, "m").exec(said)?.[1] ?? assertRan(said));
  return { scans, compliance };
}

function assertRan(said: string): never {
  throw new Error(`sslyze did not scan:\n${said}`);
}
