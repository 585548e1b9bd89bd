// oidc-provider has no types of its own: what the tests use of it.
import { createRequire } from "node:module";
import type { IncomingMessage, ServerResponse } from "node:http";

export type KoaContext = { readonly path: string; body: unknown; readonly oidc?: { readonly params?: Readonly<Record<string, unknown>> } };

export type Grant = { addOIDCScope(scope: string): void; addResourceScope(resource: string, scope: string): void; save(): Promise<string> };

export type ProviderInstance = {
  readonly Grant: new (of: { accountId: string; clientId: string }) => Grant;
  callback(): (request: IncomingMessage, response: ServerResponse) => void;
  interactionFinished(request: IncomingMessage, response: ServerResponse, result: Readonly<Record<string, unknown>>): Promise<void>;
  use(middleware: (ctx: KoaContext, next: () => Promise<void>) => Promise<void>): void;
  on(event: string, listener: (...args: readonly unknown[]) => void): void;
};

type Library = { readonly Provider: new (issuer: string, configuration: Readonly<Record<string, unknown>>) => ProviderInstance };

export const { Provider } = createRequire(import.meta.url)("oidc-provider") as Library;
