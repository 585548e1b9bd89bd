// One authorization server: its endpoints on the origin of its issuer.
import type { AuthorizationServerPlan } from "../plan/model.ts";
import type { StateStore } from "../state/store.ts";
import type { Log } from "../telemetry/log.ts";
import type { AuthorizationServer } from "./endpoint.ts";

export type ServerDeps = {
  readonly store: StateStore;
  readonly log: Log;
};

/** `lastUsedAt` and other times as ISO 8601. */
export type OAuthClientInfo = {
  readonly server: string;
  readonly id: string;
  readonly name: string;
  /** `static`: of the file; `registered`: it registered itself; `document`: its id is the address of its metadata. */
  readonly kind: "static" | "registered" | "document";
  readonly redirectUris: readonly string[];
  readonly createdAt: string | null;
};

export type OAuthGrantInfo = {
  readonly server: string;
  readonly id: string;
  readonly client: string;
  readonly clientName: string;
  /** `github:octocat`. */
  readonly user: string;
  readonly resources: readonly string[];
  readonly scopes: readonly string[];
  readonly createdAt: string;
  readonly expiresAt: string | null;
};

/** One of them. `user`: as in OAuthGrantInfo; takes the person's sessions as well. `client`: its grants, and its registration. */
export type Revocation = { readonly grant: string } | { readonly client: string } | { readonly user: string } | { readonly all: true };

export type LiveServer = AuthorizationServer & {
  clients(): Promise<OAuthClientInfo[]>;
  grants(): Promise<OAuthGrantInfo[]>;
  /** Resolves with how many grants and sessions are gone. */
  revoke(what: Revocation): Promise<number>;
  close(): void;
};

export function openServer(_plan: AuthorizationServerPlan, _deps: ServerDeps): Promise<LiveServer> {
  throw new Error("not built yet");
}
