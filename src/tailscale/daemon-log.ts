// What tailscaled writes, line by line: made readable, without secrets, at a level that fits, and bounded.
import { stripVTControlCharacters } from "node:util";
import type { Log } from "../telemetry/log.ts";

const WINDOW_MS = 10_000;
/** Lines of a window that are passed on. */
const LOUD_LINES = 20;
const QUIET_LINES = 500;
/** Longer ones are cut. */
const LINE_CHARS = 1_000;
/** A line that says the same again within this time is not worth another warning. */
const REPEAT_MS = 300_000;
const REMEMBERED = 50;

const GO_PREFIX = /^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d (?:\S+\.go:\d+: )?/;
// Keys of Tailscale and headscale, and private keys as tailscale.com/types/key writes them. Public ones ("nodekey:", "mkey:") are no secret.
const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/\b(tskey|hskey)-[\w-]+/g, "$1-…"],
  [/\b(\w*priv\w*):[\w+/=-]{8,}/gi, "$1:…"],
];
const NOISE = /^(?:\[v\d\]|\[RATELIMIT\]|localapi: \[)/;
// The state that a node is in before it is told to join, and while it joins: the gateway says it better.
const EXPECTED_HEALTH = new Set(["wantrunning-false", "warming-up"]);
const HEALTH = /^health\(warnable=([\w-]+)\): (?:(ok)$|error: (.*))/;
const CRASH = /^(?:panic|fatal error|runtime error|runtime: out of memory)[: ]/;
// What log.Fatal and the flag package say, before or amid the lines of an orderly end.
const FAILURE =
  /^(?:tailscaled got signal|safesocket\.Listen|getLocalBackend error|ipnserver\.Run|netmon\.New|flag provided but not defined|invalid value|failed to start)/;
const LAST_WORDS = /^(?:flushing log|logger closing down|dns: |control: |ipnext: |goroutine |\s|$|exit status)/;
/** tailscaled goes on with an empty state in memory, and would be a new node. */
const STATE_LOST = /^store\.New failed: (.*); starting with in-memory store/;

type Level = "error" | "warn" | "info" | "debug" | "trace";

export class DaemonLog {
  readonly #log: Log;
  readonly #onStateLost: (reason: string) => void;
  #rest = "";
  /** The first line that tells of a crash: those of its stack come after. */
  #failure = "";
  #last = "";
  readonly #unwell = new Set<string>();
  readonly #told = new Map<string, number>();
  #windowStart = -Infinity;
  #passed = { loud: 0, quiet: 0 };
  #dropped = 0;

  /** @param onStateLost tailscaled could not read its state; it must not go on. */
  constructor(log: Log, onStateLost: (reason: string) => void) {
    this.#log = log;
    this.#onStateLost = onStateLost;
  }

  /** Takes any part of the output; lines need not be whole. */
  write(text: string): void {
    const lines = (this.#rest + text).split(/\r?\n/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#take(line);
    // One that never ends must not fill the memory. Its rest is lost with what it may hold of a key.
    if (this.#rest.length > 8 * LINE_CHARS) this.#rest = this.#rest.slice(0, 8 * LINE_CHARS);
  }

  /** The output has ended. @returns the line that best tells why, or an empty string. */
  end(): string {
    if (this.#rest !== "") this.#take(this.#rest);
    this.#rest = "";
    this.#tellDropped();
    return this.#failure || this.#last;
  }

  #take(raw: string): void {
    const line = readable(raw);
    if (line === "") return;
    const level = this.#levelOf(line);
    if (CRASH.test(line) || FAILURE.test(line)) this.#failure ||= line;
    else if (level !== "trace" && !LAST_WORDS.test(line)) this.#last = line;
    this.#pass(level, line);
    const lost = STATE_LOST.exec(line);
    if (lost !== null) this.#onStateLost((lost[1] ?? "").replace(/^failed to migrate existing TPM-sealed state file to plaintext format: /, ""));
  }

  #levelOf(line: string): Level {
    if (NOISE.test(line)) return "trace";
    if (CRASH.test(line) || STATE_LOST.test(line)) return "error";
    const health = HEALTH.exec(line);
    if (health !== null) return this.#levelOfHealth(health[1] ?? "", health[2] === "ok", line);
    return line.startsWith("Received error: ") && this.#isNews(line) ? "warn" : "debug";
  }

  #levelOfHealth(name: string, ok: boolean, line: string): Level {
    if (EXPECTED_HEALTH.has(name)) return "debug";
    if (ok) return this.#unwell.delete(name) ? "info" : "debug";
    if (!this.#isNews(line)) return "debug";
    this.#unwell.add(name);
    return "warn";
  }

  #isNews(line: string): boolean {
    const now = performance.now();
    const toldAt = this.#told.get(line);
    if (toldAt !== undefined && now - toldAt < REPEAT_MS) return false;
    const [oldest] = this.#told.keys();
    if (this.#told.size >= REMEMBERED && oldest !== undefined) this.#told.delete(oldest);
    this.#told.delete(line);
    this.#told.set(line, now);
    return true;
  }

  #pass(level: Level, line: string): void {
    if (!this.#log.isLevelEnabled(level)) return;
    const now = performance.now();
    if (now - this.#windowStart >= WINDOW_MS) {
      this.#tellDropped();
      this.#windowStart = now;
      this.#passed = { loud: 0, quiet: 0 };
    }
    const kind = level === "debug" || level === "trace" ? "quiet" : "loud";
    this.#passed[kind] += 1;
    if (this.#passed[kind] > (kind === "loud" ? LOUD_LINES : QUIET_LINES)) this.#dropped += 1;
    else this.#log[level]({ event: "tailscaled_log" }, `tailscaled: ${line}`);
  }

  #tellDropped(): void {
    if (this.#dropped > 0) this.#log.warn({ event: "tailscaled_log_dropped", count: this.#dropped }, "tailscaled wrote more lines than are passed on");
    this.#dropped = 0;
  }
}

/** Without Go's time stamp, control characters and secrets. */
function readable(raw: string): string {
  let line = stripVTControlCharacters(raw)
    .replaceAll(/[\p{Cc}\p{Cf}]/gu, " ")
    .replace(GO_PREFIX, "")
    .trimEnd();
  for (const [pattern, mask] of SECRETS) line = line.replaceAll(pattern, mask);
  return line.length > LINE_CHARS ? `${line.slice(0, LINE_CHARS)}...` : line;
}
