// The rules that the schema cannot say: references between parts, contradictions, and what would be unsafe.
import { nearest } from "../lib/nearest.ts";
import { parseNetwork } from "../lib/address.ts";
import { CheckContext } from "./check-context.ts";
import { checkListeners } from "./check-listeners.ts";
import { checkRoutes } from "./check-routes.ts";
import { checkUpstreams } from "./check-upstreams.ts";
import type { ConfigDocument } from "./document.ts";
import { type Path, quote } from "./problem.ts";
import type { Token } from "./types.ts";

/** Checks what is sound of the document; the context holds the problems. */
export function checkDocument(document: ConfigDocument, broken: readonly Path[]): CheckContext {
  const check = new CheckContext(document, broken);
  checkTrustedProxies(check);
  checkTokens(check);
  checkUpstreams(check);
  checkListeners(check);
  checkRoutes(check);
  return check;
}

function checkTrustedProxies(check: CheckContext): void {
  for (const [path, text] of check.items(["trusted_proxies"], check.config.trusted_proxies)) {
    if (parseNetwork(text)?.prefix !== 0) continue;
    check.report(path, `Network ${quote(check.text(path, text))} is everybody: any client could then claim any address; name the proxies`);
  }
}

function checkTokens(check: CheckContext): void {
  const tokens: unknown = check.config.auth?.tokens;
  if (!Array.isArray(tokens)) return;
  const names = new Map<string, number>();
  for (const [i, token] of (tokens as Token[]).entries()) {
    const path = ["auth", "tokens", i];
    if (typeof token !== "object" || token === null) continue;
    if (check.isSound([...path, "name"]) && typeof token.name === "string") {
      const first = names.get(token.name);
      if (first === undefined) names.set(token.name, i);
      else check.report([...path, "name"], `Name ${quote(check.text([...path, "name"], token.name))} is already that of auth.tokens[${first}]`);
    }
    if (!check.isSound([...path, "sha256"]) || !check.isSound([...path, "sha256_file"])) continue;
    if (token.sha256 !== undefined && token.sha256_file !== undefined)
      check.report([...path, "sha256_file"], "Both 'sha256' and 'sha256_file' are given; keep one", "key");
    // A misspelt key explains itself.
    else if (
      token.sha256 === undefined &&
      token.sha256_file === undefined &&
      !Object.keys(token).some((key) => nearest(key, ["sha256", "sha256_file"]) !== null)
    ) {
      check.report(path, "Token has no hash; give 'sha256' or 'sha256_file' ('sidegate token new' prints the line)", "key");
    }
  }
}
