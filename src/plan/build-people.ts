// Whom a way admits, out of what the file says of people.
import type * as Language from "../config/types.ts";
import { tailnetMatch } from "./build-tailscale.ts";
import type { PeopleMatch } from "./auth-model.ts";

/** Admits nobody. */
export const NOBODY: PeopleMatch = {
  githubUsers: null,
  githubOrgs: null,
  githubTeams: null,
  users: null,
  emails: null,
  domains: null,
  groups: null,
  claims: [],
  tailnet: null,
  clients: null,
  ownPeople: false,
};

/** `allow` undefined: whom the operator has listed himself, in the password file or in the tailnet. */
export function peopleMatch(allow: Language.AllowPeople | undefined): PeopleMatch {
  if (allow === undefined) return { ...NOBODY, ownPeople: true };
  return {
    githubUsers: allow.github_users?.includes("*") === true ? "*" : lowerSet(allow.github_users),
    githubOrgs: lowerSet(allow.github_orgs),
    githubTeams: lowerSet(allow.github_teams),
    users: setOf(allow.users),
    emails: lowerSet(allow.emails),
    domains: lowerSet(allow.domains),
    groups: setOf(allow.groups),
    claims: Object.entries(allow.claims ?? {}).map(([path, values]) => ({ path: claimPath(path), values: new Set(values) })),
    tailnet: allow.tailnet === undefined ? null : tailnetMatch(allow.tailnet),
    clients: setOf(allow.clients),
    ownPeople: false,
  };
}

/** A claim that is a URL, as Auth0 has them, has dots that lead nowhere. */
export function claimPath(text: string): readonly string[] {
  return text.includes("://") ? [text] : text.split(".");
}

function setOf(texts: readonly string[] | undefined): ReadonlySet<string> | null {
  return texts === undefined ? null : new Set(texts);
}

function lowerSet(texts: readonly string[] | undefined): ReadonlySet<string> | null {
  return texts === undefined ? null : new Set(texts.map((text) => text.toLowerCase()));
}
