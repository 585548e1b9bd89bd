// What an MCP client keeps of its OAuth: in memory, with a scripted person where a browser would open.
import { randomBytes } from "node:crypto";
import type { OAuthClientProvider } from "@modelcontextprotocol/sdk/client/auth.js";
import type { OAuthClientInformationMixed, OAuthClientMetadata, OAuthTokens } from "@modelcontextprotocol/sdk/shared/auth.js";

/** The person at the browser: goes to the address, consents, and gives back the address of the client that the browser is sent to. */
export type Person = (authorizationUrl: URL) => Promise<URL>;

export class MemoryOAuth implements OAuthClientProvider {
  readonly redirectUrl = "http://127.0.0.1:33418/callback";
  readonly clientMetadata: OAuthClientMetadata;
  readonly #person: Person;
  readonly #state = randomBytes(8).toString("hex");
  client: OAuthClientInformationMixed | undefined;
  saved: OAuthTokens | undefined;
  #verifier = "";
  /** Where the last authorization led to. */
  callback: URL | null = null;
  /** How many times a person was asked. */
  asked = 0;

  constructor(person: Person, metadata: Partial<OAuthClientMetadata> = {}) {
    this.#person = person;
    this.clientMetadata = {
      client_name: "Story client",
      redirect_uris: [this.redirectUrl],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      ...metadata,
    };
  }

  state(): string {
    return this.#state;
  }

  clientInformation(): OAuthClientInformationMixed | undefined {
    return this.client;
  }

  saveClientInformation(information: OAuthClientInformationMixed): void {
    this.client = information;
  }

  tokens(): OAuthTokens | undefined {
    return this.saved;
  }

  saveTokens(tokens: OAuthTokens): void {
    this.saved = tokens;
  }

  async redirectToAuthorization(url: URL): Promise<void> {
    this.asked += 1;
    this.callback = await this.#person(url);
  }

  saveCodeVerifier(verifier: string): void {
    this.#verifier = verifier;
  }

  codeVerifier(): string {
    return this.#verifier;
  }

  /** The code that the person's browser brought. @throws when it brought an error, or somebody else's state */
  code(): string {
    const query = this.callback?.searchParams;
    if (query?.get("state") !== this.#state) throw new Error(`No callback of ours: ${this.callback?.href}`);
    const code = query.get("code");
    if (code === null) throw new Error(`The authorization failed: ${query.get("error")} ${query.get("error_description")}`);
    return code;
  }

  invalidateCredentials(scope: "all" | "client" | "tokens" | "verifier" | "discovery"): void {
    if (scope === "all" || scope === "client") this.client = undefined;
    if (scope === "all" || scope === "tokens") this.saved = undefined;
  }
}
