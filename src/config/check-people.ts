// Checks `allow`: people that no login of the file can ever show, and lists that do not mean what they seem to.
import { nearest } from "../lib/nearest.ts";
import type { CheckContext } from "./check-context.ts";
import { type Path, quote } from "./problem.ts";
import type { AllowPeople, Client, Login } from "./types.ts";

type LoginKind = "github" | "oidc" | "password" | "tailnet";

// Which logins tell what a key asks for.
const TELLERS: Readonly<Record<Exclude<keyof AllowPeople, "clients">, readonly LoginKind[]>> = {
  github_users: ["github"],
  github_orgs: ["github"],
  github_teams: ["github"],
  users: ["password", "oidc"],
  emails: ["oidc", "github"],
  domains: ["oidc", "github"],
  groups: ["oidc", "password"],
  claims: ["oidc"],
  tailnet: ["tailnet"],
};
/** What issuers tell of people. */
export const ISSUER_KEYS = ["users", "emails", "domains", "groups", "claims"] as const;
const GITHUB_KEYS = ["github_users", "github_orgs", "github_teams"] as const;

/** The logins that the file has. */
export function loginKinds(login: Login): LoginKind[] {
  return (["github", "oidc", "password", "tailnet"] as const).filter((kind) => login[kind] !== undefined && login[kind] !== false);
}

/**
 * Checks the people of a way, a scope or a grant.
 * @param by what shows who they are: our own login, with or without clients that act for themselves, the same or the identity assertions of an issuer, or
 * the tokens of an issuer
 */
export function checkPeople(check: CheckContext, path: Path, allow: AllowPeople | undefined, by: "oauth" | "assertions" | "session" | "issuer"): void {
  if (allow === undefined || !check.isSound(path)) return;
  if (by === "issuer") checkForIssuer(check, path, allow);
  else checkForLogin(check, path, allow, by === "assertions");
  if (by === "session" && allow.clients !== undefined)
    check.report([...path, "clients"], "'clients' matches nobody: a client that acts for itself has no browser; its way is 'oauth'", "key");
  if (by === "oauth" || by === "assertions") checkKnownClients(check, path, allow);
  if (by !== "issuer" && allow.github_users?.includes("*") === true) {
    const others = GITHUB_KEYS.filter((key) => allow[key] !== undefined && (key !== "github_users" || (allow.github_users?.length ?? 0) > 1));
    if (others.length > 0) {
      const remedy = "one match is enough, so that the others narrow nothing; take '*' or them away";
      check.report([...path, "github_users"], `"*" admits anybody who has a GitHub account: ${remedy}`, "key");
    }
  }
}

function checkForLogin(check: CheckContext, path: Path, allow: AllowPeople, isVouched: boolean): void {
  if (!check.isSound(["auth", "login"])) return;
  const kinds = loginKinds(check.config.auth.login);
  // That there is no login at all is said once, of the way.
  if (kinds.length === 0 && !isVouched) return;
  if (kinds.includes("oidc") && !kinds.includes("password")) checkSubjects(check, path, allow);
  const told = new Set<string>(isVouched ? ISSUER_KEYS : []);
  for (const [key, tellers] of Object.entries(TELLERS)) {
    if (allow[key as keyof AllowPeople] === undefined || told.has(key) || tellers.some((kind) => kinds.includes(kind))) continue;
    const names = tellers.map((kind) => (kind === "tailnet" ? "'tailnet: true'" : `'${kind}'`));
    const missing = names.length === 1 ? `no ${names.join("")}` : `neither ${names.join(" nor ")}`;
    check.report([...path, key], `'${key}' matches nobody: 'auth.login' has ${missing}; add it there, or take the key away`, "key");
  }
}

/** An OpenID provider's users are its subjects (OpenID Connect Core, 2), which are hardly ever addresses. */
function checkSubjects(check: CheckContext, path: Path, allow: AllowPeople): void {
  for (const [at, user] of check.items([...path, "users"], allow.users)) {
    if (!user.includes("@")) continue;
    const what = "looks like an e-mail address, and users of an OpenID provider are the 'sub' of their tokens";
    check.warn(at, `User ${quote(check.text(at, user))} ${what}; write it in 'emails'`);
  }
}

function checkForIssuer(check: CheckContext, path: Path, allow: AllowPeople): void {
  for (const key of [...GITHUB_KEYS, "tailnet", "clients"] as const) {
    if (allow[key] === undefined) continue;
    check.report([...path, key], `'${key}' matches nobody: tokens of an issuer tell 'users', 'emails', 'domains', 'groups' and 'claims' alone`, "key");
  }
}

function checkKnownClients(check: CheckContext, path: Path, allow: AllowPeople): void {
  if (!check.isSound(["auth", "clients"])) return;
  const known = check.config.auth.clients.map((client: Client) => client.id);
  for (const [at, id] of check.items([...path, "clients"], allow.clients)) {
    if (known.includes(id)) continue;
    const meant = nearest(id, known);
    const remedy = meant === null ? `ids in auth.clients: ${known.join(", ") || "none"}` : `did you mean '${meant}'?`;
    check.report(at, `Unknown client ${quote(check.text(at, id))}; ${remedy}`);
  }
}
