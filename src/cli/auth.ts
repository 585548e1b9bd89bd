// sidegate auth: shows the clients, grants and browser sessions of the running gateway, and takes grants and sessions back.
import { isUser } from "../admin/auth.ts";
import type { BrowserSessionInfo, OAuthClientInfo, OAuthGrantInfo } from "../authorization-server/grants.ts";
import { GatewayError } from "../lib/errors.ts";
import { askAdmin } from "./admin-client.ts";
import { formatClients, formatGrants, formatSessions } from "./auth-text.ts";
import { configFile, EXIT_FAILED, EXIT_OK, hasColors, parseCommand, UsageError, wordFirst, type Io } from "./io.ts";
import { plainLine } from "./table.ts";

const TIMEOUT_MS = 10_000;
// Each grant has tokens to look for.
const REVOKE_TIMEOUT_MS = 60_000;
const WORDS = ["grants", "clients", "sessions", "revoke"] as const;
const IDS = ["grant", "session", "client"] as const;

type Choice = { readonly kind: (typeof IDS)[number] | "user"; readonly value: string } | { readonly kind: "all" };

export class AuthCommandError extends GatewayError {
  constructor(message: string) {
    super("ERR_AUTH_COMMAND", message);
  }
}

export async function runAuth(args: readonly string[], io: Io): Promise<number> {
  const options = {
    json: { type: "boolean", default: false },
    grant: { type: "string", multiple: true, default: [] as string[] },
    session: { type: "string", multiple: true, default: [] as string[] },
    client: { type: "string", multiple: true, default: [] as string[] },
    user: { type: "string", multiple: true, default: [] as string[] },
    all: { type: "boolean", default: false },
  } as const;
  const { values, positionals } = parseCommand(joinIds(args), options, 3);
  const [word, named, extra] = wordFirst(positionals, WORDS);
  if (extra !== undefined) throw new UsageError(`Unexpected argument '${extra}'`);
  const choices = choicesOf(values);
  if (word !== "revoke" && choices.length > 0) throw new UsageError(`'--${choices[0]?.kind}' is for 'auth revoke'`);
  const file = configFile(io, named);
  if (word === "revoke") {
    const choice = oneOf(choices);
    if (choice.kind === "user" && !isUser(choice.value)) throw await noLogin(choice.value, file, io);
    return revoke(choice, file, values.json, io);
  }
  const now = new Date();
  if (word === "clients") {
    const clients = await askClients(file, io);
    io.stdout(values.json ? `${JSON.stringify(clients, null, 2)}\n` : formatClients(clients, now, hasColors(io)));
  } else if (word === "sessions") {
    const sessions = await askSessions(file, io);
    io.stdout(values.json ? `${JSON.stringify(sessions, null, 2)}\n` : formatSessions(sessions, now, hasColors(io)));
  } else {
    const grants = await askGrants(file, io);
    io.stdout(values.json ? `${JSON.stringify(grants, null, 2)}\n` : formatGrants(grants, now, hasColors(io)));
  }
  return EXIT_OK;
}

/** Ids are random texts of which some begin with '-': they are no options. */
function joinIds(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const last = joined.at(-1);
    if (IDS.some((kind) => last === `--${kind}`) && /^-[\w-]{19,}$/.test(arg)) joined[joined.length - 1] = `${last}=${arg}`;
    else joined.push(arg);
  }
  return joined;
}

function choicesOf(values: Readonly<Record<(typeof IDS)[number] | "user", readonly string[]>> & { readonly all: boolean }): Choice[] {
  const named = ([...IDS, "user"] as const).flatMap((kind) => values[kind].map((value) => ({ kind, value })));
  return values.all ? [...named, { kind: "all" }] : named;
}

function oneOf(choices: readonly Choice[]): Choice {
  const [choice, second] = choices;
  if (choice === undefined || second !== undefined)
    throw new UsageError(`'auth revoke' ${second === undefined ? "needs" : "takes only"} one of --grant ID, --session ID, --client ID, --user USER and --all`);
  if (choice.kind === "all") return choice;
  if (choice.value === "") throw new UsageError(`'--${choice.kind}' names nothing`);
  return choice;
}

/** A name without its login, and those who may be meant. */
async function noLogin(name: string, file: string, io: Io): Promise<UsageError> {
  // Wrong usage is told without a gateway, too.
  const all = await Promise.all([askGrants(file, io), askSessions(file, io)]).catch(() => []);
  const users = new Set(all.flat().flatMap(({ user }) => (user.endsWith(`:${name}`) ? [`'${user}'`] : [])));
  const advice =
    users.size > 0 ? `. Did you mean ${[...users].join(" or ")}?` : "; 'sidegate auth grants' and 'sidegate auth sessions' show users as 'github:octocat'";
  return new UsageError(plainLine(`'${name}' of --user names no login${advice}`));
}

async function revoke(choice: Choice, file: string, json: boolean, io: Io): Promise<number> {
  // Its registration is taken back too, and is no longer seen afterwards.
  const client = choice.kind === "client" ? (await askClients(file, io)).find(({ id }) => id === choice.value) : undefined;
  const query = choice.kind === "all" ? "all=true" : `${choice.kind}=${encodeURIComponent(choice.value)}`;
  const { revoked = 0 } = parse(await askAdmin(file, io.env, `POST /auth/revoke?${query}`, REVOKE_TIMEOUT_MS, io.stopped));
  const isMissing = revoked === 0 && choice.kind !== "all" && client === undefined;
  if (json) io.stdout(`${JSON.stringify({ revoked })}\n`);
  else if (isMissing) io.stderr(`${plainLine(missingText(choice))}\n`);
  else io.stdout(`${revokedText(choice, revoked, client?.kind)}\n`);
  return isMissing ? EXIT_FAILED : EXIT_OK;
}

/** The registration of a client goes with its grants. What a client of the file got for itself ends, too, but is not counted: of some of it nothing is kept. */
function revokedText({ kind }: Choice, revoked: number, client: OAuthClientInfo["kind"] | undefined): string {
  const what = kind === "session" ? "session" : kind === "grant" || kind === "client" ? "grant" : null;
  const things = revoked === 1 ? (what ?? "grant or session") : what === null ? "grants and sessions" : `${what}s`;
  if (client === "registered") return revoked === 0 ? "Took back the registration; there were no grants" : `Revoked ${revoked} ${things} and the registration`;
  const own = client === "static" ? "; tokens that the client got for itself are worthless now" : "";
  return `${revoked === 0 ? "There were no" : `Revoked ${revoked}`} ${things}${own}`;
}

function missingText(choice: Exclude<Choice, { kind: "all" }>): string {
  if (choice.kind === "grant") return `There is no grant '${choice.value}'; 'sidegate auth grants' shows those that there are`;
  if (choice.kind === "session") return `There is no session '${choice.value}'; 'sidegate auth sessions' shows those that there are`;
  if (choice.kind === "client") return `There is no client '${choice.value}'; 'sidegate auth clients' shows those that there are`;
  return `There is no grant or session of '${choice.value}'; 'sidegate auth grants' and 'sidegate auth sessions' show whose there are`;
}

async function askClients(file: string, io: Io): Promise<OAuthClientInfo[]> {
  return parse(await askAdmin(file, io.env, "GET /auth/clients", TIMEOUT_MS)).clients ?? [];
}

async function askGrants(file: string, io: Io): Promise<OAuthGrantInfo[]> {
  return parse(await askAdmin(file, io.env, "GET /auth/grants", TIMEOUT_MS)).grants ?? [];
}

async function askSessions(file: string, io: Io): Promise<BrowserSessionInfo[]> {
  return parse(await askAdmin(file, io.env, "GET /auth/sessions", TIMEOUT_MS)).sessions ?? [];
}

type Answer = {
  readonly clients?: OAuthClientInfo[];
  readonly grants?: OAuthGrantInfo[];
  readonly sessions?: BrowserSessionInfo[];
  readonly revoked?: number;
  readonly error?: string;
};

function parse({ status, body }: { readonly status: number; readonly body: string }): Answer {
  const answer = JSON.parse(body) as Answer;
  if (status === 200) return answer;
  throw new AuthCommandError(`The gateway cannot do it: ${plainLine(answer.error ?? String(status))}`);
}
