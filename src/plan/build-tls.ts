// TLS of the plan: for each listener what is spoken, the pairs from files, and the certificates that a CA is asked for.
import { createHash } from "node:crypto";
import type { Acme, AcmeDns, Config, HttpListener, Listener, Tls } from "../config/types.ts";
import { parseListenAddress } from "../lib/address.ts";
import { cipherList } from "../lib/cipher-suites.ts";
import { isCovered, isTailnetName, orderRules, whyNotOrdered } from "../lib/host-cover.ts";
import { listenerHosts, type HttpPlace, type ListenerHost } from "../lib/listener-hosts.ts";
import { knownChain } from "../lib/pem-memory.ts";
import { serverUrl, usesServer } from "./build-auth.ts";
import type { AcmeChallengeType, AcmePlan, CertificatePair, DnsPlan, HttpListenerPlan, TlsPlan, TlsProtocolPlan } from "./model.ts";
import { durationMs } from "./units.ts";

const DIRECTORIES: Readonly<Record<string, string>> = {
  letsencrypt: "https://acme-v02.api.letsencrypt.org/directory",
  letsencrypt_staging: "https://acme-staging-v02.api.letsencrypt.org/directory",
};

export class TlsPlans {
  readonly #config: Config;
  readonly #files: ReadonlyMap<string, string>;
  /** A pair is decoded once, however many listeners use it. */
  readonly #pairs = new Map<string, CertificatePair>();

  readonly #places: readonly HttpPlace[];

  constructor(config: Config, files: ReadonlyMap<string, string>) {
    this.#config = config;
    this.#files = files;
    this.#places = Object.entries(config.listeners).flatMap(([name, one]) =>
      one.protocol === "http" ? [{ name, address: parseListenAddress(one.listen), httpsPort: this.#tlsOf(one)?.acme?.https_port ?? null }] : [],
    );
  }

  plan(name: string, listener: Listener): TlsPlan {
    const tls = this.#tlsOf(listener);
    if (tls === undefined || tls.mode === "disabled") return { mode: "disabled" };
    if (tls.mode === "behind_proxy") return { mode: "behind_proxy" };
    const { cert_file, key_file } = tls;
    const first = cert_file === undefined || key_file === undefined ? [] : [{ cert_file, key_file }];
    const certificates = [...first, ...(tls.certificates ?? [])].map((pair) => this.#pair(pair.cert_file, pair.key_file));
    const hosts = this.#hosts(name);
    const certain = hosts.filter(({ isCertain }) => isCertain).map(({ host }) => host);
    return {
      mode: tls.mode,
      certificates,
      acme: tls.acme === undefined ? null : this.#acme(certain, { ...tls, acme: tls.acme }, certificates),
      tailscale: tls.tailscale,
      internal: tls.internal,
      // Clients name no IPv6 address in a handshake.
      hosts: [...new Set(hosts.map(({ host }) => host))].filter((host) => !host.startsWith("[")),
      protocol: this.#protocol(tls),
    };
  }

  /** What TLS makes of the answers of an HTTP listener. */
  httpPlan(listener: HttpListener): Pick<HttpListenerPlan, "redirectToHttps" | "httpsPort" | "hsts" | "securityHeaders"> {
    const tls = this.#tlsOf(listener);
    return {
      // On the tailnet WireGuard has encrypted plain HTTP already.
      redirectToHttps: listener.redirect_to_https || (tls?.mode === "auto" && parseListenAddress(listener.listen)?.kind !== "tailnet"),
      httpsPort: (tls?.mode === "auto" ? portOf(listener) : this.#httpsPort()) || 443,
      hsts: tls?.hsts_enabled === true ? hstsValue(tls) : null,
      securityHeaders: tls?.security_headers === true,
    };
  }

  #tlsOf(listener: Listener): Tls | undefined {
    return listener.tls ?? (listener.protocol === "http" ? this.#config.tls : undefined);
  }

  /** 443 when an HTTP listener ends TLS there, otherwise the port of the first one that does; 0 when there is none. A unix socket has no port. */
  #httpsPort(): number {
    const isHttps = (listener: Listener): boolean =>
      listener.protocol === "http" && ["application", "auto"].includes(this.#tlsOf(listener)?.mode ?? "disabled");
    const ports = Object.values(this.#config.listeners).filter(isHttps).map(portOf);
    return ports.includes(443) ? 443 : (ports.find((port) => port !== 0) ?? 0);
  }

  #pair(certFile: string, keyFile: string): CertificatePair {
    const id = `${certFile}\0${keyFile}`;
    let pair = this.#pairs.get(id);
    if (pair === undefined) {
      const cert = this.#files.get(certFile) ?? "";
      const chain = knownChain(cert);
      pair = { certFile, cert, key: this.#files.get(keyFile) ?? "", names: typeof chain === "string" ? [] : chain.names };
      this.#pairs.set(id, pair);
    }
    return pair;
  }

  #protocol(tls: Tls): TlsProtocolPlan {
    const plan = {
      minVersion: tls.min_tls_version === "1.3" ? ("TLSv1.3" as const) : ("TLSv1.2" as const),
      ciphers: tls.cipher_suites === undefined ? null : cipherList(tls.cipher_suites),
      clientAuth: tls.client_auth === undefined ? null : { mode: tls.client_auth, ca: this.#needed(tls.ca_file) },
    };
    return { ...plan, key: hashOf(plan) };
  }

  /**
   * One certificate for each entry of `domains`, and one for each of the hosts that neither a file nor one of those covers.
   * Hosts that the CA cannot be asked for are left to the internal CA, those of the tailnet to tailscaled.
   */
  #acme(hosts: readonly string[], { acme, tailscale }: { readonly acme: Acme; readonly tailscale: boolean }, pairs: readonly CertificatePair[]): AcmePlan {
    const asked = (acme.domains ?? []).map((entry) => [entry].flat().map((host) => host.toLowerCase()));
    const covered = new Set([...pairs.flatMap((pair) => pair.names), ...asked.flat()]);
    const rules = orderRules(acme);
    const isLeft = (host: string): boolean => isCovered(host, covered) || whyNotOrdered(host, rules) !== null || (tailscale && isTailnetName(host));
    const own = [...new Set(hosts)].filter((host) => !isLeft(host)).map((host) => [host]);
    const account = {
      directoryUrl: DIRECTORIES[acme.directory] ?? acme.directory,
      email: acme.email ?? null,
      ca: this.#text(acme.ca_file),
      eab: acme.eab === undefined ? null : { kid: acme.eab.kid, hmacKey: acme.eab.hmac_key ?? "" },
    };
    return {
      account: { ...account, key: hashOf([account.directoryUrl, account.eab?.kid]).slice(0, 12) },
      challenges: this.#challenges(acme),
      dns: acme.dns === undefined ? null : dnsPlan(acme.dns),
      certificates: [...asked, ...own],
    };
  }

  /** Those of the routes, and of the server that all share, which is reached by every listener. */
  #hosts(listener: string): ListenerHost[] {
    const { auth, routes, trusted_proxies: proxies } = this.#config;
    const server = routes.some(usesServer) && serverUrl(auth.server)?.startsWith("https:") === true ? auth.server : undefined;
    return [...routes, ...(server === undefined ? [] : [server])].flatMap((placed) => listenerHosts(placed, listener, this.#places, proxies.length > 0));
  }

  #challenges(acme: Acme): AcmeChallengeType[] {
    if (acme.challenge !== undefined) return [acme.challenge];
    if (acme.dns !== undefined) return ["dns-01"];
    const found: AcmeChallengeType[] = [];
    for (const listener of Object.values(this.#config.listeners)) {
      const mode = this.#tlsOf(listener)?.mode ?? "disabled";
      // No CA is on the tailnet.
      const port = listener.listen.startsWith("tailnet:") ? 0 : portOf(listener);
      if (port === acme.https_port && (mode === "application" || mode === "auto")) found.push("tls-alpn-01");
      if (port === acme.http_port && listener.protocol === "http" && mode !== "application") found.push("http-01");
    }
    const order: AcmeChallengeType[] = ["tls-alpn-01", "http-01"];
    return order.filter((type) => found.includes(type));
  }

  /** Never empty: without a CA of its own Node.js would take certificates of public ones. */
  #needed(file: string | undefined): string {
    const text = this.#text(file);
    if (text === null || text === "") throw new RangeError("No CA for client certificates");
    return text;
  }

  #text(file: string | undefined): string | null {
    return file === undefined ? null : (this.#files.get(file) ?? null);
  }
}

function portOf({ listen }: Listener): number {
  const address = parseListenAddress(listen);
  return address === null || address.kind === "unix" ? 0 : address.port;
}

function hstsValue({ hsts_max_age, hsts_include_subdomains, hsts_preload }: Tls): string {
  return `max-age=${hsts_max_age}${hsts_include_subdomains ? "; includeSubDomains" : ""}${hsts_preload ? "; preload" : ""}`;
}

function dnsPlan(dns: AcmeDns): DnsPlan {
  const shared = { resolvers: dns.resolvers ?? null, propagationTimeoutMs: durationMs(dns.propagation_timeout) };
  if (dns.provider === "cloudflare") return { ...shared, provider: "cloudflare", apiToken: dns.api_token ?? "", apiUrl: dns.api_url };
  return { ...shared, provider: "exec", command: dns.command, timeoutMs: durationMs(dns.timeout) };
}

function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("base64url");
}
