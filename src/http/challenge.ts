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
    case "insufficient_scope":
      return new RequestError(403, "ERR_INSUFFICIENT_SCOPE", "The token lacks a scope", {
        headers: ["WWW-Authenticate", `Bearer error="insufficient_scope", scope="${denial.scopes.join(" ")}"`],
      });
  }
}
