// sidegate hash-password: reads a password that nobody sees and prints its hash for the file of people.
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { GatewayError } from "../lib/errors.ts";
import { hashPassword } from "../lib/password-file.ts";
import { EXIT_OK, UsageError, type Input, type Io } from "./io.ts";

const MIN_CHARACTERS = 8;
const MAX_BYTES = 1_024;

export class PasswordError extends GatewayError {
  constructor(message: string) {
    super("ERR_PASSWORD", message);
  }
}

export async function runHashPassword(args: readonly string[], io: Io): Promise<number> {
  // The words themselves are not repeated: one of them may be the password.
  if (args.length > 0)
    throw new UsageError("The password is no argument, where others of this machine see it: run 'sidegate hash-password' and type it, or pipe it in");
  const input = io.stdin();
  const password = input.isTTY === true ? await readTwice(input, io) : await readFirstLine(input);
  io.stdout(`${await hashPassword(password)}\n`);
  return EXIT_OK;
}

/** @throws {PasswordError} */
function check(password: string): string {
  if (password === "") throw new PasswordError("The password is empty");
  if (Array.from(password.normalize("NFC")).length < MIN_CHARACTERS) throw new PasswordError(`The password is shorter than ${MIN_CHARACTERS} characters`);
  if (Buffer.byteLength(password) > MAX_BYTES) throw new PasswordError(`The password is longer than ${MAX_BYTES} bytes`);
  return password;
}

async function readFirstLine(input: Input): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of input as AsyncIterable<Buffer | string>) {
    const piece = Buffer.from(chunk);
    const end = piece.indexOf("\n");
    chunks.push(end === -1 ? piece : piece.subarray(0, end));
    bytes += piece.length;
    if (end !== -1 || bytes > 2 * MAX_BYTES) break;
  }
  try {
    return check(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks)).replace(/\r$/, ""));
  } catch (error) {
    if (error instanceof PasswordError) throw error;
    throw new PasswordError("The password is no text in UTF-8");
  }
}

/** Readline sets the terminal up, edits the line and, since it writes to nowhere, shows nothing. */
async function readTwice(input: Input, io: Io): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input, output: nowhere, terminal: true, historySize: 0 });
  const stop = (): void => lines.close();
  // Ctrl-C and Ctrl-D, which come as characters while the terminal is raw, close it, too.
  io.stopped.addEventListener("abort", stop, { once: true });
  const typed: string[] = [];
  let next = Promise.withResolvers<void>();
  lines.on("line", (line) => {
    typed.push(line);
    next.resolve();
  });
  const closed = new Promise<void>((resolve) => lines.on("close", resolve));
  const ask = async (text: string): Promise<string> => {
    io.stderr(text);
    next = Promise.withResolvers<void>();
    if (typed.length === 0) await Promise.race([next.promise, closed]);
    io.stderr("\n");
    const line = typed.shift();
    if (line === undefined) throw new PasswordError("Stopped, nothing was hashed");
    return line;
  };
  try {
    const password = check(await ask("Password: "));
    if ((await ask("Again: ")) !== password) throw new PasswordError("The two are not the same");
    return password;
  } finally {
    io.stopped.removeEventListener("abort", stop);
    lines.close();
    input.destroy();
  }
}
