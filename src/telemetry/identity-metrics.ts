// The metrics of those who say who somebody is: issuers of tokens, and providers at which people log in.
import type { Exposition } from "./exposition.ts";

/** `failing`: it could not be asked, gave no proper answer, or refused the gateway when it was asked last. */
export type IdentityProviderSample = { readonly kind: string; readonly name: string; readonly failing: boolean };

/** Two may have the same name, and two samples with the same labels would make a scrape fail: one that fails counts. */
export function writeIdentityProviders(out: Exposition, providers: Iterable<IdentityProviderSample>): void {
  const found = new Map<string, IdentityProviderSample>();
  for (const one of providers) {
    const key = `${one.kind}\n${one.name}`;
    if (found.get(key)?.failing !== true) found.set(key, one);
  }
  out.family(
    "sidegate_identity_provider_up",
    "gauge",
    "0 when the issuer, or the provider at which people log in, failed within the last 10 minutes; otherwise 1.",
  );
  for (const { kind, name, failing } of found.values()) out.sample("sidegate_identity_provider_up", { kind, name }, failing ? 0 : 1);
}
