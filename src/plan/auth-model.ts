// Who may come in, as plain data: the part of the plan that speaks of people, tokens and authorization servers.

export type TokenPlan = { readonly name: string; readonly sha256: Buffer; readonly scopes: readonly string[] };

/**
 * People and devices of the tailnet: one match is enough, and when all are null every node matches. All lower case. `users` are login names, of nodes
 * without tags; `nodes` are first labels of names in our own tailnet, or whole names without the final dot.
 */
export type TailnetMatch = {
  readonly users: ReadonlySet<string> | null;
  readonly tags: ReadonlySet<string> | null;
  readonly nodes: ReadonlySet<string> | null;
};

/**
 * Whom a way admits, by what a login or a token says of them: one match is enough, and nobody else. Null: nothing of this kind admits. In lower case
 * are GitHub names, e-mail addresses and domains.
 */
export type PeopleMatch = {
  readonly githubUsers: "*" | ReadonlySet<string> | null;
  readonly githubOrgs: ReadonlySet<string> | null;
  /** `org/team`. */
  readonly githubTeams: ReadonlySet<string> | null;
  readonly users: ReadonlySet<string> | null;
  readonly emails: ReadonlySet<string> | null;
  readonly domains: ReadonlySet<string> | null;
  readonly groups: ReadonlySet<string> | null;
  /** A claim's path with the values that admit. */
  readonly claims: readonly { readonly path: readonly string[]; readonly values: ReadonlySet<string> }[];
  readonly tailnet: TailnetMatch | null;
  /** Clients that act for themselves. */
  readonly clients: ReadonlySet<string> | null;
  /** Everybody of the password file and of the tailnet. */
  readonly ownPeople: boolean;
};

/**
 * One way in. A token by name (null = any) that grants all of `scopes`; or a client certificate, any of them when both sets are null,
 * otherwise one whose common name, distinguished name (RFC 2253) or subject alternative name is in one of them; or a node of the tailnet
 * on a connection to a `tailnet:` listener; or a token of our own authorization server for `resource`; or one of the issuer of that name in
 * `Plan.issuers` (`allow` null: of everybody); or a browser's session.
 */
export type AuthWayPlan =
  | { readonly kind: "token"; readonly names: ReadonlySet<string> | null; readonly scopes: readonly string[] }
  | { readonly kind: "client_certificate"; readonly subjects: ReadonlySet<string> | null; readonly sans: ReadonlySet<string> | null }
  | { readonly kind: "tailnet"; readonly match: TailnetMatch }
  | {
      readonly kind: "oauth";
      readonly resource: string;
      readonly scopes: readonly string[];
      readonly allow: PeopleMatch;
      /** Names of the issuers whose people come in by it too, with tokens for their identity assertions. */
      readonly identityAssertions: ReadonlySet<string>;
    }
  | { readonly kind: "issuer"; readonly issuer: string; readonly scopes: readonly string[]; readonly allow: PeopleMatch | null }
  | { readonly kind: "session"; readonly allow: PeopleMatch };

/** RFC 9728. `url` is the `resource`; `authorizationServers` begins with our own. `scopes`: those that its ways need. */
export type ResourceMetadataPlan = {
  readonly url: string;
  readonly authorizationServers: readonly string[];
  readonly scopes: readonly string[];
  readonly baseScopes: readonly string[];
};

export type McpPlan = { readonly sessionBinding: boolean };

/** A scope as it is known everywhere: `includes` holds all that it includes, also by others. */
export type ScopePlan = {
  readonly name: string;
  readonly description: string | null;
  readonly includes: ReadonlySet<string>;
  readonly allow: PeopleMatch | null;
};

export type IssuerPlan = {
  readonly name: string;
  readonly issuer: string;
  /** Empty: its access tokens open nothing, its identity assertions may. */
  readonly audiences: ReadonlySet<string>;
  /** Null: looked up in the metadata. */
  readonly jwksUrl: string | null;
  readonly algorithms: readonly string[];
  /** Lower case, without "application/"; "none" for tokens without one. */
  readonly types: ReadonlySet<string>;
  readonly clockToleranceMs: number;
  /** Paths of claims. */
  readonly userClaim: readonly string[];
  readonly groupsClaim: readonly string[];
  /** Null: scope, else scp. */
  readonly scopesClaim: readonly string[] | null;
  readonly grants: readonly { readonly scopes: readonly string[]; readonly allow: PeopleMatch }[];
  /** Null: opaque tokens are refused. `url` null: looked up in the metadata. */
  readonly introspection: { readonly url: string | null; readonly clientId: string; readonly clientSecret: string | null; readonly cacheMs: number } | null;
  /** PEM; null = the system's CAs. */
  readonly ca: string | null;
  /** Equal keys mean that all is equal: keys and answers that were fetched are kept over a reload. Never logged. */
  readonly key: string;
};

/** The ways in which people log in; at least one is not null, and false. */
export type LoginPlan = {
  readonly github: {
    readonly clientId: string;
    readonly clientSecret: string;
    readonly baseUrl: string;
    readonly apiUrl: string;
    readonly ca: string | null;
  } | null;
  readonly oidc: {
    readonly issuer: string;
    readonly clientId: string;
    /** Null: a public client. */
    readonly clientSecret: string | null;
    /** What the button says after "Continue with". */
    readonly name: string;
    readonly scopes: readonly string[];
    readonly groupsClaim: readonly string[];
    readonly ca: string | null;
  } | null;
  /** By name. `hash` as `hash-password` prints it. */
  readonly password: ReadonlyMap<string, { readonly hash: string; readonly groups: readonly string[] }> | null;
  readonly tailnet: boolean;
};

export type ClientPlan = {
  readonly id: string;
  readonly name: string;
  readonly secret: string | null;
  /** JSON Web Keys, public ones. */
  readonly jwks: readonly Readonly<Record<string, unknown>>[] | null;
  readonly scopes: readonly string[];
  readonly redirectUris: readonly string[];
};

/** What our tokens are for. Routes with the same public URL are one resource: `allow` holds the people of all of them. */
export type OAuthResourcePlan = {
  readonly url: string;
  /** Names of its routes, for people. */
  readonly routes: readonly string[];
  readonly scopes: readonly string[];
  /** What each of its ways needs: one is enough. */
  readonly scopeSets: readonly (readonly string[])[];
  readonly optionalScopes: readonly string[];
  readonly allow: readonly PeopleMatch[];
  /** Its ways that take identity assertions: names of issuers with their URLs, and whom of theirs. Empty: none is taken. */
  readonly assertions: readonly { readonly issuers: ReadonlyMap<string, string>; readonly allow: PeopleMatch }[];
  readonly grants: ReadonlySet<"authorization_code" | "refresh_token" | "client_credentials">;
  readonly accessTokenMs: number;
  readonly refreshTokenMs: number;
  /** After which a person has to log in again. */
  readonly loginLifetimeMs: number;
  readonly accessTokenFormat: "opaque" | "jwt";
};

/** One authorization server. It stands on its issuer's origin. */
export type AuthorizationServerPlan = {
  /** An origin, without a slash at its end. */
  readonly issuer: string;
  /** Host name of the issuer, lower case, without port. */
  readonly host: string;
  /** At least one, unless it is for sessions alone. The first is that of clients who name none, when it is the only one. */
  readonly resources: readonly OAuthResourcePlan[];
  /** Origins of pages that people with sessions come from; their host may be another. */
  readonly sessionOrigins: ReadonlySet<string>;
  /** How long a session lasts on each of these origins: the shortest of the lifetimes of its routes. */
  readonly sessionLifetimesMs: ReadonlyMap<string, number>;
  /** Names of the HTTP listeners that serve it; null = all. */
  readonly listeners: ReadonlySet<string> | null;
  /** Some of its routes take requests of any host. */
  readonly anyHost: boolean;
  readonly login: LoginPlan;
  readonly clients: readonly ClientPlan[];
  readonly scopes: ReadonlyMap<string, ScopePlan>;
  /** Equal keys mean that all is equal. Never logged: it contains a hash of secrets. */
  readonly key: string;
};
