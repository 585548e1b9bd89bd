// The keys of TLS session tickets: kept in the state directory, so that sessions outlive a restart, and replaced every day.
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { removeOldDrafts, writeSecretFile } from "../lib/secret-file.ts";
import type { Log } from "../telemetry/log.ts";

// Of node:tls: 16 bytes of name, 16 for the HMAC, 16 for AES.
const KEY_BYTES = 48;
// Whoever gets hold of the keys can read what TLS 1.2 clients said under them: a day of it, no more.
const ROTATE_MS = 86_400_000;
// Of two gateways that replace the keys at once one is overwritten: it sees so when it looks again.
const SETTLE_MS = 10_000;
const RETRY_MS = 3_600_000;

type Keys = { readonly createdMs: number; readonly bytes: Buffer };

/** Where the keys of a state directory are kept. */
export function ticketKeysFile(stateDir: string): string {
  return join(stateDir, "tls", "ticket-keys.json");
}

/**
 * Reads `<stateDir>/tls/ticket-keys.json`, which gateways on one state share. Without it new keys serve at once and are written meanwhile.
 * Never rejects: keys that cannot be kept live in memory, with a warning.
 */
export async function openTicketKeys(stateDir: string, log: Log, now: () => number = Date.now): Promise<TicketKeys> {
  const file = ticketKeysFile(stateDir);
  const keys = new TicketKeys(file, log, now);
  await keys.open();
  return keys;
}

export class TicketKeys {
  readonly file: string;
  readonly #log: Log;
  readonly #now: () => number;
  #keys: Keys;
  /** When to look at the file again; asked at each handshake, so that there is no timer to be closed. */
  #lookAtMs = 0;
  #looking: Promise<void> | null = null;
  #warned = false;

  constructor(file: string, log: Log, now: () => number) {
    this.file = file;
    this.#log = log;
    this.#now = now;
    this.#keys = makeKeys(now());
  }

  /** What `server.setTicketKeys` takes; another object after each change. Looking for a change goes on in the background. */
  get current(): Buffer {
    if (this.#now() >= this.#lookAtMs) this.#looking ??= this.#look().finally(() => (this.#looking = null));
    return this.#keys.bytes;
  }

  async open(): Promise<void> {
    const stored = await this.#read().catch(() => null);
    if (stored !== null && !this.#isDue(stored)) this.#take(stored);
    await removeOldDrafts(dirname(this.file));
    // Begins to write what is missing.
    void this.current;
  }

  /** Resolves when a look that is under way has ended. */
  async settled(): Promise<void> {
    await this.#looking;
  }

  async #look(): Promise<void> {
    try {
      const stored = await this.#read();
      if (stored !== null && !this.#isDue(stored)) return this.#take(stored);
      if (this.#isDue(this.#keys)) this.#keys = makeKeys(this.#now());
      await this.#write();
      this.#lookAtMs = this.#now() + SETTLE_MS;
    } catch (error) {
      if (this.#isDue(this.#keys)) this.#keys = makeKeys(this.#now());
      this.#lookAtMs = this.#now() + RETRY_MS;
      if (!this.#warned) {
        this.#log.warn(
          { event: "ticket_keys_not_kept", file: this.file },
          `Cannot keep the keys of TLS sessions in '${this.file}', clients begin new sessions after a restart: ${describeSystemError(error)}`,
        );
      }
      this.#warned = true;
    }
  }

  #take(stored: Keys): void {
    if (!stored.bytes.equals(this.#keys.bytes)) this.#keys = stored;
    this.#lookAtMs = stored.createdMs + ROTATE_MS;
  }

  /** Also for keys from the future, which a wrong clock would keep for ever. */
  #isDue({ createdMs }: Keys): boolean {
    return Math.abs(this.#now() - createdMs) >= ROTATE_MS;
  }

  /** Null when there are none, or no usable ones: they are replaced. */
  async #read(): Promise<Keys | null> {
    try {
      return parseKeys(await readFile(this.file, "utf8"));
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return null;
      throw error;
    }
  }

  async #write(): Promise<void> {
    const { createdMs, bytes } = this.#keys;
    const text = `${JSON.stringify({ created: new Date(createdMs).toISOString(), keys: bytes.toString("base64") })}\n`;
    await writeSecretFile(this.file, text);
  }
}

function makeKeys(createdMs: number): Keys {
  return { createdMs, bytes: randomBytes(KEY_BYTES) };
}

function parseKeys(text: string): Keys | null {
  try {
    const { created, keys } = JSON.parse(text) as { created: unknown; keys: unknown };
    const createdMs = Date.parse(String(created));
    const bytes = Buffer.from(String(keys), "base64");
    return Number.isNaN(createdMs) || bytes.length !== KEY_BYTES ? null : { createdMs, bytes };
  } catch {
    return null;
  }
}
