// What the login flow needs of the authorization requests that wait for a person.
import type { Person } from "../identity/person.ts";
import type { OAuthResourcePlan } from "../plan/auth-model.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";

/** A request of a client that waits for a person's consent. All texts but the plan's are the client's own words. */
export type PendingAuthorization = {
  readonly uid: string;
  readonly clientId: string;
  readonly clientName: string;
  /** How the client is known: a client that registered itself may call itself anything. */
  readonly clientKind: "static" | "registered" | "document";
  readonly redirectUri: string;
  /** Asked for, and possible for the resource. */
  readonly scopes: readonly string[];
  readonly resource: OAuthResourcePlan;
};

export type PendingAuthorizations = {
  /** Null: it is unknown, over, or another browser's. */
  find(request: EndpointRequest, uid: string): Promise<PendingAuthorization | null>;
  /** The person consents: grants `scopes` (a part of those asked for) and gives the answer that leads the browser back to the client. */
  approve(request: EndpointRequest, uid: string, person: Person, scopes: readonly string[]): Promise<EndpointAnswer>;
  /** Nobody consents: leads the browser back to the client with the error (RFC 6749, 4.1.2.1). */
  deny(
    request: EndpointRequest,
    uid: string,
    error: "access_denied" | "temporarily_unavailable" | "server_error",
    description: string,
  ): Promise<EndpointAnswer>;
};
