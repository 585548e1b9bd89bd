// The client of tailscaled's LocalAPI: what is asked for, where, and within which bounds.
import { isIP } from "node:net";
import { BUS_MASK, createBusReader } from "./local-api-bus.ts";
import { LocalApiLine, badAnswer, type LocalApiAnswer, type LocalApiCall } from "./local-api-call.ts";
import { LocalApiError } from "./local-api-error.ts";
import { FieldError } from "./local-api-fields.ts";
import { maskedPrefs, parsePair, parsePrefs, parseServeConfig, parseStatus, parseWhoIs, startOptions } from "./local-api-parse.ts";
import type { LocalApi, LocalPrefs } from "./local-api-types.ts";

const TIMEOUT_MS = 5_000;
// 65,535 sealed ports take half a second on an idle machine; a logout asks the control server.
const SLOW_FACTOR = 6;
// tailscaled orders certificates while the call waits.
const CERTIFICATE_FACTOR = 18;
// 65,535 ports are 2.8 MB.
const MAX_SERVE_CONFIG_BYTES = 64 * 1024 * 1024;
const MAX_CALLS = 64;
// For an address that is nobody's, tailscaled 1.102.5 sleeps 180 ms with the lock of its whole backend held (LocalBackend.WhoIs, proxymap), and any local process
// can make us ask. While 16 such questions are put at all times, its status takes up to 2.9 s; with 4 of them 0.9 s, with one 0.2 s (measured). It answers one
// after the other, so that more at once bring nothing.
const MAX_WHOIS = 2;

/**
 * Opens no connection yet.
 * @param socket path of tailscaled's unix socket
 * @param options timeoutMs: default 5 s; see `LocalApi`
 */
export function openLocalApi(socket: string, { timeoutMs = TIMEOUT_MS }: { readonly timeoutMs?: number } = {}): LocalApi {
  const calls = new LocalApiLine(socket, MAX_CALLS);
  // Strangers can cause these: what keeps the tailnet running does not wait in their queue.
  const questions = new LocalApiLine(socket, MAX_WHOIS);

  async function call(wanted: Omit<LocalApiCall, "timeoutMs">, factor = 1): Promise<LocalApiAnswer> {
    return calls.call({ ...wanted, timeoutMs: timeoutMs * factor });
  }

  return {
    socket,

    async status() {
      const wanted = { method: "GET", path: "status?peers=false" } as const;
      return understood(wanted, parseStatus, (await call(wanted)).text);
    },

    async whois(address) {
      const isNode = isIP(address) !== 0;
      // A node is looked up without sleeping.
      const line = isNode ? calls : questions;
      const query = new URLSearchParams({ addr: address, ...(isNode ? {} : { proto: "tcp" }) });
      const wanted = { method: "GET", path: `whois?${query.toString()}`, timeoutMs } as const;
      try {
        return understood(wanted, parseWhoIs, (await line.call(wanted)).text);
      } catch (error) {
        if (error instanceof LocalApiError && error.status === 404) return null;
        throw error;
      }
    },

    async prefs() {
      const wanted = { method: "GET", path: "prefs" } as const;
      return understood(wanted, parsePrefs, (await call(wanted)).text);
    },

    async editPrefs(prefs) {
      const wanted = { method: "PATCH", path: "prefs", body: maskedPrefs(prefs) } as const;
      return understood(wanted, parsePrefs, (await call(wanted)).text);
    },

    async start(authKey: string, prefs: Partial<LocalPrefs>) {
      const wanted = { method: "GET", path: "prefs" } as const;
      const { text } = await call(wanted);
      await call({ method: "POST", path: "start", body: understood(wanted, (present) => startOptions(present, authKey, prefs), text), secret: authKey });
    },

    async loginInteractive() {
      await call({ method: "POST", path: "login-interactive" });
    },

    async logout() {
      await call({ method: "POST", path: "logout" }, SLOW_FACTOR);
    },

    async serveConfig() {
      const wanted = { method: "GET", path: "serve-config", maxBytes: MAX_SERVE_CONFIG_BYTES } as const;
      const { etag, text } = await call(wanted, SLOW_FACTOR);
      // Without one, the next writer would overwrite whatever is there.
      if (etag === "") throw badAnswer(wanted, "it has no ETag");
      return { config: understood(wanted, parseServeConfig, text), etag };
    },

    async isServeConfig(etag) {
      const { etag: present } = await call({ method: "GET", path: "serve-config", maxBytes: MAX_SERVE_CONFIG_BYTES }, SLOW_FACTOR);
      return present !== "" && present === etag;
    },

    async setServeConfig(config, etag) {
      await call({ method: "POST", path: "serve-config", body: config, headers: { "if-match": etag } }, SLOW_FACTOR);
    },

    async certificate(domain, minValidityMs) {
      const path = `cert/${encodeURIComponent(domain)}?type=pair&min_validity=${Math.max(0, Math.round(minValidityMs))}ms`;
      const wanted = { method: "GET", path } as const;
      return understood(wanted, parsePair, (await call(wanted, CERTIFICATE_FACTOR)).text);
    },

    async watch(onMessage, signal) {
      const wanted = { method: "GET", path: `watch-ipn-bus?mask=${BUS_MASK}`, timeoutMs } as const;
      const read = createBusReader(onMessage);
      await calls.stream(wanted, (chunk) => understood(wanted, read, chunk), signal);
    },

    async close() {
      await Promise.all([calls.close(), questions.close()]);
    },
  };
}

/** @throws {LocalApiError} when the answer is not what it should be */
function understood<In, Out>(call: Pick<LocalApiCall, "method" | "path">, parse: (answer: In) => Out, answer: In): Out {
  try {
    return parse(answer);
  } catch (error) {
    if (error instanceof FieldError) throw badAnswer(call, error.message);
    throw error;
  }
}
