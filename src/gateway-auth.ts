// All that knows people and tokens, joined: the state, the authorization servers and the issuers that a plan wants, kept while they stay equal.
import type { AuthorizationServer } from "./authorization-server/endpoint.ts";
import type { BrowserSessionInfo, OAuthClientInfo, OAuthGrantInfo, Revocation } from "./authorization-server/grants.ts";
import { LoginThrottle } from "./authorization-server/login-throttle.ts";
import type { LiveServer } from "./authorization-server/server.ts";
import type { LiveIssuer } from "./identity/issuer.ts";
import type { IdentityProvider } from "./identity/provider-health.ts";
import { planHash } from "./plan/plan-hash.ts";
import type { Plan } from "./plan/model.ts";
import type { StateStore } from "./state/store.ts";
import type { Log } from "./telemetry/log.ts";

export type PreparedAuth = {
  /** By issuer. */
  readonly servers: ReadonlyMap<string, AuthorizationServer>;
  /** By name in the plan. */
  readonly issuers: ReadonlyMap<string, LiveIssuer>;
  /** Ends what the plan before wanted alone. */
  commit(): void;
  /** Ends what this plan wanted alone. */
  abort(): void;
};

type State = { readonly dir: string; readonly store: StateStore };
type Keyed<T> = ReadonlyMap<string, { readonly key: string; readonly live: T }>;

const NONE = { servers: new Map(), issuers: new Map() };

export class GatewayAuth {
  readonly #log: Log;
  // One for all servers, over every reload: whoever guesses passwords does not begin anew at another host, nor after an edit.
  readonly #throttle = new LoginThrottle();
  #state: State | null = null;
  #current: { readonly servers: Keyed<LiveServer>; readonly issuers: Keyed<LiveIssuer> } = NONE;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Opens what the plan wants and is not there yet. @throws {StateError} when the state cannot be opened */
  async prepare({ stateDir, authorizationServers, issuers, scopes }: Plan): Promise<PreparedAuth> {
    if (authorizationServers.length === 0 && issuers.length === 0) return this.#prepared(NONE, null);
    const before = this.#current;
    const opened: { close(): void }[] = [];
    let state: State | null = null;
    try {
      const liveIssuers = new Map<string, { key: string; live: LiveIssuer }>();
      if (issuers.length > 0) {
        const { openIssuer } = await import("./identity/issuer.ts");
        // What a token grants is part of what is kept of it.
        const scopesHash = planHash(scopes);
        for (const plan of issuers) {
          const key = `${plan.key} ${scopesHash}`;
          const live = kept(before.issuers.get(plan.name), key) ?? opening(openIssuer(plan, this.#log, scopes));
          liveIssuers.set(plan.name, { key, live });
        }
      }
      const liveServers = new Map<string, { key: string; live: LiveServer }>();
      if (authorizationServers.length > 0) {
        const { openSqliteStore, openServer } = await loadLibraries();
        state = this.#state?.dir === stateDir ? this.#state : { dir: stateDir, store: await openSqliteStore(stateDir, this.#log) };
        const isSame = state === this.#state;
        for (const plan of authorizationServers) {
          const live =
            (isSame ? kept(before.servers.get(plan.issuer), plan.key) : null) ??
            opening(
              await openServer(plan, {
                store: state.store,
                log: this.#log,
                throttle: this.#throttle,
                issuers: (name) => this.#current.issuers.get(name)?.live ?? null,
              }),
            );
          liveServers.set(plan.issuer, { key: plan.key, live });
        }
      }
      return this.#prepared({ servers: liveServers, issuers: liveIssuers }, state);
    } catch (error) {
      for (const one of opened) one.close();
      if (state !== null && state !== this.#state) await state.store.close();
      throw error;
    }

    function opening<T extends { close(): void }>(live: T): T {
      opened.push(live);
      return live;
    }
  }

  #servers(): LiveServer[] {
    return [...this.#current.servers.values()].map(({ live }) => live);
  }

  #prepared(next: { readonly servers: Keyed<LiveServer>; readonly issuers: Keyed<LiveIssuer> }, state: State | null): PreparedAuth {
    const live = <T>(map: Keyed<T>): Map<string, T> => new Map([...map].map(([name, one]) => [name, one.live]));
    const closeAlone = (these: typeof next, others: typeof next): void => {
      const stay = new Set<unknown>([...others.servers.values(), ...others.issuers.values()].map((one) => one.live));
      for (const one of [...these.servers.values(), ...these.issuers.values()]) if (!stay.has(one.live)) one.live.close();
    };
    return {
      servers: live(next.servers),
      issuers: live(next.issuers),
      commit: () => {
        const [before, stateBefore] = [this.#current, this.#state];
        this.#current = next;
        this.#state = state;
        closeAlone(before, next);
        if (stateBefore !== null && stateBefore !== state) void stateBefore.store.close();
      },
      abort: () => {
        closeAlone(next, this.#current);
        if (state !== null && state !== this.#state) void state.store.close();
      },
    };
  }

  /** The clients, the grants and the browser sessions of all servers. */
  async clients(): Promise<OAuthClientInfo[]> {
    return (await Promise.all(this.#servers().map((server) => server.clients()))).flat();
  }

  async grants(): Promise<OAuthGrantInfo[]> {
    return (await Promise.all(this.#servers().map((server) => server.grants()))).flat();
  }

  async sessions(): Promise<BrowserSessionInfo[]> {
    return (await Promise.all(this.#servers().map((server) => server.sessions()))).flat();
  }

  /** Each issuer and each login once, though every server asks for itself: it fails when it fails for one of them, and as long as for the first. */
  providers(): IdentityProvider[] {
    const found = new Map<string, IdentityProvider>();
    const issuers = [...this.#current.issuers.values()].map(({ live }) => live.provider());
    for (const one of [...issuers, ...this.#servers().flatMap((server) => server.providers())]) {
      const key = JSON.stringify([one.kind, one.name, one.url]);
      const known = found.get(key);
      if (known === undefined || (one.outage?.sinceMs ?? Infinity) < (known.outage?.sinceMs ?? Infinity)) found.set(key, one);
    }
    return [...found.values()];
  }

  /** Takes back what was granted; resolves with the number of grants and sessions that are gone. */
  async revoke(what: Revocation): Promise<number> {
    const counts = await Promise.all(this.#servers().map((server) => server.revoke(what)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async close(): Promise<void> {
    for (const { live } of [...this.#current.servers.values(), ...this.#current.issuers.values()]) live.close();
    this.#current = NONE;
    await this.#state?.store.close();
    this.#state = null;
  }
}

function kept<T>(present: { readonly key: string; readonly live: T } | undefined, key: string): T | null {
  return present?.key === key ? present.live : null;
}

/** Loaded by those who need them alone: they cost a start 150 ms. */
async function loadLibraries() {
  // oidc-provider tells standard error, where the log is, what it thinks of a Node.js whose build has no name of a release.
  /* oxlint-disable no-console -- put back at once */
  const { warn } = console;
  console.warn = () => {};
  try {
    const [{ openSqliteStore }, { openServer }] = await Promise.all([import("./state/sqlite.ts"), import("./authorization-server/server.ts")]);
    return { openSqliteStore, openServer };
  } finally {
    console.warn = warn;
    /* oxlint-enable no-console */
  }
}
