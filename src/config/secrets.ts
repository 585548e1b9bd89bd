// Which values of the file are credentials, and the text of the file without them, for excerpts.
import { nearest } from "../lib/nearest.ts";
import type { ConfigDocument } from "./document.ts";
import { type Path, maskCredentials, maskHashes } from "./problem.ts";
import { KNOWN_KEYS } from "./schema.ts";

// 'token' and 'tokens' want objects: a text there is the token itself.
const SECRET_KEYS = ["authorization", "sha256", "token", "tokens", "api_token", "hmac_key", "auth_key", "client_secret"];
// Too like other words to look for misspelt ones. Who knows the address of a webhook can write to it; 'alerts', 'webhook', 'password', 'github' and
// the like want objects.
const SHORT_SECRET_KEYS = ["secret", "url", "webhook", "alerts", "password", "github", "oidc", "introspection"];
const SECRET_PARENTS = ["set_headers"];
// Lists in the language: as an object `users` holds somebody's passwords, as `passwords` does.
const PASSWORD_PARENT = /^users$|passw/i;
// Keys that the language does not know and people try.
const SECRET_WORD = /secret|passw|credential|(?:api|auth)[-_]?key|web[-_]?hook|(?:bearer|tokens?)$|^ur[il]s?$/i;

/** A misspelt key is shown with its line, and its value is as secret as if it were written right. */
function isSecretKey(key: string, parentKey: string): boolean {
  return (
    isLike(key, SECRET_KEYS) ||
    SHORT_SECRET_KEYS.includes(key) ||
    isLike(parentKey, SECRET_PARENTS) ||
    (PASSWORD_PARENT.test(parentKey) && key !== "users_file") ||
    (SECRET_WORD.test(key) && !KNOWN_KEYS.has(key))
  );
}

function isLike(key: string, secretKeys: readonly string[]): boolean {
  return KNOWN_KEYS.has(key) ? secretKeys.includes(key) : nearest(key, secretKeys) !== null;
}

/** Whether the value must not be told: it is a credential, or may be one that was put in the wrong place. */
export function isSecret(path: Path): boolean {
  const [key = "", parentKey = ""] = path.filter((step) => typeof step === "string").toReversed();
  return isSecretKey(key, parentKey);
}

// `Bearer ${TOKEN}` tells nothing, nor do the words of YAML; a default may.
const HARMLESS = /^(?:true|false|null|~|["']?(?:[A-Za-z]+ )?(?:\$\{[A-Za-z0-9_]+(?::\?[^}]*)?\})+["']?)$/;

const SECRET_LINE =
  /((?<![\w-])(?![\w-]*_file\b)(?:[\w-]*(?:authori|sha256|_headers|secret|passw|credential|(?:api|auth)[-_]?key|hmac)[\w-]*|url|webhook(?=["']?[ \t]*:[ \t]*[^\s{[])|x-[\w-]+|[\w-]*tokens?(?=["']?[ \t]*:[ \t]*[^\s{[]))["']?[ \t]*:[ \t]*)([^\r\n]*)/gi;

function stars(text: string): string {
  return text.replaceAll(/[^\r\n]/g, "*");
}

/** The text of the file with credentials replaced by stars of the same length, so that columns stay right. `isParsed`: the syntax is right. */
export function maskSecrets(document: ConfigDocument, isParsed: boolean): string {
  // In braces a hash is cut into several values at its commas.
  let text = maskHashes(document.text);
  for (const [start, end] of document.scalarRanges(isSecretKey)) {
    const value = text.slice(start, end);
    if (!HARMLESS.test(value.trim())) text = text.slice(0, start) + stars(value) + text.slice(end);
  }
  // Where the syntax is broken the tree misses them.
  if (!isParsed)
    text = text.replaceAll(SECRET_LINE, (all, key: string, value: string) =>
      HARMLESS.test(value.trim()) || /^["']?\*{2}/.test(value) ? all : key + stars(value),
    );
  return maskCredentials(text);
}
