// Checks scopes: that somebody can have those that are asked for, and what they include.
import { nearest } from "../lib/nearest.ts";
import { type WayPlace, areWaysSound, includedScopes, takesAssertions } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import { checkPeople } from "./check-people.ts";
import { type Path, quote } from "./problem.ts";
import type { Scope, Token } from "./types.ts";

// OpenID Connect Core, 3.1.2.1 and 11: they mean something to the authorization server itself.
const RESERVED: Readonly<Record<string, string>> = {
  openid: "the gateway's own server says nothing of who people are to clients",
  offline_access: "clients get refresh tokens without it, where 'grants' has 'refresh_token'",
};

export function isReserved(scope: string): boolean {
  return Object.hasOwn(RESERVED, scope);
}

export function checkScopes(check: CheckContext, ways: readonly WayPlace[]): void {
  for (const { path, way } of ways) {
    if (way.token !== undefined && way.token.scopes.length > 0) checkTokens(check, [...path, "token"], way.token);
    for (const key of ["scopes", "optional_scopes"] as const) checkReserved(check, [...path, "oauth", key], way.oauth?.[key]);
    const wanted = way.oauth?.scopes ?? [];
    for (const [at, scope] of check.items([...path, "oauth", "optional_scopes"], way.oauth?.optional_scopes))
      if (wanted.includes(scope)) check.report(at, `Scope ${quote(check.text(at, scope))} stands in 'scopes' already, which every token must have`);
  }
  const clients: unknown = check.config.auth?.clients;
  if (Array.isArray(clients)) for (const i of clients.keys()) checkReserved(check, ["auth", "clients", i, "scopes"], check.config.auth.clients[i]?.scopes);
  checkEntries(check, ways);
}

function checkReserved(check: CheckContext, path: Path, scopes: unknown): void {
  for (const [at, scope] of check.items(path, scopes)) if (isReserved(scope)) check.report(at, `Scope '${scope}' is reserved: ${RESERVED[scope]}`);
}

/** A way by tokens of which none has its scopes. */
function checkTokens(check: CheckContext, path: Path, { names, scopes }: { names?: string[]; scopes: string[] }): void {
  if (!check.isSound(["auth", "tokens"]) || !check.isSound(["auth", "scopes"])) return;
  const tokens = check.config.auth.tokens.filter(({ name }) => names?.includes(name) ?? true);
  // An unknown name is a problem of its own.
  if (tokens.length === 0) return;
  const lackedBy = (token: Token): string[] => {
    const granted = includedScopes(check, token.scopes);
    return scopes.filter((scope) => !granted.has(scope));
  };
  if (tokens.every((token) => lackedBy(token).length > 0)) {
    const granted = includedScopes(
      check,
      tokens.flatMap((token) => token.scopes),
    );
    const missing = check.items([...path, "scopes"], scopes).filter(([, scope]) => !granted.has(scope));
    const whose = names === undefined ? "no entry of auth.tokens has it" : `${names.length === 1 ? "the token does not have" : "none of the tokens has"} it`;
    for (const [at, scope] of missing) {
      const meant = nearest(scope, granted);
      const remedy = meant === null ? "add it to the token's 'scopes'" : `did you mean '${meant}'?`;
      check.report(at, `Scope ${quote(check.text(at, scope))} is granted by nobody: ${whose}; ${remedy}`);
    }
    if (missing.length === 0) check.report([...path, "scopes"], "'scopes' are granted by nobody: no token has all of them", "key");
    return;
  }
  for (const [at, name] of check.items([...path, "names"], names)) {
    const token = tokens.find((candidate) => candidate.name === name);
    const lacking = token === undefined ? [] : lackedBy(token);
    if (lacking.length > 0)
      check.warn(at, `Token ${quote(check.text(at, name))} does not come in here: it lacks ${lacking.map((scope) => quote(scope)).join(" and ")}`);
  }
}

function checkEntries(check: CheckContext, ways: readonly WayPlace[]): void {
  const scopes: unknown = check.config.auth?.scopes;
  if (typeof scopes !== "object" || scopes === null || Array.isArray(scopes)) return;
  const entries = Object.entries(scopes as Record<string, Scope>);
  const wanted = ways.flatMap(({ way }) => [
    ...(way.oauth?.scopes ?? []),
    ...(way.oauth?.optional_scopes ?? []),
    ...(way.token?.scopes ?? []),
    ...(way.issuer?.scopes ?? []),
  ]);
  const known = new Set([...entries.map(([name]) => name), ...wanted]);
  for (const [name, scope] of entries) {
    const path = ["auth", "scopes", name];
    if (!check.isSound(path)) continue;
    if (isReserved(name)) check.report(path, `Scope '${name}' is reserved: ${RESERVED[name]}`, "key");
    for (const [at, included] of check.items([...path, "includes"], scope.includes)) {
      const meant = nearest(included, known);
      if (included === name) check.report(at, `Scope ${quote(name)} includes itself`);
      else if (!known.has(included) && areWaysSound(check))
        check.report(
          at,
          `Scope ${quote(check.text(at, included))} is unknown: no route asks for it; ${meant === null ? "take it away" : `did you mean '${meant}'?`}`,
        );
    }
    checkPeople(check, [...path, "allow"], scope.allow, ways.some(takesAssertions) ? "assertions" : "oauth");
  }
  if (!check.isSound(["auth", "scopes"])) return;
  checkCycles(check, entries);
  checkGranted(check, entries, ways);
}

/** Each circle is told once, at its first scope. */
function checkCycles(check: CheckContext, entries: readonly [string, Scope][]): void {
  const includes = new Map(entries.map(([name, scope]) => [name, scope.includes ?? []]));
  const done = new Set<string>();
  const follow = (name: string, trail: readonly string[]): void => {
    const start = trail.indexOf(name);
    if (start !== -1) {
      const circle = [...trail.slice(start), name];
      if (circle.length > 2)
        check.report(
          ["auth", "scopes", circle[0] ?? "", "includes"],
          `Scopes include one another in a circle: ${circle.map((one) => quote(one)).join(", ")}`,
          "key",
        );
      return;
    }
    if (done.has(name)) return;
    for (const next of includes.get(name) ?? []) follow(next, [...trail, name]);
    done.add(name);
  };
  for (const [name] of entries) follow(name, []);
}

/** An entry for a scope that nobody can have says nothing. What issuers put into their tokens is their business. */
function checkGranted(check: CheckContext, entries: readonly [string, Scope][], ways: readonly WayPlace[]): void {
  if (!areWaysSound(check) || !check.isSound(["auth", "tokens"]) || !check.isSound(["auth", "clients"]) || ways.some(({ way }) => way.issuer !== undefined))
    return;
  const { tokens } = check.config.auth;
  const offered = ways.flatMap(({ way }) => [...(way.oauth?.scopes ?? []), ...(way.oauth?.optional_scopes ?? [])]);
  const granted = includedScopes(check, [...offered, ...tokens.flatMap((token) => token.scopes)]);
  for (const [name] of entries) {
    if (granted.has(name) || isReserved(name)) continue;
    const meant = nearest(name, granted);
    const remedy = meant === null ? "offer it in 'optional_scopes' of 'oauth', or take it away" : `did you mean '${meant}'?`;
    check.report(["auth", "scopes", name], `Scope ${quote(name)} is granted by nobody: no 'oauth' offers it, and no token has it; ${remedy}`, "key");
  }
}
