// The cipher suites that the gateway speaks: forward secrecy and authenticated encryption, nothing else.

type Suite = { readonly iana: string; readonly openssl: string; readonly tls13: boolean };

/** In the gateway's order of preference. TLS 1.3 (RFC 8446, B.4), then TLS 1.2 (RFC 9325, 4.2). */
const SUITES: readonly Suite[] = [
  ...["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"].map((name) => ({ iana: name, openssl: name, tls13: true })),
  ...["ECDSA", "RSA"].flatMap((key) => [
    { iana: `TLS_ECDHE_${key}_WITH_AES_128_GCM_SHA256`, openssl: `ECDHE-${key}-AES128-GCM-SHA256`, tls13: false },
    { iana: `TLS_ECDHE_${key}_WITH_AES_256_GCM_SHA384`, openssl: `ECDHE-${key}-AES256-GCM-SHA384`, tls13: false },
    { iana: `TLS_ECDHE_${key}_WITH_CHACHA20_POLY1305_SHA256`, openssl: `ECDHE-${key}-CHACHA20-POLY1305`, tls13: false },
  ]),
];

/** IANA names of all suites that may be named. */
export const CIPHER_SUITES: readonly string[] = SUITES.map(({ iana }) => iana);

/** The suite of an IANA or OpenSSL name in any case; null when the gateway does not speak it. */
export function parseCipherSuite(name: string): Suite | null {
  const wanted = name.toUpperCase();
  return SUITES.find(({ iana, openssl }) => iana === wanted || openssl === wanted) ?? null;
}

/** Why a suite that others speak is refused here, as the end of the sentence "Value 'x' ..."; null for a name that is none, or not told apart from one. */
export function explainRefusedSuite(name: string): string | null {
  const suite = name.toUpperCase().replaceAll("_", "-");
  if (!/^(?:TLS-|SSL-)?[A-Z0-9]+(?:-[A-Z0-9]+)+$/.test(suite)) return null;
  const isIana = suite.includes("-WITH-");
  if (/NULL|ANON|ADH|AECDH/.test(suite)) return "is refused: it leaves out encryption, or the proof of who the server is";
  if (/RC[24]|DES|MD5|IDEA|SEED|EXP/.test(suite)) return "is refused: its cipher or hash is broken (RFC 9325)";
  // OpenSSL does not write the exchange with the key of the certificate: AES128-SHA.
  if (isIana ? /^TLS-(?:RSA|PSK|ECDH|DH)-/.test(suite) : /^(?:AES|CAMELLIA|ARIA)\d/.test(suite) || /^(?:ECDH|DH|PSK|RSA)-/.test(suite))
    return "is refused: it has no forward secrecy, so that who gets the key later can read what was recorded before";
  const isTls = isIana || /^(?:ECDHE|DHE)-/.test(suite);
  if (isTls && !/GCM|CCM|POLY1305/.test(suite)) return "is refused: it has no authenticated encryption (CBC), which attacks on padding made use of";
  return isTls && /^(?:TLS-)?DHE-/.test(suite) ? "is refused: it uses Diffie-Hellman without elliptic curves; its ECDHE sibling does the same faster" : null;
}

/** The names that may be written, IANA's and OpenSSL's. */
export function cipherSuiteNames(): string[] {
  return SUITES.flatMap(({ iana, openssl }) => (iana === openssl ? [iana] : [iana, openssl]));
}

/** OpenSSL's list for suites by name: those of TLS 1.3 are all there unless some of them are named. Without names: all. */
export function cipherList(names: readonly string[] = CIPHER_SUITES): string {
  const suites = names.map(parseCipherSuite).filter((suite) => suite !== null);
  const tls13 = suites.some((suite) => suite.tls13) ? [] : SUITES.filter((suite) => suite.tls13);
  return [...tls13, ...suites].map(({ openssl }) => openssl).join(":");
}
