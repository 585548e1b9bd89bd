// What a login or a token says of somebody, and whether that is one of those whom a way admits.
import { asciiName, printable } from "../lib/printable.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { LoginPlan, PeopleMatch } from "../plan/auth-model.ts";
import type { Identity } from "./identity.ts";
import { matchesTailnet } from "./tailnet.ts";

// RFC 5321, 4.5.3.1.3.
const MAX_EMAIL_CHARS = 254;

/** Plain data: it is kept as JSON with the grants of whom it describes. What the source does not tell is null or empty. */
export type Person = {
  readonly source: "github" | "oidc" | "password" | "tailnet" | "client" | "issuer";
  /** What never changes and is never given to somebody else: the numeric id of GitHub, 'sub', a name of the password file, the id of a client. */
  readonly subject: string;
  /** Login name, user name: for people and logs. */
  readonly name: string;
  /** Only one that the source has verified; lower case. */
  readonly email: string | null;
  /** That of the verified address, or of the organisation where the provider says it; lower case. */
  readonly domain: string | null;
  /** GitHub's, lower case. */
  readonly orgs: readonly string[];
  /** GitHub's as org/team, lower case. */
  readonly teams: readonly string[];
  readonly groups: readonly string[];
  readonly claims: Readonly<Record<string, unknown>>;
  readonly peer: TailnetPeer | null;
  /** Who vouched for somebody by an identity assertion: its name in `Plan.issuers`, and its URL then, at which alone the subject is unique. */
  readonly issuer?: { readonly name: string; readonly url: string };
};

/** What is kept of a person, as it counts now: people of the password file are whom the file names now, with the groups that it says; null when it names them no more. */
export function personNow(person: Person | null, { password }: Pick<LoginPlan, "password">): Person | null {
  if (person?.source !== "password") return person;
  const user = password?.get(person.subject);
  return user === undefined ? null : { ...person, groups: user.groups };
}

/** Whether the person is one of those meant: one match is enough, and an empty match is nobody. */
export function matchesPeople(person: Person, match: PeopleMatch): boolean {
  const { source } = person;
  if (source === "client") return match.clients?.has(person.subject) === true;
  if (match.ownPeople && (source === "password" || source === "tailnet")) return true;
  if (source === "github") {
    if (match.githubUsers === "*" || match.githubUsers?.has(person.name.toLowerCase()) === true) return true;
    if (person.orgs.some((org) => match.githubOrgs?.has(org)) || person.teams.some((team) => match.githubTeams?.has(team))) return true;
  } else if (source === "tailnet") {
    return match.tailnet !== null && person.peer !== null && matchesTailnet(person.peer, match.tailnet);
  } else if (match.users?.has(person.subject) === true) return true;
  if (person.email !== null && match.emails?.has(person.email) === true) return true;
  if (person.domain !== null && match.domains?.has(person.domain) === true) return true;
  if (person.groups.some((group) => match.groups?.has(group))) return true;
  return match.claims.some(({ path, values }) => claimTexts(person.claims, path).some((text) => values.has(text)));
}

/** The address that a source names and that does not count, as it does not say that it is verified: for the log. Null: none. */
export function unverifiedEmail({ email, claims }: Person): string | null {
  const { email: claimed } = claims;
  return email === null && typeof claimed === "string" && claimed !== "" ? printable(claimed, MAX_EMAIL_CHARS) : null;
}

/** The texts at a claim's path: of a list each, of a number or a truth its word; none when there is nothing of the kind. */
export function claimTexts(claims: Readonly<Record<string, unknown>>, path: readonly string[]): string[] {
  let value: unknown = claims;
  for (const step of path) {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, step)) return [];
    value = (value as Record<string, unknown>)[step];
  }
  return [value].flat().flatMap((one) => (typeof one === "string" ? one : typeof one === "number" || typeof one === "boolean" ? String(one) : []));
}

/** The source for the log and for headers: of an issuer's people with its name. */
export function personSource({ source, issuer }: Person): Identity["source"] {
  return source === "issuer" ? `issuer:${issuer?.name ?? ""}` : source;
}

/** Name for the log and for headers: unique within the source, printable ASCII. */
export function personName(person: Person): string {
  return asciiName(person.name);
}
