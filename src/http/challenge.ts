// Turns a denial into its answer (RFC 6750, 3; RFC 9728, 5.1).
import type { Denial } from "../identity/authorize.ts";
import { wellKnownUrl } from "../lib/public-url.ts";
import type { RoutePlan } from "../plan/model.ts";
import { RequestError } from "./request-error.ts";

type Challenged = Pick<RoutePlan, "auth" | "resource">;

/** @param route null where no route is asked */
export function challenge(denial: Denial, route: Challenged | null): RequestError {
  switch (denial.denied) {
    case "no_credentials": {
      const isForPeople = route?.auth?.every(({ kind }) => kind !== "token" && kind !== "oauth" && kind !== "issuer") === true;
      // No error code when no credentials came (RFC 6750, 3.1).
      return new RequestError(401, "ERR_NO_CREDENTIALS", isForPeople ? "A login is needed" : "A bearer token is needed", {
        headers: ["WWW-Authenticate", isForPeople ? "Cookie" : bearer(route, { scope: route?.resource?.baseScopes ?? [] })],
      });
    }
    case "invalid_credentials": {
      const detail = denial.reason ?? (denial.detail === undefined ? undefined : `The token is not valid here: ${denial.detail}`);
      return new RequestError(401, "ERR_INVALID_TOKEN", "The token is not valid here", {
        ...(detail === undefined ? {} : { detail }),
        headers: [
          "WWW-Authenticate",
          bearer(route, { error: "invalid_token", error_description: denial.reason ?? undefined, scope: route?.resource?.baseScopes ?? [] }),
        ],
      });
    }
    case "not_admitted":
      return new RequestError(403, "ERR_NOT_ADMITTED", "This account is not admitted here", { detail: describeNotAdmitted(denial) });
    case "no_certificate":
      // 401 would have to name a scheme (RFC 9110, 15.5.2), and no HTTP authentication scheme asks for what only a TLS handshake can show.
      return new RequestError(403, "ERR_NO_CLIENT_CERTIFICATE", "A client certificate is needed");
    case "certificate_not_admitted":
      return new RequestError(403, "ERR_CLIENT_CERTIFICATE", "The client certificate is not admitted here");
    case "not_on_tailnet":
      return new RequestError(403, "ERR_NOT_ON_TAILNET", "Only connections from the tailnet are admitted here");
    case "tailnet_not_admitted":
      return new RequestError(403, "ERR_TAILNET", "Your user or device of the tailnet is not admitted here");
    case "unavailable":
      return new RequestError(503, "ERR_IDENTITY_UNAVAILABLE", "The token cannot be checked at the moment", {
        detail: denial.message,
        headers: ["Retry-After", String(denial.retryAfterS)],
      });
    case "insufficient_scope":
      return new RequestError(403, "ERR_INSUFFICIENT_SCOPE", "The token lacks a scope", {
        headers: ["WWW-Authenticate", bearer(route, { error: "insufficient_scope", scope: denial.scopes })],
      });
  }
}

/** For the log: who, and an address by which they might have been admitted. */
export function describeNotAdmitted({ identity: { name, source }, unverifiedEmail }: Extract<Denial, { denied: "not_admitted" }>): string {
  const text = `'${name}' (${source}) is not in 'allow'`;
  return unverifiedEmail === undefined ? text : `${text}; email_unverified: ${unverifiedEmail}`;
}

/** Where a client learns how to get a token, and what to ask for; the attributes' values are ASCII without quotes by their own rules. */
function bearer(route: Challenged | null, told: { error?: string; error_description?: string | undefined; scope: readonly string[] }): string {
  const resource = route?.resource ?? null;
  const attributes: string[] = [];
  if (told.error !== undefined) attributes.push(`error="${told.error}"`);
  if (told.error_description !== undefined) attributes.push(`error_description="${told.error_description.replaceAll(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, " ")}"`);
  if (resource !== null) attributes.push(`resource_metadata="${wellKnownUrl(resource.url, "oauth-protected-resource")}"`);
  if (told.scope.length > 0 && (resource !== null || told.error === "insufficient_scope")) attributes.push(`scope="${told.scope.join(" ")}"`);
  return attributes.length === 0 ? "Bearer" : `Bearer ${attributes.join(", ")}`;
}
