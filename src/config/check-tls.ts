// Checks the `tls` objects: settings that contradict one another, do nothing, or leave a listener without a certificate.
import { parseListenAddress } from "../lib/address.ts";
import { cipherSuiteNames, parseCipherSuite } from "../lib/cipher-suites.ts";
import { checkAcme } from "./check-acme.ts";
import type { CheckContext } from "./check-context.ts";
import { type Path, quote } from "./problem.ts";
import { type TlsObject, isTermination, modeOf, tlsObjects } from "./tls-objects.ts";
import type { HttpListener, Listener, Tls } from "./types.ts";

const CERTIFICATE_KEYS = ["cert_file", "key_file", "certificates", "acme", "tailscale", "internal"] as const;
const HANDSHAKE_KEYS = [...CERTIFICATE_KEYS, "ca_file", "client_auth", "min_tls_version", "cipher_suites"] as const;
const HSTS_DETAILS = ["hsts_max_age", "hsts_include_subdomains", "hsts_preload"] as const;
const YEAR_SECONDS = 31_536_000;

export function checkTls(check: CheckContext): void {
  for (const object of tlsObjects(check)) {
    const { path, tls, users } = object;
    if (isTermination(tls.mode)) {
      checkCertificates(check, path, tls);
      checkClientAuth(check, path, tls);
      checkCipherSuites(check, path, tls);
      if (tls.acme !== undefined) checkAcme(check, object);
    } else {
      for (const key of HANDSHAKE_KEYS) {
        if (check.isWritten([...path, key]) && tls[key] !== false)
          check.report([...path, key], `'${key}' contradicts 'mode: ${tls.mode}'; take one of them away`, "key");
      }
    }
    if (users.some(([, listener]) => listener.protocol === "tcp")) checkTcpTls(check, path, tls);
    else checkHeaders(check, object);
  }
  for (const [name, listener] of check.entries<Listener>("listeners")) {
    if (listener?.protocol === "http" && check.isSound(["listeners", name])) checkRedirect(check, ["listeners", name], listener);
  }
}

/** Whom the listeners serve, and the headers that TLS adds to answers. */
function checkHeaders(check: CheckContext, { path, tls, users }: TlsObject): void {
  const trusted: unknown = check.config.trusted_proxies;
  // Who may write to a unix socket is for its permissions to say.
  const isOpen = users.some(([, listener]) => typeof listener.listen !== "string" || parseListenAddress(listener.listen)?.kind !== "unix");
  if (tls.mode === "behind_proxy" && isOpen && Array.isArray(trusted) && trusted.length === 0 && check.isSound(["trusted_proxies"])) {
    check.report([...path, "mode"], "'mode: behind_proxy' serves 'trusted_proxies' alone, and there are none: everybody would get 403; name the proxies there");
  }
  if (tls.hsts_enabled && tls.mode === "disabled") {
    const remedy = "where a proxy ends TLS, write 'mode: behind_proxy'";
    check.report([...path, "hsts_enabled"], `'hsts_enabled' does nothing over plain HTTP: browsers believe it over https alone; ${remedy}`, "key");
  }
  for (const key of HSTS_DETAILS) {
    if (!tls.hsts_enabled && check.isWritten([...path, key]) && tls[key] !== false)
      check.report([...path, key], `'${key}' does nothing without 'hsts_enabled: true'`, "key");
  }
  if (tls.hsts_enabled && tls.hsts_preload && !(tls.hsts_include_subdomains && tls.hsts_max_age >= YEAR_SECONDS)) {
    const wanted = `'hsts_include_subdomains: true' and a 'hsts_max_age' of at least ${YEAR_SECONDS}`;
    check.report([...path, "hsts_preload"], `'hsts_preload' needs ${wanted}; browsers refuse it otherwise`, "key");
  }
}

function checkTcpTls(check: CheckContext, path: Path, tls: Tls): void {
  if (tls.mode === "auto" || tls.mode === "behind_proxy") {
    check.report(
      [...path, "mode"],
      `'mode: ${tls.mode}' is for HTTP listeners: a TCP stream has no headers in which a proxy could tell of its client; write 'application' or 'disabled'`,
    );
  }
  for (const key of ["hsts_enabled", ...HSTS_DETAILS, "security_headers"] as const) {
    if (check.isWritten([...path, key])) check.report([...path, key], `'${key}' is for HTTP listeners: a TCP stream has no headers`, "key");
  }
}

function checkCertificates(check: CheckContext, path: Path, tls: Tls): void {
  if (tls.cert_file !== undefined && tls.key_file === undefined) check.report([...path, "cert_file"], "'cert_file' needs its 'key_file'", "key");
  else if (tls.key_file !== undefined && tls.cert_file === undefined) check.report([...path, "key_file"], "'key_file' needs its 'cert_file'", "key");
  else if (tls.cert_file === undefined && tls.certificates === undefined && tls.acme === undefined && !tls.tailscale && !tls.internal) {
    const choices =
      "'cert_file' and 'key_file', 'certificates', 'acme' for names that the internet reaches, 'tailscale: true' for the node's name in the tailnet, or 'internal: true' for development";
    check.report(path, `TLS has no certificate; give ${choices}`, "key");
  }
}

function checkClientAuth(check: CheckContext, path: Path, tls: Tls): void {
  if (tls.client_auth !== undefined && tls.ca_file === undefined)
    check.report([...path, "client_auth"], "'client_auth' needs 'ca_file': the CAs that sign the certificates of clients", "key");
  if (tls.ca_file !== undefined && tls.client_auth === undefined)
    check.report([...path, "ca_file"], "'ca_file' does nothing without 'client_auth': 'require' or 'request' a certificate of clients", "key");
}

function checkCipherSuites(check: CheckContext, path: Path, tls: Tls): void {
  const at = [...path, "cipher_suites"];
  const seen = new Map<string, string>();
  for (const [item, text] of check.items(at, tls.cipher_suites)) {
    const iana = parseCipherSuite(text)?.iana ?? text;
    const first = seen.get(iana);
    if (first !== undefined) check.report(item, `Cipher suite ${quote(check.text(item, text))} is already there as ${quote(first)}`);
    else seen.set(iana, check.text(item, text));
  }
  const suites = (tls.cipher_suites ?? []).map(parseCipherSuite).filter((suite) => suite !== null);
  if (suites.length === 0) return;
  if (tls.min_tls_version === "1.3" && suites.every((suite) => !suite.tls13)) {
    const own = cipherSuiteNames().filter((name) => parseCipherSuite(name)?.tls13 === true);
    const message = `'cipher_suites' names suites of TLS 1.2 alone, which 'min_tls_version: "1.3"' never speaks: it would speak ${own.join(", ")}; name some of those, or leave 'cipher_suites' away`;
    check.report(at, message, "key");
  } else if (tls.min_tls_version === "1.2" && suites.every((suite) => suite.tls13)) {
    const spoken = `TLS 1.3 alone would be spoken, with ${suites.map(({ iana }) => iana).join(", ")}`;
    check.report(at, `'cipher_suites' names suites of TLS 1.3 alone: ${spoken}; say so with 'min_tls_version: "1.3"', or name suites of TLS 1.2 too`, "key");
  }
}

function checkRedirect(check: CheckContext, path: Path, listener: HttpListener): void {
  if (!listener.redirect_to_https || !check.isSound(["listeners"]) || !check.isSound(["tls"])) return;
  const at = [...path, "redirect_to_https"];
  const mode = modeOf(check, listener);
  if (mode === "application") {
    check.report(
      at,
      "'redirect_to_https' does nothing here: this listener speaks TLS alone; put it on the listener of plain HTTP, or write 'mode: auto'",
      "key",
    );
    return;
  }
  const listeners = check.entries<Listener>("listeners");
  const isHttpsHere = listeners.some(([, other]) => other.protocol === "http" && isTermination(modeOf(check, other)));
  const trusted: unknown = check.config.trusted_proxies;
  if (mode === "disabled" && !isHttpsHere && Array.isArray(trusted) && trusted.length === 0 && check.isSound(["trusted_proxies"])) {
    const remedy = "give a listener 'tls', or name the proxies that end it in 'trusted_proxies'";
    check.report(at, `'redirect_to_https' has nowhere to redirect to: no HTTP listener speaks TLS; ${remedy}`, "key");
  }
}
