// What a header name means to a proxy, looked up once a name and remembered.

/** What is done with a header depends on its kind alone; `other` passes. */
export const HEADER = {
  other: 0,
  /** Of one connection only (RFC 9110, 7.6.1), with nothing in it that we need. */
  hopByHop: 1,
  connection: 2,
  keepAlive: 3,
  transferEncoding: 4,
  contentLength: 5,
  upgrade: 6,
  te: 7,
  trailer: 8,
  expect: 9,
  host: 10,
  authorization: 11,
  cookie: 12,
  origin: 13,
  accept: 14,
  userAgent: 15,
  forwarded: 16,
  forwardedFor: 17,
  forwardedProto: 18,
  forwardedHost: 19,
  /** Any other X-Forwarded-*. */
  forwardedOther: 20,
  realIp: 21,
  requestId: 22,
  /** Names of the caller that only we may set. */
  identity: 23,
  /** Has an underscore: CGI and WSGI take it for a hyphen, so that X_Forwarded_For would pass for X-Forwarded-For. */
  underscore: 24,
  /** A pseudo-header of HTTP/2. */
  pseudo: 25,
  date: 26,
  location: 27,
  /** Tells in other words than X-Forwarded-Proto that the client used https. Frameworks heed one or the other of them. */
  schemeWord: 28,
} as const;

export type HeaderKind = (typeof HEADER)[keyof typeof HEADER];
export type HeaderName = { readonly lower: string; readonly kind: HeaderKind };

const KINDS: Record<string, HeaderKind> = {
  connection: HEADER.connection,
  "keep-alive": HEADER.keepAlive,
  "proxy-connection": HEADER.hopByHop,
  "proxy-authenticate": HEADER.hopByHop,
  "proxy-authorization": HEADER.hopByHop,
  "http2-settings": HEADER.hopByHop,
  "transfer-encoding": HEADER.transferEncoding,
  "content-length": HEADER.contentLength,
  upgrade: HEADER.upgrade,
  te: HEADER.te,
  trailer: HEADER.trailer,
  expect: HEADER.expect,
  host: HEADER.host,
  authorization: HEADER.authorization,
  cookie: HEADER.cookie,
  origin: HEADER.origin,
  accept: HEADER.accept,
  "user-agent": HEADER.userAgent,
  forwarded: HEADER.forwarded,
  "x-forwarded-for": HEADER.forwardedFor,
  "x-forwarded-proto": HEADER.forwardedProto,
  "x-forwarded-host": HEADER.forwardedHost,
  "x-forwarded-user": HEADER.identity,
  "x-forwarded-scopes": HEADER.identity,
  "x-forwarded-user-source": HEADER.identity,
  "x-forwarded-user-node": HEADER.identity,
  "x-forwarded-email": HEADER.identity,
  "x-forwarded-groups": HEADER.identity,
  // Some frameworks take these for the path, the method or the address of the request: only a proxy before us may say them.
  "x-original-url": HEADER.forwardedOther,
  "x-original-uri": HEADER.forwardedOther,
  "x-original-method": HEADER.forwardedOther,
  "x-rewrite-url": HEADER.forwardedOther,
  "x-forwarded-ssl": HEADER.schemeWord,
  "x-forwarded-scheme": HEADER.schemeWord,
  "x-forwarded-protocol": HEADER.schemeWord,
  "x-url-scheme": HEADER.schemeWord,
  "front-end-https": HEADER.schemeWord,
  "x-real-ip": HEADER.realIp,
  "x-request-id": HEADER.requestId,
  date: HEADER.date,
  location: HEADER.location,
};

// RFC 9110, 5.6.2.
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
// Clients choose names: what is remembered of them is bounded.
const MAX_REMEMBERED = 4_096;
const MAX_REMEMBERED_LENGTH = 64;
let remembered = new Map<string, HeaderName>();

/** What the header name means; null when it is none (RFC 9110, 5.1). Pseudo-headers of HTTP/2 are names here. */
export function headerName(name: string): HeaderName | null {
  return remembered.get(name) ?? learn(name);
}

function learn(name: string): HeaderName | null {
  const lower = name.toLowerCase();
  const kind = kindOf(lower);
  if (kind === null) return null;
  const known = { lower, kind };
  if (name.length <= MAX_REMEMBERED_LENGTH) {
    if (remembered.size >= MAX_REMEMBERED) remembered = new Map();
    remembered.set(name, known);
  }
  return known;
}

function kindOf(lower: string): HeaderKind | null {
  if (lower.startsWith(":")) return HEADER.pseudo;
  if (!TOKEN.test(lower)) return null;
  if (Object.hasOwn(KINDS, lower)) return KINDS[lower] ?? HEADER.other;
  if (lower.includes("_")) return HEADER.underscore;
  // Servers that once stood behind 'tailscale serve' take the caller's name from Tailscale-User-Login.
  if (lower.startsWith("tailscale-")) return HEADER.identity;
  return lower.startsWith("x-forwarded-") ? HEADER.forwardedOther : HEADER.other;
}

/** The first value of a header in a flat list of names and values, or null. `lower` is the name in lower case. */
export function headerValue(headers: readonly string[], lower: string): string | null {
  for (let i = 0; i + 1 < headers.length; i += 2) if (headers[i]?.toLowerCase() === lower) return headers[i + 1] ?? null;
  return null;
}

/** The members of a comma-separated list, in lower case and without white space (RFC 9110, 5.6.1). */
export function listMembers(value: string): string[] {
  return value
    .split(",")
    .map((member) => member.trim().toLowerCase())
    .filter((member) => member !== "");
}
