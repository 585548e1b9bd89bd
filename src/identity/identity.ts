// Who makes a request, whatever the source that knows it.

/**
 * A proven identity. `name` is unique within its `source` and printable ASCII; neither holds a secret. Certificates and the tailnet grant no scopes.
 * On the tailnet the name is that of the user, or the tags of a tagged node with commas between; `node` tells the device.
 */
export type Identity = {
  readonly source: "token" | "client_certificate" | "tailnet";
  readonly name: string;
  readonly scopes: readonly string[];
  /** Name of the device in the tailnet; null for other sources. */
  readonly node?: string;
};
