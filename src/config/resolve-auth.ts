// Reads the files that `auth` names: CAs of issuers and providers, keys of clients, and the people with passwords.
import { explainJwks } from "../lib/jwks.ts";
import { nearest } from "../lib/nearest.ts";
import { type PasswordFile, parsePasswordFile } from "../lib/password-file.ts";
import { soundWays, takesAssertions } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import type { FileReader } from "./file-reader.ts";
import { type Path, quote } from "./problem.ts";
import { keepText, resolveCa } from "./resolve-pem.ts";
import type { AllowPeople, Client, Issuer, Login, Scope } from "./types.ts";

// What a machine that tries a thousand secrets a second cannot find.
const MIN_SECRET_LENGTH = 32;
const MAX_LINES = 10;

type People = PasswordFile["users"];

/** Puts the texts into `files.texts`, and makes the paths absolute. The secrets themselves are in place already. */
export function resolveAuth(check: CheckContext, files: FileReader): void {
  const auth: unknown = check.config.auth;
  if (typeof auth !== "object" || auth === null) return;
  const { issuers, login, clients } = auth as { issuers?: unknown; login?: unknown; clients?: unknown };
  if (typeof issuers === "object" && issuers !== null) {
    for (const [name, issuer] of Object.entries(issuers as Record<string, Issuer | null>))
      if (typeof issuer === "object" && issuer !== null) resolveCa(check, files, ["auth", "issuers", name], issuer);
  }
  if (typeof login === "object" && login !== null) resolveLogin(check, files, login as Login);
  if (Array.isArray(clients)) {
    for (const [i, client] of (clients as (Client | null)[]).entries())
      if (typeof client === "object" && client !== null) resolveClient(check, files, ["auth", "clients", i], client);
  }
}

function resolveLogin(check: CheckContext, files: FileReader, login: Login): void {
  for (const kind of ["github", "oidc"] as const) {
    const provider: unknown = login[kind];
    if (typeof provider === "object" && provider !== null) resolveCa(check, files, ["auth", "login", kind], provider);
  }
  const password: unknown = login.password;
  const path = ["auth", "login", "password", "users_file"];
  if (login.password === undefined || typeof password !== "object" || password === null || !check.isSound(path)) return;
  const people = readPeople(check, files, path, login.password.users_file);
  // Of an OpenID provider's subjects and groups nobody knows here.
  if (people !== null && login.oidc === undefined) checkKnown(check, people);
  login.password.users_file = files.absolute(login.password.users_file);
}

/** The people of the file; null when it is wrong. Tells of its lines by their numbers: what stands in them may be a password. */
function readPeople(check: CheckContext, files: FileReader, path: Path, file: string): People | null {
  const text = keepText(check, files, path, file, () => null);
  if (text === null) return null;
  const { users, problems } = parsePasswordFile(text);
  const shown = files.shown(path, file);
  for (const { line, message } of problems.slice(0, MAX_LINES)) check.report(path, `File ${shown}: line ${line} ${message}`);
  if (problems.length > MAX_LINES) check.report(path, `File ${shown}: ${problems.length - MAX_LINES} more lines are wrong`);
  if (users.size === 0 && problems.length === 0)
    check.warn(path, `File ${shown} has nobody in it; each line is NAME:HASH, and 'sidegate hash-password' prints one`);
  return problems.length === 0 ? users : null;
}

/** Names and groups in `allow` that the file does not have. */
function checkKnown(check: CheckContext, people: People): void {
  const names = [...people.keys()];
  const groups = [...new Set([...people.values()].flatMap((user) => user.groups))];
  for (const [path, allow] of allowLists(check)) {
    for (const [at, name] of check.items([...path, "users"], allow?.users)) {
      if (names.includes(name)) continue;
      // As the log has it: the login and the name.
      const meant = nearest(name.replace(/^password:/, ""), names);
      check.warn(at, `User ${quote(check.text(at, name))} is not in the file of passwords${meant === null ? "" : `; did you mean '${meant}'?`}`);
    }
    for (const [at, group] of check.items([...path, "groups"], allow?.groups)) {
      if (groups.includes(group)) continue;
      const meant = nearest(group, groups);
      const remedy = meant === null ? "groups stand after the hash, as NAME:HASH:GROUP,GROUP" : `did you mean '${meant}'?`;
      check.warn(at, `Nobody in the file of passwords has group ${quote(check.text(at, group))}; ${remedy}`);
    }
  }
}

/** What the ways by our own login, and the scopes, say of people. Whom an issuer vouches for nobody knows here. */
function allowLists(check: CheckContext): [Path, AllowPeople | undefined][] {
  const all = soundWays(check);
  const isVouched = all.some(takesAssertions);
  const ways = all
    .filter((place) => !takesAssertions(place))
    .flatMap(({ path, way }) => (["oauth", "session"] as const).map((kind): [Path, AllowPeople | undefined] => [[...path, kind, "allow"], way[kind]?.allow]));
  const scopes: unknown = check.config.auth.scopes;
  if (typeof scopes !== "object" || scopes === null || Array.isArray(scopes) || isVouched) return ways;
  const entries = Object.entries(scopes as Record<string, Scope | null>);
  return [...ways, ...entries.map(([name, scope]): [Path, AllowPeople | undefined] => [["auth", "scopes", name, "allow"], scope?.allow])];
}

function resolveClient(check: CheckContext, files: FileReader, path: Path, client: Client): void {
  const keys = [...path, "jwks_file"];
  if (client.jwks_file !== undefined && check.isSound(keys)) {
    keepText(check, files, keys, client.jwks_file, explainJwks);
    client.jwks_file = files.absolute(client.jwks_file);
  }
  if (typeof client.secret !== "string" || !check.isSound([...path, "secret"]) || !check.isSound([...path, "secret_file"])) return;
  if (client.secret.length < MIN_SECRET_LENGTH) {
    const key = check.isWritten([...path, "secret"]) ? "secret" : "secret_file";
    check.report(
      [...path, key],
      `The secret has ${client.secret.length} characters, and one so short can be guessed; give one of at least ${MIN_SECRET_LENGTH}, for example by 'openssl rand -hex 32'`,
      "key",
    );
  }
}
