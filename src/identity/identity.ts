// Who makes a request, whatever the source that knows it.

/** A proven identity. `name` is unique within its `source`; neither holds a secret. */
export type Identity = { readonly source: "token"; readonly name: string; readonly scopes: readonly string[] };
