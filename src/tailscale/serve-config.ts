// The seal as a serve config: every TCP port that no listener opens is forwarded to where nothing can ever listen.
import type { ServeConfig } from "./local-api-types.ts";

// Port 0 cannot be listened on, and dialling it is refused at once. A real port, such as 1, could be taken by any local process.
const REFUSED = "127.0.0.1:0";
const LAST_PORT = 65_535;

type Handler = NonNullable<ServeConfig["TCP"]>[string];
type Handlers = Record<string, Handler>;

export type Seal = {
  readonly config: ServeConfig;
  /** Whether `config` differs from what was there. */
  readonly changed: boolean;
  readonly refused: number;
  /** Ports that somebody else serves, in ascending order; their entries stay. */
  readonly foreign: readonly number[];
};

/**
 * The config that refuses every port but the open ones, and leaves to others what is theirs.
 * @param sessionId null: in the lasting part. Otherwise in the entry of this session of the bus, which vanishes with the session.
 */
export function sealedConfig(present: ServeConfig, open: ReadonlySet<number>, sessionId: string | null): Seal {
  const sessions = present.Foreground ?? {};
  const others = new Set<number>();
  // A lasting entry must not name a port of a session, nor the other way round: tailscaled refuses such a config.
  for (const [id, session] of Object.entries(sessions)) if (id !== sessionId) addPorts(others, session.TCP, sessionId === null);
  addPorts(others, present.TCP, sessionId !== null);
  const before = (sessionId === null ? present.TCP : sessions[sessionId]?.TCP) ?? {};
  const after: Handlers = {};
  for (const [port, handler] of Object.entries(before)) if (!isOurs(handler)) after[port] = handler;
  let changed = false;
  let refused = 0;
  for (let port = 1; port <= LAST_PORT; port += 1) {
    const handler = before[port];
    const had = handler !== undefined && isOurs(handler);
    const wanted = !open.has(port) && !others.has(port) && (handler === undefined || had);
    if (wanted) {
      after[port] = had ? handler : { TCPForward: REFUSED };
      refused += 1;
    }
    if (had !== wanted) changed = true;
  }
  const foreign = foreignPorts(present, sessionId);
  if (!changed) return { config: present, changed, refused, foreign };
  return { config: withHandlers(present, sessionId, after), changed, refused, foreign };
}

/** The config without our lasting entries. */
export function unsealedConfig(present: ServeConfig): Seal {
  const entries = Object.entries(present.TCP ?? {});
  const kept = entries.filter(([, handler]) => !isOurs(handler));
  const changed = kept.length < entries.length;
  return { config: changed ? withHandlers(present, null, Object.fromEntries(kept)) : present, changed, refused: 0, foreign: foreignPorts(present, null) };
}

/** What others serve, our own session aside. */
function foreignPorts(present: ServeConfig, sessionId: string | null): number[] {
  const ports = new Set<number>();
  addPorts(ports, present.TCP, false);
  for (const [id, session] of Object.entries(present.Foreground ?? {})) if (id !== sessionId) addPorts(ports, session.TCP, false);
  return [...ports].toSorted((a, b) => a - b);
}

function addPorts(ports: Set<number>, handlers: ServeConfig["TCP"], withOurs: boolean): void {
  for (const [port, handler] of Object.entries(handlers ?? {})) if (withOurs || !isOurs(handler)) ports.add(Number(port));
}

function withHandlers(present: ServeConfig, sessionId: string | null, handlers: Handlers): ServeConfig {
  if (sessionId === null) return { ...present, TCP: handlers };
  const sessions = present.Foreground ?? {};
  return { ...present, Foreground: { ...sessions, [sessionId]: { ...sessions[sessionId], TCP: handlers } } };
}

/** An entry is ours when it forwards to that place and says nothing else. */
function isOurs(handler: Handler): boolean {
  return (
    handler.TCPForward === REFUSED && Object.entries(handler).every(([key, value]) => key === "TCPForward" || value === "" || value === 0 || value === false)
  );
}
