// Completes the configuration with what is outside of it: files take the place of their names, paths become absolute, the environment says the rest.
import type { CheckContext } from "./check-context.ts";
import { checkAuthKey } from "./check-tailscale.ts";
import { FileReader } from "./file-reader.ts";
import type { Env } from "./interpolate.ts";
import { type Path, quote } from "./problem.ts";
import { resolveAuth } from "./resolve-auth.ts";
import { resolvePem } from "./resolve-pem.ts";
import { resolveSecrets } from "./secret-files.ts";
import type { Config, Listener } from "./types.ts";

export type Resolved = {
  /** Texts of certificates, keys, CAs and lists of people by absolute path. Secrets are in the configuration. */
  readonly files: ReadonlyMap<string, string>;
  /** Every file that was read or looked for. */
  readonly paths: string[];
};

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error"] as const;

/** Completes `check.config` in place and reports what cannot be read. Of what is not sound nothing is read. */
export async function resolveConfig(check: CheckContext, configPath: string, env: Env): Promise<Resolved> {
  const files = new FileReader(check, configPath);
  await files.readAll();
  resolveSecrets(check, files);
  checkHashes(check);
  checkAuthKey(check);
  await resolvePem(check, files);
  resolveAuth(check, files);
  resolveDirectories(check, files);
  resolveLogLevel(check, env);
  return { files: files.texts, paths: files.paths };
}

function checkHashes(check: CheckContext): void {
  const tokens: unknown = check.config.auth?.tokens;
  if (!Array.isArray(tokens)) return;
  const holders = new Map<string, number>();
  for (const [i, token] of (tokens as Config["auth"]["tokens"]).entries()) {
    if (typeof token?.sha256 !== "string" || !check.isSound(["auth", "tokens", i])) continue;
    const hash = token.sha256.toLowerCase();
    const first = holders.get(hash);
    if (first !== undefined)
      check.report(["auth", "tokens", i], `Token has the same hash as auth.tokens[${first}]; each holder needs a token of their own`, "key");
    else holders.set(hash, i);
  }
}

function resolveDirectories(check: CheckContext, files: FileReader): void {
  const { config } = check;
  if (check.isSound(["state", "dir"])) config.state.dir = files.absolute(config.state.dir);
  if (config.tailscale?.state_dir !== undefined && check.isSound(["tailscale", "state_dir"]))
    config.tailscale.state_dir = files.absolute(config.tailscale.state_dir);
  const logs: [Path, unknown][] = [
    [["access_log"], config.access_log],
    ...check.entries<Listener>("listeners").map(([name, listener]): [Path, unknown] => [["listeners", name, "access_log"], listener?.access_log]),
  ];
  for (const [path, log] of logs) {
    if (typeof log !== "object" || log === null || !check.isSound([...path, "dir"])) continue;
    const place = log as { dir?: string };
    if (place.dir !== undefined) place.dir = files.absolute(place.dir);
  }
}

function resolveLogLevel(check: CheckContext, env: Env): void {
  if (!check.isSound(["log"]) || check.config.log.level !== undefined) return;
  const wanted = env["SIDEGATE_LOG_LEVEL"] ?? "";
  const level = wanted === "" ? "info" : LOG_LEVELS.find((known) => known === wanted.toLowerCase());
  if (level === undefined) check.reportOutside(`Environment variable 'SIDEGATE_LOG_LEVEL' is ${quote(wanted)}; levels are ${LOG_LEVELS.join(", ")}`);
  else check.config.log.level = level;
}
