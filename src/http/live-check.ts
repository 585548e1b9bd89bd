// What lasts is asked again: every 15 s each upgraded connection and event stream is authorised anew, with its credential, by the routes of now.
//
// An event stream is cut in the middle of its message (its client takes it for a broken connection, connects again and gets the answer that is true now: 401
// with its challenge), a WebSocket is closed with a code. So a revoked or expired token, and one whose way in an edit has taken away, ends what it began
// within 20 s; an upgraded connection whose token expires ends at that moment (upgrade.ts). Who does not answer (an issuer that is down) ends nothing.
import { authorize, type Denial } from "../identity/authorize.ts";
import { isValidAt, type ClientCertificate } from "../identity/client-certificate.ts";
import type { Exchange } from "./exchange.ts";
import { identify } from "./identify.ts";
import type { HttpState } from "./state.ts";

const CHECK_MS = 15_000;
// What has only begun was authorised a moment ago.
const MIN_AGE_MS = 5_000;
// An issuer takes so many questions at a time and no more (introspection.ts): those of new requests must not find it busy with ours, and each stream gets its turn.
const MAX_ASKED = 32;

/** `isKnown`: the caller is known, but not admitted any more. */
export type LiveEnd = { readonly code: "ERR_CREDENTIAL_ENDED" | "ERR_NOT_ADMITTED"; readonly message: string; readonly isKnown: boolean };

/** What lasts. `end` is called once at most, and `unwatch` is still due. */
export type Lasting = { readonly x: Exchange; end(why: LiveEnd): void };

const watched = new Set<Lasting>();
// Who knows a token may take longer than until the next time.
const asked = new WeakSet<Lasting>();
let timer: NodeJS.Timeout | null = null;
let isChecking = false;

/** Begins to ask. Routes that are open to everybody have nothing to ask. */
export function watchLive(lasting: Lasting): void {
  watched.add(lasting);
  timer ??= setInterval(() => void checkInTurn(), CHECK_MS).unref();
}

export function unwatchLive(lasting: Lasting): void {
  watched.delete(lasting);
  if (watched.size > 0 || timer === null) return;
  clearInterval(timer);
  timer = null;
}

/** Where the answers take longer than until the next time, that one is left out. */
async function checkInTurn(): Promise<void> {
  if (isChecking) return;
  isChecking = true;
  try {
    await checkLive(performance.now());
  } finally {
    isChecking = false;
  }
}

/** Asks for all that have lasted long enough, some at a time. Resolves when all is said. @param now by performance.now() */
export async function checkLive(now: number): Promise<void> {
  const due = [...watched].filter(({ x }) => now - x.startedMs >= MIN_AGE_MS).values();
  const work = async (): Promise<void> => {
    for (const lasting of due) await check(lasting);
  };
  await Promise.all(Array.from({ length: MAX_ASKED }, work));
}

async function check(lasting: Lasting): Promise<void> {
  if (asked.has(lasting) || !watched.has(lasting)) return;
  asked.add(lasting);
  const why = await whyEnded(lasting.x);
  asked.delete(lasting);
  try {
    if (why !== null && watched.has(lasting)) lasting.end(why);
  } catch (error) {
    lasting.x.state.log.error({ err: error, request_id: lasting.x.requestId }, "A connection could not be ended");
  }
}

/** Null: it may go on. */
async function whyEnded(x: Exchange): Promise<LiveEnd | null> {
  const state = x.state.live.current ?? x.state;
  try {
    const route = state.routes.find(x.host, x.path, x.method, x);
    if (route === null) return { code: "ERR_NOT_ADMITTED", message: "The route is not there any more", isKnown: true };
    if (route.auth === null) return null;
    return judge(authorize(route.auth, await identify(x, route, state), certificateOf(x, state), x.connection.tailnet), x);
  } catch (error) {
    // Whoever cannot be asked ends nothing; what is wrong here shows at the next request, too.
    state.log.error({ err: error, request_id: x.requestId }, "A connection could not be authorised anew");
    return null;
  }
}

function judge(found: ReturnType<typeof authorize>, { credentialExpiresAtMs }: Exchange): LiveEnd | null {
  if (!("denied" in found)) return null;
  // When it ends was known from the beginning: whoever cannot be asked now does not make it longer.
  if (found.denied === "unavailable" && credentialExpiresAtMs !== null && Date.now() >= credentialExpiresAtMs) return ENDED;
  return DENIALS[found.denied];
}

const ENDED: LiveEnd = { code: "ERR_CREDENTIAL_ENDED", message: "The credential is not valid any more", isKnown: false };
const NOT_ADMITTED: LiveEnd = { code: "ERR_NOT_ADMITTED", message: "The caller is not admitted any more", isKnown: true };
const DENIALS: Record<Denial["denied"], LiveEnd | null> = {
  no_credentials: ENDED,
  invalid_credentials: ENDED,
  unavailable: null,
  no_certificate: NOT_ADMITTED,
  certificate_not_admitted: NOT_ADMITTED,
  not_on_tailnet: NOT_ADMITTED,
  tailnet_not_admitted: NOT_ADMITTED,
  not_admitted: NOT_ADMITTED,
  insufficient_scope: NOT_ADMITTED,
};

/** As client-certificate.ts judges it, but nobody is there to be told to come again. */
function certificateOf({ connection }: Exchange, { plan }: HttpState): ClientCertificate | null {
  const { certificate, protocolKey } = connection;
  const isCurrent = "protocol" in plan.tls && plan.tls.protocol.clientAuth !== null && protocolKey === plan.tls.protocol.key;
  return certificate !== null && isCurrent && isValidAt(certificate, Date.now()) ? certificate : null;
}
