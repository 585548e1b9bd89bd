// What the admin interface knows of OAuth: its clients, its grants, the sessions of browsers, and taking them back.
import type { BrowserSessionInfo, OAuthClientInfo, OAuthGrantInfo, Revocation } from "../authorization-server/grants.ts";

export type AdminAuth = {
  clients(): Promise<readonly OAuthClientInfo[]>;
  grants(): Promise<readonly OAuthGrantInfo[]>;
  sessions(): Promise<readonly BrowserSessionInfo[]>;
  /** Resolves with how many grants and sessions are gone. */
  revoke(what: Revocation): Promise<number>;
};

const MAX_LENGTH = 2_048;

/** By `created_at`; what has none comes last, in its order. */
export function newestFirst<T extends { readonly created_at: string | null }>(all: readonly T[]): T[] {
  return all.toSorted((a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? ""));
}

/** Whether the text is a user as grants show it: `github:octocat`. */
export function isUser(text: string): boolean {
  return /^[\w-]+:./.test(text);
}

/** What a query says is to be taken back: exactly one of grant=ID, session=ID, client=ID, user=SOURCE:NAME, all=true, and nothing else. Null for another query. */
export function parseRevocation(query: string): Revocation | null {
  const [[name, value] = ["", ""], ...more] = new URLSearchParams(query);
  if (more.length > 0 || value === "" || value.length > MAX_LENGTH) return null;
  if (name === "grant") return { grant: value };
  if (name === "session") return { session: value };
  if (name === "client") return { client: value };
  if (name === "user") return isUser(value) ? { user: value } : null;
  return name === "all" && value === "true" ? { all: true } : null;
}
