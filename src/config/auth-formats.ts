// The formats of strings that speak of people, OAuth clients and servers.
import { isHostName, isLoopbackHost } from "../lib/address.ts";
import { ENTRA_HOSTS, entraTenant } from "../lib/entra.ts";

type Format = (text: string) => string | null;

// GitHub's own rule: letters, digits and single hyphens, at most 39. Enterprise users of a company end with _shortcode.
const GITHUB_LOGIN = /^[A-Za-z0-9](?:[A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38}(?:_[A-Za-z0-9]{3,8})?$/;
const GITHUB_SLUG = /^[A-Za-z0-9_.-]{1,100}$/;

function githubUser(text: string): string | null {
  if (text === "*" || GITHUB_LOGIN.test(text)) return null;
  return text.startsWith("@") ? "begins with '@'; write the login name alone" : 'is not a login name of GitHub; write octocat, or "*" for anybody';
}

function githubOrg(text: string): string | null {
  if (GITHUB_LOGIN.test(text)) return null;
  return text.includes("/") ? "names a team; write it in 'github_teams'" : "is not the name of a GitHub organisation; write acme";
}

function githubTeam(text: string): string | null {
  const [org = "", team = "", ...more] = text.split("/");
  return GITHUB_LOGIN.test(org) && GITHUB_SLUG.test(team) && more.length === 0 ? null : "is not a team; write the organisation and the team's slug: acme/ops";
}

function domain(text: string): string | null {
  if (isHostName(text) && text.includes(".")) return null;
  return text.startsWith("@") ? `has an '@'; write ${text.slice(1)}` : "is not a domain; write example.com";
}

// RFC 6749, appendix A.1, without what logs and shells would trip over. URLs are for clients that have a metadata document.
function clientId(text: string): string | null {
  return /^[A-Za-z0-9][A-Za-z0-9._~-]{0,99}$/.test(text) ? null : "is not a client id; letters, digits, '.', '_', '~' and '-' make one, at most 100";
}

function httpsUrl(text: string): string | null {
  return judgeUrl(text, "https://login.example.com");
}

function issuerUrl(text: string): string | null {
  const wrong = httpsUrl(text);
  if (wrong !== null) return wrong;
  const url = new URL(text);
  if (url.pathname.includes("/.well-known/")) return "is the address of the metadata; write the part before '/.well-known/'";
  if (!ENTRA_HOSTS.has(url.hostname) || entraTenant(url) !== null) return null;
  return `is that of every tenant of Microsoft's, or names one by a domain; write https://${url.hostname}/TENANT_ID/v2.0 with the id of your tenant`;
}

/** https, or plain http to this machine. */
function judgeUrl(text: string, example: string): string | null {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:") || /\s/.test(text)) return `is not a URL; write ${example}`;
  if (url.protocol === "http:" && !isLoopbackHost(url.hostname)) return "must be https: plain http is possible only to this machine";
  if (url.username !== "" || url.password !== "") return "has a user or a password in it";
  return url.hash === "" && !text.endsWith("#") ? null : "has a fragment";
}

function originUrl(text: string): string | null {
  const wrong = judgeUrl(text, "https://auth.example.com");
  if (wrong !== null) return wrong;
  const { origin } = new URL(text);
  return origin === text ? null : `must be scheme, host and port alone; write ${origin}`;
}

function publicUrl(text: string): string | null {
  const wrong = judgeUrl(text, "https://mcp.example.com/mcp");
  if (wrong !== null) return wrong;
  const url = new URL(text);
  // Clients normalise it, and tokens are compared with it byte for byte.
  const normal = url.pathname === "/" && !text.endsWith("/") && url.search === "" ? url.origin : url.href;
  return normal === text ? null : `is not in its normal form; write ${normal}`;
}

function redirectUri(text: string): string | null {
  const url = URL.parse(text);
  if (url === null || /\s/.test(text)) return "is not a redirect URI; write https://app.example.com/callback";
  // RFC 6749, 3.1.2.
  if (text.includes("#")) return "has a fragment, which no redirect URI may have; leave '#' and what follows away";
  if (url.protocol === "http:" && !isLoopbackHost(url.hostname)) return "must be https: plain http is possible only to this machine";
  return ["javascript:", "data:", "file:", "vbscript:", "blob:", "about:"].includes(url.protocol) ? "has a scheme that leads to no application" : null;
}

export const AUTH_FORMATS = {
  github_user: githubUser,
  github_org: githubOrg,
  github_team: githubTeam,
  domain,
  client_id: clientId,
  https_url: httpsUrl,
  issuer_url: issuerUrl,
  origin_url: originUrl,
  public_url: publicUrl,
  redirect_uri: redirectUri,
} satisfies Readonly<Record<string, Format>>;
