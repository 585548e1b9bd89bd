// The part of oidc-provider that is used here; the package has no types of its own.
declare module "oidc-provider" {
  import type { IncomingMessage, ServerResponse } from "node:http";

  type Payload = Record<string, unknown>;

  type Adapter = {
    upsert(id: string, payload: Payload, expiresIn?: number): Promise<void>;
    find(id: string): Promise<Payload | undefined>;
    findByUid(uid: string): Promise<Payload | undefined>;
    findByUserCode(userCode: string): Promise<Payload | undefined>;
    destroy(id: string): Promise<void>;
    consume(id: string): Promise<void>;
    revokeByGrantId(grantId: string): Promise<void>;
  };

  type OidcClient = {
    readonly clientId: string;
    readonly clientName?: string;
    readonly clientAuthMethod: string;
    readonly redirectUris: readonly string[];
    readonly clientIdMetadataDocument?: true;
    grantTypeAllowed(type: string): boolean;
  };

  type OidcContext = {
    status: number;
    type: string;
    body: unknown;
    set(header: string, value: string): void;
    readonly oidc: {
      readonly route: string;
      readonly params: Readonly<Record<string, unknown>> | undefined;
      readonly client: OidcClient | undefined;
      readonly result: Readonly<Record<string, { readonly grantId?: string } | undefined>> | undefined;
      readonly entities: Readonly<Record<string, unknown>>;
    };
  };

  type Token = {
    readonly kind: string;
    readonly accountId?: string;
    readonly scope?: string;
    readonly grantId?: string;
    readonly clientId: string;
    readonly resource?: string | readonly string[];
    readonly resourceServer?: { readonly accessTokenFormat?: string; readonly accessTokenTTL?: number };
  };

  class Interaction {
    readonly uid: string;
    readonly exp: number;
    readonly returnTo: string;
    readonly params: Readonly<Record<string, unknown>>;
    result?: Payload;
    save(ttl: number): Promise<string>;
    static find(uid: string): Promise<Interaction | undefined>;
  }

  class Grant {
    constructor(args: { accountId: string; clientId: string; expiresIn: number });
    addResourceScope(resource: string, scope: string): void;
    /** Resolves with its id. */
    save(): Promise<string>;
  }

  class ResourceServer {
    constructor(identifier: string, info: object);
    identifier(): string;
  }

  class AccessToken {
    constructor(args: { accountId: string; client: OidcClient; grantId: string; gty: string });
    resourceServer: ResourceServer;
    scope: string | undefined;
    /** Seconds. */
    readonly expiration: number;
    readonly tokenType: string;
    /** Resolves with the token. */
    save(): Promise<string>;
  }

  class Provider {
    constructor(issuer: string, configuration: Readonly<Record<string, unknown>>);
    proxy: boolean;
    readonly Client: { find(id: string): Promise<OidcClient | undefined> };
    readonly Interaction: typeof Interaction;
    readonly Grant: typeof Grant;
    readonly AccessToken: typeof AccessToken;
    readonly ResourceServer: typeof ResourceServer;
    /** @param parameters of the token request, beside those by which clients authenticate */
    registerGrantType(name: string, handler: (ctx: OidcContext) => Promise<void>, parameters: readonly string[]): void;
    callback(): (req: IncomingMessage, res: ServerResponse) => void;
    on(event: "server_error", listener: (ctx: OidcContext, error: unknown) => void): this;
    /** `error_detail`: what clients are not told. */
    on(
      event: "grant.error" | "introspection.error" | "revocation.error" | "registration_create.error",
      listener: (ctx: OidcContext, error: Error & { readonly error_detail?: string }) => void,
    ): this;
  }

  type Check = object;
  type Prompt = object;

  const interactionPolicy: {
    readonly Check: new (reason: string, description: string, error: string, check: (ctx: OidcContext) => boolean) => Check;
    readonly Prompt: new (args: { name: string; requestable: boolean }, ...checks: Check[]) => Prompt;
    base(): Prompt[] & { clear(): void; add(prompt: Prompt): void };
  };

  const errors: Readonly<
    Record<
      | "OIDCProviderError"
      | "CustomOIDCProviderError"
      | "UnauthorizedClient"
      | "UnsupportedGrantType"
      | "InvalidTarget"
      | "InvalidScope"
      | "InvalidGrant"
      | "InvalidClient"
      | "InvalidClientAuth",
      new (...args: string[]) => Error
    >
  >;

  export { Provider, errors, interactionPolicy, type Adapter, type OidcClient, type OidcContext, type Payload, type Token };
}
