// The key of the state: its file, and what is sealed with it.
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { systemErrorCode } from "../lib/errors.ts";
import { makeSecretFile } from "../lib/secret-file.ts";
import { BEGIN_ANEW, StateError, toStateError } from "./state-error.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
// The first byte of what is sealed. Another key, or another cipher, gets another number.
const FORMAT = 1;
const CIPHER = "aes-256-gcm";

/** The key of the file, 32 bytes; null when there is no file. @throws {StateError} when the file holds none or cannot be read */
export async function readStateKey(file: string): Promise<Buffer | null> {
  let text;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw toStateError(file, error);
  }
  const word = text.trim();
  const key = Buffer.from(word, "base64url");
  // Decoding leaves out what it does not know.
  if (key.length === KEY_BYTES && key.toString("base64url") === word) return key;
  throw new StateError(
    `'${file}' holds no key (32 bytes in base64url); bring it back from a backup, or move it and the state file beside it away: ${BEGIN_ANEW}`,
  );
}

/** The key of the file, which is made with mode 0600 when there is none. Processes that make it at once get the same one. @throws {StateError} */
export async function makeStateKey(file: string): Promise<Buffer> {
  await makeSecretFile(file, `${randomBytes(KEY_BYTES).toString("base64url")}\n`).catch((error: unknown) => {
    throw toStateError(file, error);
  });
  const key = await readStateKey(file);
  if (key === null) throw new StateError(`'${file}' was taken away while the gateway started; start it again`);
  return key;
}

/** Encrypts. What is sealed opens only with the same `name`, so that nothing can be put in the place of something else. */
export function seal(key: Buffer, name: string, text: string): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce).setAAD(Buffer.from(name));
  return Buffer.concat([Buffer.from([FORMAT]), nonce, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]);
}

/** The text; null when it was sealed with another key or name, was changed, or is of a format that is not known. */
export function unseal(key: Buffer, name: string, sealed: Uint8Array): string | null {
  if (sealed[0] !== FORMAT || sealed.length < 1 + NONCE_BYTES + TAG_BYTES) return null;
  const end = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv(CIPHER, key, sealed.subarray(1, 1 + NONCE_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(Buffer.from(name)).setAuthTag(sealed.subarray(end));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(1 + NONCE_BYTES, end)), decipher.final()]).toString("utf8");
  } catch {
    return null;
  }
}
