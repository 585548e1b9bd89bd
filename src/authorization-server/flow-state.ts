// Logins that are under way at somebody else's: what the `state` of the redirect stands for.
import type { StateStore } from "../state/store.ts";
import { isSecret, makeSecret, secretHash, type Browser } from "./browser.ts";
import { tryParseJson } from "./kept.ts";
import { createNewest } from "./newest.ts";
import type { LoginSource } from "./login-source.ts";

const LOGIN_MS = 600_000;

/** What a login is for: a client that waits for consent, which was given, or pages of an origin. `browser`: hash of that of the browser on that origin. */
export type LoginTarget = ConsentTarget | SessionTarget;
export type ConsentTarget = {
  readonly kind: "consent";
  readonly uid: string;
  readonly clientId: string;
  readonly clientName: string;
  readonly redirectUri: string;
  readonly resource: string;
  readonly scopes: readonly string[];
};
export type SessionTarget = { readonly kind: "session"; readonly origin: string; readonly returnTo: string; readonly browser: string };

export type LoginUnderWay = {
  readonly browser: string;
  readonly source: LoginSource["kind"];
  readonly memory: string;
  readonly target: LoginTarget;
};

export type LoginStates = {
  /** Resolves with where the browser goes. @param client address @throws {LoginError} */
  start(source: LoginSource, browser: Browser, target: LoginTarget, client: string): Promise<string>;
  /** What the state stands for, once; null when it is unknown, used, older than 10 minutes, or another browser's. */
  take(state: string, browser: Browser): Promise<LoginUnderWay | null>;
};

export function createLoginStates(issuer: string, store: StateStore): LoginStates {
  const keyOf = (state: string): string => `login:${secretHash(issuer).slice(0, 22)}:${secretHash(state)}`;
  const begun = createNewest();
  return {
    async start(source, browser, target, client) {
      const state = makeSecret();
      const { location, memory } = await source.start({ redirectUri: `${issuer}/callback`, state });
      const kept: LoginUnderWay = { browser: secretHash(browser.id), source: source.kind, memory, target };
      for (const old of begun.keep(keyOf(state), client)) await store.delete(old);
      await store.set(keyOf(state), JSON.stringify(kept), LOGIN_MS);
      return location;
    },
    async take(state, browser) {
      if (!isSecret(state)) return null;
      const kept = tryParseJson(await store.take(keyOf(state))) as LoginUnderWay | null;
      return kept !== null && !browser.isNew && kept.browser === secretHash(browser.id) ? kept : null;
    },
  };
}
