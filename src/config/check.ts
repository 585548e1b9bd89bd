// The rules that the schema cannot say: references between parts, contradictions, and what would be unsafe.
import { parseNetwork } from "../lib/address.ts";
import { checkAuth } from "./check-auth.ts";
import { CheckContext } from "./check-context.ts";
import { checkListeners } from "./check-listeners.ts";
import { checkRoutes } from "./check-routes.ts";
import { checkTailscale } from "./check-tailscale.ts";
import { checkUpstreams } from "./check-upstreams.ts";
import type { ConfigDocument } from "./document.ts";
import type { Env } from "./interpolate.ts";
import { type Path, quote } from "./problem.ts";
import { checkSecrets } from "./secret-files.ts";
import { takeTailscaleEnvironment } from "./tailscale-env.ts";
import type { Token } from "./types.ts";

/** Checks what is sound of the document, and of `env` what it says of the tailnet; the context holds the problems. */
export function checkDocument(document: ConfigDocument, broken: readonly Path[], env: Env): CheckContext {
  const check = new CheckContext(document, broken);
  takeTailscaleEnvironment(check, env);
  checkTrustedProxies(check);
  checkTokens(check);
  checkSecrets(check);
  checkUpstreams(check);
  checkListeners(check);
  checkRoutes(check);
  checkAuth(check);
  checkTailscale(check);
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
  }
}
