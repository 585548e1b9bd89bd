// Turns a denial into its answer (RFC 6750, 3).
import type { Denial } from "../identity/authorize.ts";
import { RequestError } from "./request-error.ts";

export function challenge(denial: Denial): RequestError {
  switch (denial.denied) {
    case "no_credentials":
      // No error code when no credentials came (RFC 6750, 3.1).
      return new RequestError(401, "ERR_NO_CREDENTIALS", "A bearer token is needed", { headers: ["WWW-Authenticate", "Bearer"] });
    case "invalid_credentials":
      return new RequestError(401, "ERR_INVALID_TOKEN", "The token is not valid here", { headers: ["WWW-Authenticate", 'Bearer error="invalid_token"'] });
    case "no_certificate":
      // 401 would have to name a scheme (RFC 9110, 15.5.2), and no HTTP authentication scheme asks for what only a TLS handshake can show.
      return new RequestError(403, "ERR_NO_CLIENT_CERTIFICATE", "A client certificate is needed");
    case "certificate_not_admitted":
      return new RequestError(403, "ERR_CLIENT_CERTIFICATE", "The client certificate is not admitted here");
    case "not_on_tailnet":
      return new RequestError(403, "ERR_NOT_ON_TAILNET", "Only connections from the tailnet are admitted here");
    case "tailnet_not_admitted":
      return new RequestError(403, "ERR_TAILNET", "Your user or device of the tailnet is not admitted here");
    case "insufficient_scope":
      return new RequestError(403, "ERR_INSUFFICIENT_SCOPE", "The token lacks a scope", {
        headers: ["WWW-Authenticate", `Bearer error="insufficient_scope", scope="${denial.scopes.join(" ")}"`],
      });
  }
}
