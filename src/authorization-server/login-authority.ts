// Whose word a login was, so that it counts no longer than that word does.
import type { Person } from "../identity/person.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import { secretHash } from "./browser.ts";

/**
 * Text that changes when somebody else vouches for the person: subjects are unique at one provider alone (OpenID Connect Core, 2; GitHub Enterprise Servers
 * count from 1), and a new password ends what the one before has opened. Null: there is no such login.
 */
export function authorityOf(
  { source, subject, issuer }: Pick<Person, "source" | "subject" | "issuer">,
  { github, oidc, password, tailnet }: LoginPlan,
): string | null {
  if (source === "github") return github?.baseUrl ?? null;
  if (source === "oidc") return oidc?.issuer ?? null;
  // Whether it still vouches for anybody depends on the resource.
  if (source === "issuer") return issuer?.url ?? null;
  const user = source === "password" ? password?.get(subject) : undefined;
  if (user !== undefined) return secretHash(user.hash);
  return source === "tailnet" && tailnet ? "tailnet" : null;
}
