// What the gateway tells about itself: the answer of /status, as flat data with the names that it has in JSON. Never a secret.
import type { TailnetStatus } from "../tailscale/status.ts";

/** A problem of the configuration; line and column count from 1, 0 or none = the file as a whole. */
export type StatusProblem = { readonly file: string; readonly message: string; readonly line?: number; readonly column?: number; readonly path?: string };

/** How a reload ended. `warnings` are those of the file as it is now; `text` shows all to people, with its lines of the file. */
export type ReloadResult = { readonly warnings: readonly StatusProblem[]; readonly text: string } & (
  { readonly outcome: "changed" | "unchanged" } | { readonly outcome: "refused"; readonly problems: readonly StatusProblem[] }
);

/** Times are ISO 8601. */
export type GatewayStatus = {
  readonly version: string;
  readonly pid: number;
  readonly started_at: string;
  readonly uptime_seconds: number;
  /** The gateway was told to stop and drains. */
  readonly stopping: boolean;
  readonly config: {
    readonly file: string;
    /** Beginning of the digest of the configuration that serves. */
    readonly digest: string;
    readonly loaded_at: string;
    /** The newest file was refused; null: it serves. */
    readonly refused: { readonly at: string; readonly problems: readonly StatusProblem[]; readonly text: string } | null;
  };
  readonly listeners: readonly ListenerStatus[];
  /** Removed listeners whose connections still end. */
  readonly draining_listeners: number;
  /** `error`: why the state directory cannot be used; empty when it can, or when nothing was to be kept yet. */
  readonly state: { readonly dir: string; readonly error: string };
  readonly routes: readonly RouteStatus[];
  readonly upstreams: readonly UpstreamStatus[];
  readonly certificates: readonly CertificateStatus[];
  readonly authorization_servers: readonly AuthorizationServerStatus[];
  readonly identity_providers: readonly IdentityProviderStatus[];
  /** Null: nothing is on the tailnet. */
  readonly tailnet: (TailnetStatus & { readonly clients: readonly TailnetClientStatus[] }) | null;
};

export type AuthorizationServerStatus = {
  readonly issuer: string;
  /** How people log in: github, the name of an OpenID provider, password, tailnet. */
  readonly login: readonly string[];
  /** What its tokens are for. */
  readonly resources: readonly string[];
  /** Origins of the pages that its browser sessions are for. */
  readonly session_origins: readonly string[];
};

/** Somebody else who says who somebody is. It is asked when a person logs in or a token comes, and never besides. */
export type IdentityProviderStatus = {
  /** An issuer of tokens (`auth.issuers`), or one at which people log in (`auth.login`). */
  readonly kind: "issuer" | "login";
  /** The issuer's name in the file; `github`, or the name of an OpenID provider. */
  readonly name: string;
  readonly url: string;
  /** Why it could not be asked, or what is wrong with its answers or with us; empty when nothing failed within the last 10 minutes. */
  readonly error: string;
  /** When that began; null without an error. */
  readonly since: string | null;
};

/** A device of the tailnet that is connected now. */
export type TailnetClientStatus = {
  readonly listener: string;
  /** Its address in the tailnet, and its name there. */
  readonly address: string;
  readonly node: string;
  /** Null for a tagged node. */
  readonly user: string | null;
  readonly tags: readonly string[];
  readonly connections: number;
};

export type ListenerStatus = {
  readonly name: string;
  readonly protocol: "http" | "tcp";
  /** As it was really bound: 127.0.0.1:41234; `tailnet:4003` on the tailnet. */
  readonly address: string;
  readonly tls: "disabled" | "application" | "behind_proxy" | "auto";
  /** Open client connections. */
  readonly connections: number;
  /** Why it does not listen; empty when it does. */
  readonly down: string;
};

/** How what a command asked for ended; `message` is for people. */
export type ActionResult = { readonly ok: boolean; readonly message: string };

export type RouteStatus = {
  readonly name: string;
  /** Null: all HTTP listeners. */
  readonly listeners: readonly string[] | null;
  /** Null: any. */
  readonly host: string | null;
  /** `/mcp`, `/api/*` for a prefix, `~ ^/v[0-9]+` for a regular expression, `*` for any. */
  readonly path: string;
  /** Null: every method. */
  readonly methods: readonly string[] | null;
  readonly upstream: string;
  /** Ways in, as `token ci`; `none` when everybody may. */
  readonly auth: readonly string[];
};

export type UpstreamStatus = {
  readonly name: string;
  /** False: `insecure_skip_verify`, any certificate of its targets is taken. */
  readonly verified: boolean;
  readonly targets: readonly TargetStatus[];
};

export type TargetStatus = {
  readonly url: string;
  readonly health: "unknown" | "healthy" | "degraded" | "unhealthy";
  /** Why it is not healthy; empty when it is. */
  readonly reason: string;
  /** Requests or connections under way. */
  readonly active: number;
  /** Left out for a while because connections to it failed. */
  readonly ejected: boolean;
};

export type CertificateStatus = {
  /** Names of those that serve it. */
  readonly listeners: readonly string[];
  readonly names: readonly string[];
  readonly source: "file" | "acme" | "tailscale" | "internal";
  /** File of the certificate, or of the CA for the internal one; null when the state, or tailscaled, holds it. */
  readonly file: string | null;
  /** Empty when it was not issued yet. */
  readonly issuer: string;
  /** Null when it was not issued yet, as is its end. */
  readonly valid_from: string | null;
  readonly expires_at: string | null;
  /** When it will be renewed or ordered by itself; null when somebody else does that. */
  readonly renews_at: string | null;
  /** Why the last attempt to get it failed; empty when it did not. */
  readonly error: string;
};
