// The answers to challenges that are under way: what the listeners show to a CA that looks.

/** What is shown for http-01 (RFC 8555, 8.3) and tls-alpn-01 (RFC 8737). The listeners read it, the orders write it. */
export class AcmeChallenges {
  readonly #http = new Map<string, string>();
  readonly #tlsAlpn = new Map<string, { readonly cert: string; readonly key: string }>();

  /** Shows the key authorization under `/.well-known/acme-challenge/<token>`; the returned function takes it away. */
  showHttp(token: string, keyAuthorization: string): () => void {
    this.#http.set(token, keyAuthorization);
    return () => void this.#http.delete(token);
  }

  /** The body for a token; null when nobody waits for it. */
  http(token: string): string | null {
    return this.#http.get(token) ?? null;
  }

  /** Shows a validation certificate (PEM) to clients that ask for the name by the protocol acme-tls/1; the returned function takes it away. */
  showTlsAlpn(serverName: string, cert: string, key: string): () => void {
    const shown = { cert, key };
    this.#tlsAlpn.set(serverName, shown);
    return () => {
      if (this.#tlsAlpn.get(serverName) === shown) this.#tlsAlpn.delete(serverName);
    };
  }

  tlsAlpn(serverName: string): { readonly cert: string; readonly key: string } | null {
    return this.#tlsAlpn.get(serverName) ?? null;
  }

  /** Whether any tls-alpn-01 challenge is under way: without one, nobody has to look at ClientHellos. */
  get awaitsTlsAlpn(): boolean {
    return this.#tlsAlpn.size > 0;
  }
}
