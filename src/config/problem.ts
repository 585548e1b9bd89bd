// A problem of the configuration: where it is and a sentence that says what to do.

/** Keys and indexes from the top of the document to a value: `["routes", 0, "auth"]`. */
export type Path = readonly (string | number)[];

/** Sentence in sentence case without a period; it holds no secret. Line and column count from 1; line 0 means the file as a whole. */
export type Problem = {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** Characters of the line that the problem is about; at least 1. */
  readonly length: number;
  readonly message: string;
  /** As `routes[0].auth`; empty at the top. */
  readonly path: string;
};

/** `routes[0].auth`, `upstreams["a b"].targets[1]`; empty for the top. */
export function formatPath(path: Path): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (/^[A-Za-z_][\w-]*$/.test(step)) text += `${text === "" ? "" : "."}${step}`;
    else text += `[${JSON.stringify(step)}]`;
  }
  return text;
}

// Keys of Tailscale and newer ones of headscale tell what they are. Of other ones a flag does; a variable tells nothing.
const TAILSCALE_KEY = /([th]skey-(?:auth-|client-|api-)?)([\w-]+)/g;
const KEY_FLAG = /(-(?:auth-?key|client-secret)["']?[=,\s]["'\s-]*)(?!\$\{)([^\s"',\]}]+)/g;

// A hash of a password (PHC string, crypt): who has it can guess at leisure.
const PASSWORD_HASH = /(\$(?:scrypt|argon2\w*|pbkdf2[\w-]*|2[abxy]?|[156y]|apr1)\$)([\w+/=.$,-]+)/g;

/** The text with the salts and keys of password hashes replaced by stars of the same length. */
export function maskHashes(text: string): string {
  return text.replaceAll(PASSWORD_HASH, (_all, before: string, secret: string) => before + "*".repeat(secret.length));
}

/** The text without passwords of URLs, without hashes of passwords and without keys of the tailnet, wherever they stand; stars of the same length, so that columns stay right. */
export function maskCredentials(text: string): string {
  const hide = (_all: string, before: string, secret: string): string => before + "*".repeat(secret.length);
  return maskHashes(maskUrlPasswords(text)).replaceAll(TAILSCALE_KEY, hide).replaceAll(KEY_FLAG, hide);
}

/** Of each word that holds a URL or the like: what stands between its scheme and its last '@', replaced by stars of the same length, so that columns stay right. */
function maskUrlPasswords(text: string): string {
  // By words and by index: a search for '@' from each colon would take quadratic time.
  return text.replaceAll(/[^\s'"]+/g, (word) => {
    const end = word.lastIndexOf("@");
    const colon = word.includes("://") ? word.indexOf("://") : word.indexOf(":");
    if (colon === -1 || colon > end) return word;
    let start = colon + 1;
    while (word[start] === "/") start += 1;
    return word.slice(0, start) + "*".repeat(Math.max(0, end - start)) + word.slice(Math.max(start, end));
  });
}

/** Linux opens no longer path. */
const MAX_PATH = 4096;

/** A text from the file in quotes, short, on one line and without passwords, for a message. */
export function quote(text: string): string {
  return quoted(text, 80);
}

/** The same for the path of a file, which is shown whole: nobody finds a file by half of its path. */
export function quoteFile(path: string): string {
  return quoted(path, MAX_PATH);
}

function quoted(text: string, maxLength: number): string {
  // oxlint-disable-next-line no-control-regex -- a message is one line and must not move the cursor
  const plain = maskCredentials(text).replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (char) => JSON.stringify(char).slice(1, -1));
  return `'${plain.length > maxLength ? `${plain.slice(0, maxLength - 3)}...` : plain}'`;
}
