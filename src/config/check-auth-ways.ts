// Checks the ways in by OAuth, issuers and sessions: that somebody can come in by them, and that clients can be told where the route is.
import { nearest } from "../lib/nearest.ts";
import { routePublicUrl } from "../lib/public-url.ts";
import { type WayPlace, canActForItself, includedScopes, isAddressSound, takesAssertions } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import { checkPeople, ISSUER_KEYS, loginKinds } from "./check-people.ts";
import { checkDefaultPort } from "./check-public-url.ts";
import { type Path, quote } from "./problem.ts";
import type { OAuthWay, Route, SessionWay } from "./types.ts";

export function checkWays(check: CheckContext, ways: readonly WayPlace[]): void {
  for (const { path, way, route, routePath } of ways) {
    const { oauth, session, issuer } = way;
    if (oauth !== undefined) {
      const at = [...path, "oauth"];
      checkAddress(check, at, route, routePath);
      checkPeople(check, [...at, "allow"], oauth.allow, takesAssertions({ way }) ? "assertions" : "oauth");
      checkAssertions(check, at, oauth);
      if (checkGrants(check, at, oauth)) checkAnybody(check, at, oauth, takesAssertions({ way }));
      checkMachines(check, at, oauth);
    }
    if (session !== undefined) {
      const at = [...path, "session"];
      checkAddress(check, at, route, routePath);
      checkPeople(check, [...at, "allow"], session.allow, "session");
      checkAnybody(check, at, session);
    }
    if (issuer !== undefined) {
      checkIssuerName(check, [...path, "issuer", "name"], issuer.name);
      checkResource(check, [...path, "issuer"], route, routePath);
      checkPeople(check, [...path, "issuer", "allow"], issuer.allow, "issuer");
    }
  }
}

/** Tokens and cookies are for an address, which comes from the file alone. */
function checkAddress(check: CheckContext, path: Path, route: Route, routePath: Path): void {
  if (route.public_url !== undefined || !isAddressSound(check, routePath)) return;
  const kind = String(path.at(-1));
  const needed = `'${kind}' needs the address that ${kind === "oauth" ? "clients" : "browsers"} know the route by, and`;
  const example = kind === "oauth" ? "as https://mcp.example.com/mcp" : "as https://docs.example.com";
  if (route.host === undefined) check.report(path, `${needed} it has no 'host'; give one, or the whole address as 'public_url', ${example}`, "key");
  else if (route.host.startsWith("*.")) check.report(path, `${needed} its 'host' is a wildcard; give 'public_url', ${example}`, "key");
  else if (kind === "oauth" && route.path_regex !== undefined)
    check.report(path, `${needed} 'path_regex' stands for many; give 'public_url', ${example}`, "key");
  else checkDefaultPort(check, path, route);
}

/** A route of an issuer's tokens needs no address. Where it has a host, clients are told of one, and it must be true. */
function checkResource(check: CheckContext, path: Path, route: Route, routePath: Path): void {
  const isTold = route.public_url === undefined && isAddressSound(check, routePath) && routePublicUrl(route) !== null;
  if (isTold && route.path_regex !== undefined)
    check.report(
      path,
      "'issuer' tells clients the address of the route, and 'path_regex' stands for many; give 'public_url', as https://mcp.example.com/mcp",
      "key",
    );
}

/** Whether people come in by the way: not where it is for machines alone. */
function checkGrants(check: CheckContext, path: Path, way: OAuthWay): boolean {
  const { grants, allow } = way;
  const isForPeople = grants.includes("authorization_code");
  const isForMachines = grants.includes("client_credentials");
  if (!isForPeople && grants.includes("refresh_token"))
    check.report([...path, "grants"], "'refresh_token' does nothing without 'authorization_code': clients that act for themselves get no refresh token", "key");
  if (allow?.clients !== undefined && !isForMachines)
    check.report([...path, "allow", "clients"], "'clients' matches nobody: 'grants' is without 'client_credentials'", "key");
  if (!isForPeople && isForMachines && allow?.clients === undefined && way.identity_assertions.length === 0)
    check.report(path, "'oauth' lets nobody in: its only grant is 'client_credentials', and 'allow' names no 'clients'", "key");
  const isForClientsAlone = allow !== undefined && Object.keys(allow).every((key) => key === "clients");
  if (isForPeople && isForClientsAlone && check.isSound([...path, "allow"]) && check.isSound(["auth", "login"])) {
    const remedy = "name people in 'allow', or write 'grants: [client_credentials]'";
    if (loginKinds(check.config.auth.login).some((login) => login !== "tailnet"))
      check.warn([...path, "allow"], `No person comes in by 'oauth': its 'allow' names 'clients' alone; ${remedy}`, "key");
  }
  return isForPeople && !isForClientsAlone;
}

/** Each issuer is known, and says something of its people that 'allow' asks for. */
function checkAssertions(check: CheckContext, path: Path, { identity_assertions: names, allow }: OAuthWay): void {
  const at = [...path, "identity_assertions"];
  for (const [place, name] of check.items(at, names)) checkIssuerName(check, place, name);
  if (names.length === 0 || !check.isSound([...path, "allow"]) || ISSUER_KEYS.some((key) => allow?.[key] !== undefined)) return;
  check.report(at, "'identity_assertions' lets nobody in: name people of the issuer in 'allow', by 'users', 'emails', 'domains', 'groups' or 'claims'", "key");
}

/** Some login must be able to show somebody whom the way takes. */
function checkAnybody(check: CheckContext, path: Path, { allow }: OAuthWay | SessionWay, isVouched = false): void {
  if (!check.isSound(["auth", "login"])) return;
  const kind = String(path.at(-1));
  const kinds = loginKinds(check.config.auth.login);
  if (kinds.length === 0) {
    const remedy = "give 'auth.login' one of 'github', 'oidc', 'password' and 'tailnet: true'";
    const whom = `'${kind}' lets nobody in${isVouched ? " but by 'identity_assertions'" : ""}`;
    check.report(path, `${whom}: there is no way to log in; ${remedy}${isVouched ? ", or write 'grants: [client_credentials]'" : ""}`, "key");
  } else if (allow === undefined && !kinds.includes("password") && !kinds.includes("tailnet")) {
    const anybody = kinds.includes("github") ? `; github_users: ["*"] admits anybody who has a GitHub account` : "";
    const keys = kinds.includes("github") ? "'github_users' or 'github_orgs'" : "'domains', 'groups' or 'emails'";
    check.warn(path, `Nobody comes in by '${kind}' yet: name people in 'allow', by ${keys}${anybody}`, "key");
  }
}

/** Clients that act for themselves: each that is let in has a secret or keys, and the scopes. */
function checkMachines(check: CheckContext, path: Path, { allow, scopes }: OAuthWay): void {
  if (!check.isSound(["auth", "clients"]) || !check.isSound(["auth", "scopes"])) return;
  for (const [at, id] of check.items([...path, "allow", "clients"], allow?.clients)) {
    const client = check.config.auth.clients.find((candidate) => candidate.id === id);
    if (client === undefined) continue;
    const shown = quote(check.text(at, id));
    const granted = includedScopes(check, client.scopes);
    const lacking = scopes.filter((scope) => !granted.has(scope));
    if (!canActForItself(client))
      check.report(at, `Client ${shown} cannot act for itself: it has neither a secret nor keys; give it 'secret_file' or 'jwks_file'`);
    else if (lacking.length > 0)
      check.report(at, `Client ${shown} lacks ${lacking.map((scope) => quote(scope)).join(" and ")}, without which it does not come in; add to its 'scopes'`);
  }
}

function checkIssuerName(check: CheckContext, path: Path, name: string): void {
  const issuers: unknown = check.config.auth?.issuers;
  if (typeof issuers !== "object" || issuers === null || Object.hasOwn(issuers, name) || !check.isThere(["auth", "issuers"])) return;
  const known = Object.keys(issuers);
  const meant = nearest(name, known);
  const remedy = meant === null ? `names in auth.issuers: ${known.join(", ") || "none"}` : `did you mean '${meant}'?`;
  check.report(path, `Unknown issuer ${quote(check.text(path, name))}; ${remedy}`);
}
