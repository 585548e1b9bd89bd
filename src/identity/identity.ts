// Who makes a request, whatever the source that knows it.

/**
 * A proven identity. `name` is unique within its `source` and printable ASCII; neither holds a secret. Certificates and the tailnet grant no scopes.
 * On the tailnet the name is that of the user, or the tags of a tagged node with commas between; `node` tells the device. Of people who logged in
 * the source is where: github, oidc, password or tailnet; `client` is an OAuth client that acts for itself; `issuer:corp` whom an issuer vouches for.
 */
export type Identity = {
  readonly source: "token" | "client_certificate" | "tailnet" | "github" | "oidc" | "password" | "client" | `issuer:${string}`;
  readonly name: string;
  readonly scopes: readonly string[];
  /** Name of the device in the tailnet; null for other sources. */
  readonly node?: string;
  /** Verified, lower case. */
  readonly email?: string;
  readonly groups?: readonly string[];
  /** Id of the OAuth client through which a person acts. */
  readonly client?: string;
};
