// What the environment says of the tailnet where the file is silent: the variables of Tailscale's own container image and those of older ones.
import { parseDurationMs } from "../lib/duration.ts";
import { type FlagKey, type ParsedFlags, parseTailscaleFlags } from "../lib/tailscale-flags.ts";
import type { CheckContext } from "./check-context.ts";
import { withDefaults } from "./defaults.ts";
import { FORMATS } from "./formats.ts";
import type { Env } from "./interpolate.ts";
import { quote } from "./problem.ts";
import { tailnetListeners } from "./tailnet-listeners.ts";
import type { Tailscale } from "./types.ts";

/** Keys that speak of a tailscaled of our own. */
export const OWN_KEYS = [
  "hostname",
  "auth_key",
  "auth_key_file",
  "tags",
  "control_url",
  "extra_args",
  "accept_dns",
  "ephemeral",
  "tun",
  "state_dir",
] as const satisfies readonly (keyof Tailscale)[];

const VARIABLES = {
  hostname: ["TS_HOSTNAME", "TAILSCALE_HOSTNAME"],
  auth_key: ["TS_AUTHKEY", "TS_AUTH_KEY", "TAILSCALE_AUTHKEY"],
  tags: ["TAILSCALE_TAGS"],
  state_dir: ["TS_STATE_DIR"],
  extra_args: ["TS_EXTRA_ARGS", "TAILSCALE_EXTRA_ARGS"],
} as const;

/** A text of the environment. `from` names it in messages. */
type Found = { readonly from: string; readonly text: string };

/** The first of the variables that is not empty. */
function firstSet(env: Env, names: readonly string[]): Found | null {
  for (const name of names) {
    const text = (env[name] ?? "").trim();
    if (text !== "") return { from: `Environment variable '${name}'`, text };
  }
  return null;
}

/** Whether the file itself says something of a tailscaled of our own: a switch that is off and an empty list say nothing. */
export function saysOwn(check: CheckContext, key: (typeof OWN_KEYS)[number]): boolean {
  const value: unknown = check.config.tailscale?.[key];
  return check.isWritten(["tailscale", key]) && value !== false && !(Array.isArray(value) && value.length === 0);
}

/** Completes `check.config.tailscale`, which is made where a listener is on the tailnet; reports texts that do not fit, secrets never with their text. */
export function takeTailscaleEnvironment(check: CheckContext, env: Env): void {
  const { config } = check;
  if (config.tailscale === undefined && tailnetListeners(check).length === 0) return;
  config.tailscale ??= withDefaults({}, { $ref: "#/definitions/Tailscale" }) as Tailscale;
  const section: unknown = config.tailscale;
  if (typeof section !== "object" || section === null || Array.isArray(section) || check.isWritten(["tailscale", "socket"])) return;
  if (config.tailscale.auth_key === "") takeEmptyKey(check, config.tailscale);
  const taken = takeOwn(check, config.tailscale, env);
  const socket = firstSet(env, ["TS_SOCKET"]);
  if (socket === null || OWN_KEYS.some((key) => saysOwn(check, key))) return;
  // In Tailscale's image it is where tailscaled shall make its socket.
  if (taken !== null) check.warnOutside(`Environment variable 'TS_SOCKET' is not used: ${taken} speaks of a tailscaled that Sidegate itself runs`);
  else if (fits(check, socket, "socket_path")) {
    config.tailscale.socket = socket.text;
    if (config.tailscale.seal === undefined)
      check.warnOutside(
        "Environment variable 'TS_SOCKET' names a tailscaled that is not Sidegate's: its ports are not sealed unless 'tailscale.seal: true' says so",
      );
  }
}

/** As with compose, where a variable that nobody set is empty: then somebody logs in by a browser. */
function takeEmptyKey(check: CheckContext, section: Tailscale): void {
  const path = ["tailscale", "auth_key"];
  delete section.auth_key;
  if (check.text(path, "") !== "" || !check.isSound(path)) return;
  check.report(path, "An auth key is not empty; without 'auth_key' TS_AUTHKEY is taken where it is set, and otherwise the URL of a login is shown");
}

function fits(check: CheckContext, { from, text }: Found, format: string, isSecret = false): boolean {
  const reason = FORMATS[format]?.(text) ?? null;
  if (reason !== null) check.reportOutside(isSecret ? `${from} ${reason}` : `${from} is ${quote(text)}, which ${reason}`);
  return reason === null;
}

/** Takes what is for a tailscaled of our own; the words for the first variable that was taken, null when none was. */
function takeOwn(check: CheckContext, section: Tailscale, env: Env): string | null {
  const isSilent = (key: keyof Tailscale): boolean => !check.isWritten(["tailscale", key]);
  const args = isSilent("extra_args") ? firstSet(env, VARIABLES.extra_args) : null;
  const parsed = args === null ? null : parseArgs(check, args);
  const find = (key: FlagKey, names: readonly string[] = []): Found | null => {
    const flag = parsed?.keys.findLast((candidate) => candidate.key === key && candidate.value !== "");
    return firstSet(env, names) ?? (flag === undefined ? null : { from: `Flag '--${flag.flag}' in ${lower(args?.from ?? "")}`, text: flag.value });
  };
  const taken: string[] = [];
  const take = (found: Found | null, apply: (found: Found) => void): void => {
    if (found === null) return;
    taken.push(lower(found.from));
    apply(found);
  };
  if (parsed !== null) take(args, () => (section.extra_args = [...parsed.kept]));
  if (section.auth_key === undefined && isSilent("auth_key_file"))
    take(find("auth_key", VARIABLES.auth_key), (found) => {
      if (fits(check, found, "auth_key", true)) section.auth_key = found.text;
    });
  if (isSilent("hostname"))
    take(find("hostname", VARIABLES.hostname), ({ from, text }) => {
      // Tailscale takes capitals, and makes them small.
      if (fits(check, { from, text: text.toLowerCase() }, "tailnet_hostname")) section.hostname = text.toLowerCase();
    });
  if (isSilent("tags")) take(find("tags", VARIABLES.tags), (found) => (section.tags = tagsOf(check, found)));
  if (isSilent("state_dir"))
    take(firstSet(env, VARIABLES.state_dir), ({ from, text }) => {
      if (text.startsWith("/")) section.state_dir = text;
      else check.reportOutside(`${from} is ${quote(text)}, which is not an absolute path; write /var/lib/tailscale`);
    });
  if (isSilent("control_url"))
    take(find("control_url"), (found) => {
      if (fits(check, found, "control_url")) section.control_url = found.text;
    });
  if (isSilent("accept_dns")) take(find("accept_dns"), ({ text }) => (section.accept_dns = text === "true"));
  if (isSilent("timeout")) {
    const found = find("timeout");
    // 0s is 'for ever' there, which joining is tried anyway.
    if (found !== null && parseDurationMs(found.text) !== 0 && fits(check, found, "positive_duration")) section.timeout = found.text;
  }
  return taken[0] ?? null;
}

/** As it stands within a sentence. */
function lower(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function tagsOf(check: CheckContext, { from, text }: Found): string[] {
  // Tailscale adds a prefix that is left away.
  const tags = text.split(",").flatMap((item) => (item.trim() === "" ? [] : [item.includes(":") ? item.trim() : `tag:${item.trim()}`]));
  return [...new Set(tags)].filter((tag) => fits(check, { from, text: tag }, "tailnet_tag"));
}

/** Null when the text cannot be told apart; flags that are refused are problems. */
function parseArgs(check: CheckContext, { from, text }: Found): ParsedFlags | null {
  const words = splitWords(text);
  if (words === null) {
    check.reportOutside(`${from} has a quote that is never closed`);
    return null;
  }
  const parsed = parseTailscaleFlags(words);
  for (const { index, message } of parsed.problems) check.reportOutside(`${from}, argument ${index + 1}: ${message}`);
  return parsed;
}

/** Splits as a shell does: at white space, with '...', "..." and backslashes; null when a quote is not closed. */
function splitWords(text: string): string[] | null {
  const words: string[] = [];
  let word: string | null = null;
  for (const [piece] of text.matchAll(/\s+|\\[^]|\\$|'[^']*'|"(?:[^"\\]|\\[^])*"|[^\s'"\\]+|['"]/g)) {
    if (piece === "'" || piece === '"') return null;
    if (/^\s/.test(piece)) {
      if (word !== null) words.push(word);
      word = null;
    } else if (piece.startsWith("'")) word = (word ?? "") + piece.slice(1, -1);
    else if (piece.startsWith('"')) word = (word ?? "") + piece.slice(1, -1).replaceAll(/\\(["\\$`])/g, "$1");
    else word = (word ?? "") + (piece.startsWith("\\") ? piece.slice(1) : piece);
  }
  return word === null ? words : [...words, word];
}
