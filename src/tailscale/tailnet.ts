// The node's place in the tailnet: which tailscaled serves the plan, and what the rest of the gateway asks of it.
import { isDeepStrictEqual } from "node:util";
import { isLoopback, plainIp } from "../lib/address.ts";
import type { TailnetAccess, TailnetPeer } from "../lib/tailnet-peer.ts";
import type { TailscalePlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import { startDaemon } from "./daemon.ts";
import { openLocalApi } from "./local-api.ts";
import { resolveAuthKey } from "./oauth-key.ts";
import { Session } from "./session.ts";
import type { SessionTools } from "./session-tools.ts";
import { pictureBefore } from "./picture.ts";
import { SocketOwner } from "./socket-owner.ts";
import type { TailnetStatus } from "./status.ts";
import { WhoIsDesk } from "./whois.ts";

type Options = {
  readonly log: Log;
  readonly pid: number;
  /** Of the gateway. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The status changed. */
  readonly onChange?: () => void;
  /** `hosts` changed. */
  readonly onHosts?: () => void;
};

const TICK_MS = 5_000;
const KNOCKING_MS = 10_000;
const USERSPACE_HOSTS: readonly string[] = ["127.0.0.1"];
const NO_HOSTS: readonly string[] = [];

export class Tailnet implements TailnetAccess {
  readonly #options: Options;
  readonly #tools: SessionTools;
  readonly #desk: WhoIsDesk;
  readonly #owner = new SocketOwner(() => this.#session?.pid ?? null);
  #plan: TailscalePlan | null = null;
  #session: Session | null = null;
  /** A session ends before the next one begins: they may share a state directory. */
  #turn: Promise<void> = Promise.resolve();
  #hosts = NO_HOSTS;
  #isClosed = false;
  /** When tailscaled knew nobody last. */
  #nobodyAt = -Infinity;

  constructor(options: Options, tools: Partial<SessionTools> = {}) {
    const { log, pid, env = {}, onChange } = options;
    this.#options = options;
    this.#tools = {
      log,
      pid,
      env,
      openLocalApi: (socket) => openLocalApi(socket),
      startDaemon,
      resolveAuthKey,
      tickMs: TICK_MS,
      ...tools,
      onStatus: () => {
        this.#updateHosts();
        onChange?.();
      },
    };
    this.#desk = new WhoIsDesk(() => {
      const session = this.#session;
      const local = session?.local ?? null;
      if (session === null || local === null || local.self === null || !session.status.serving) return null;
      return { api: session.api, selfId: local.self.id, suffix: local.suffix };
    }, log);
  }

  get hosts(): readonly string[] {
    return this.#hosts;
  }

  get certDomains(): readonly string[] {
    return this.#session?.local?.certDomains ?? [];
  }

  /** Converges in the background: joins, changes what differs, or leaves. Never throws. To be called after the sockets of the plan listen. */
  apply(plan: TailscalePlan | null): void {
    if (this.#isClosed) return;
    this.#plan = plan;
    if (plan !== null && this.#session?.suits(plan) === true) this.#session.apply(plan);
    else
      this.#turn = this.#turn
        .then(() => this.#switch())
        .catch((error: unknown) => this.#options.log.error({ err: error }, "The tailnet could not be switched"));
    this.#updateHosts();
  }

  /**
   * Before sockets close: refuses the ports that are not in the set; `apply` must follow.
   * @returns whether they are, or nobody can get in at all; false when that could not be proven in time
   */
  async sealAhead(ports: ReadonlySet<number>, timeoutMs: number): Promise<boolean> {
    return (await this.#session?.sealAhead(ports, timeoutMs)) ?? true;
  }

  /** Of the tailscaled that is ours, in userspace mode, where /proc tells. */
  get proves(): boolean {
    return this.#isOurs && this.#owner.isAble;
  }

  async whois(address: string, port: number, localPort: number, isDoubtful: boolean): Promise<TailnetPeer | null> {
    if (isLoopback({ kind: "tcp", host: plainIp(address) })) {
      const now = performance.now();
      // Without a seal tailscaled knows connections that never came here. And a process that knocks again and again is told apart without tailscaled, which
      // takes 180 ms to know nothing, and knows nobody meanwhile.
      const isLooked = isDoubtful || this.#plan?.seal === false || now - this.#nobodyAt < KNOCKING_MS;
      const isHeld = isLooked && this.#isOurs ? await this.#owner.owns(port, localPort) : null;
      if (isHeld === false || (isHeld === null && isDoubtful)) return null;
    }
    const peer = await this.#desk.whois(address, port);
    if (peer === null) this.#nobodyAt = performance.now();
    return peer;
  }

  node(address: string): Promise<TailnetPeer | null | undefined> {
    return this.#desk.node(address);
  }

  /** Null when nothing is on the tailnet. */
  status(): TailnetStatus | null {
    return this.#plan === null ? null : (this.#session?.status ?? pictureBefore(this.#plan));
  }

  /** Null when nothing is on the tailnet; rejects with a `LocalApiError` when tailscaled has none or does not answer. */
  certificate(domain: string, minValidityMs: number): Promise<{ readonly cert: string; readonly key: string }> | null {
    return this.#session?.api.certificate(domain, minValidityMs) ?? null;
  }

  /** Leaves the tailnet until the gateway starts again or the plan has another key or control server. Null when nothing is there. */
  async logout(): Promise<{ readonly ok: boolean; readonly message: string } | null> {
    return (await this.#session?.logout()) ?? null;
  }

  /** Ends all; an ephemeral node logs out. Bounded, never rejects. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#plan = null;
    this.#turn = this.#turn.then(() => this.#end(true));
    await this.#turn;
  }

  async #switch(): Promise<void> {
    const plan = this.#plan;
    if (plan !== null && this.#session?.suits(plan) === true) {
      this.#session.apply(plan);
      return;
    }
    // Another mode keeps the node; another state directory is another node.
    await this.#end(plan?.kind !== "own" || plan.stateDir !== this.#session?.stateDir);
    const next = this.#plan;
    if (next !== null && !this.#isClosed) this.#session = new Session(next, this.#tools);
    this.#tools.onStatus();
  }

  async #end(isLeaving: boolean): Promise<void> {
    const session = this.#session;
    await session?.stop(isLeaving);
    if (this.#session === session) this.#session = null;
  }

  get #isOurs(): boolean {
    return this.#plan?.kind === "own" && !this.#plan.tun;
  }

  #updateHosts(): void {
    const plan = this.#plan;
    const local = this.#session?.local ?? null;
    let hosts = NO_HOSTS;
    if (plan !== null) {
      const hasTun = plan.kind === "own" ? plan.tun : local?.tun;
      if (hasTun === false) hosts = USERSPACE_HOSTS;
      // Addresses stay while tailscaled is away: sockets on them need not be closed for that.
      else if (hasTun === true)
        hosts = local !== null && local.addresses.length > 0 ? local.addresses : this.#hosts === USERSPACE_HOSTS ? NO_HOSTS : this.#hosts;
      else hosts = this.#hosts;
    }
    if (isDeepStrictEqual(hosts, this.#hosts)) return;
    this.#hosts = hosts;
    this.#options.onHosts?.();
  }
}
