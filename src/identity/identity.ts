// Who makes a request, whatever the source that knows it.

/** A proven identity. `name` is unique within its `source` and printable ASCII; neither holds a secret. Certificates grant no scopes. */
export type Identity = { readonly source: "token" | "client_certificate"; readonly name: string; readonly scopes: readonly string[] };
