// sidegate token new: makes a bearer token and the line with its hash.
import { createHash, randomBytes } from "node:crypto";
import { FORMATS } from "../config/formats.ts";
import { EXIT_OK, parseCommand, UsageError, type Io } from "./io.ts";

const TOKEN_BYTES = 32;

export function runToken(args: readonly string[], io: Io): Promise<number> {
  const options = {
    name: { type: "string", default: "me" },
    scope: { type: "string", multiple: true, default: [] as string[] },
    json: { type: "boolean", default: false },
  } as const;
  const { values, positionals } = parseCommand(args, options, 1);
  if (positionals[0] !== "new")
    throw new UsageError(positionals[0] === undefined ? "'token' needs a word: 'token new'" : `Unknown word '${positionals[0]}'; there is only 'token new'`);
  refuse("name", values.name, "--name");
  for (const scope of values.scope) refuse("scope", scope, "--scope");
  // The prefix lets secret scanners recognise a leaked token.
  const token = `sgt_${randomBytes(TOKEN_BYTES).toString("base64url")}`;
  const sha256 = createHash("sha256").update(token).digest("hex");
  if (values.json) io.stdout(`${JSON.stringify({ token, name: values.name, sha256, scopes: values.scope })}\n`);
  else io.stdout(`Token, shown only this once:\n\n  ${token}\n\nIts line for auth.tokens:\n\n  - ${formatEntry(values.name, sha256, values.scope)}\n`);
  return Promise.resolve(EXIT_OK);
}

function refuse(format: string, text: string, option: string): void {
  const reason = FORMATS[format]?.(text) ?? null;
  if (reason !== null) throw new UsageError(`'${text}' of ${option} ${reason}`);
}

function formatEntry(name: string, sha256: string, scopes: readonly string[]): string {
  const list = scopes.length === 0 ? "" : `, scopes: [${scopes.map(quoteYaml).join(", ")}]`;
  return `{ name: ${quoteYaml(name)}, sha256: "${sha256}"${list} }`;
}

// Words that YAML would read as something else than text (1e3, null, true) are quoted.
function quoteYaml(text: string): string {
  return /^[A-Za-z_][\w-]*$/.test(text) && !/^(?:true|false|null|yes|no|on|off|y|n)$/i.test(text) ? text : JSON.stringify(text);
}
