// The tailnet of the gateway: what runs tailscaled is loaded when a plan first wants it, and a gateway without one starts without it.
import { isIP } from "node:net";
import { isHostName } from "./lib/address.ts";
import { GatewayError } from "./lib/errors.ts";
import { untilAborted } from "./lib/until-aborted.ts";
import type { TailnetAccess, TailnetPeer } from "./lib/tailnet-peer.ts";
import type { Plan, TailscalePlan } from "./plan/model.ts";
import type { Tailnet } from "./tailscale/tailnet.ts";
import type { TailnetStatus } from "./tailscale/status.ts";
import type { Log } from "./telemetry/log.ts";

const AHEAD_MS = 3_000;
const TAKEN_MS = 30_000;

type Options = {
  readonly log: Log;
  readonly pid: number;
  /** Of the gateway: tailscaled gets what it reads of it. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The state of the tailnet or of the node in it changed. */
  readonly onChange: () => void;
  /** `hosts` changed. */
  readonly onHosts: () => void;
};

export class GatewayTailnet implements TailnetAccess {
  readonly #options: Options;
  #tailnet: Tailnet | null = null;
  /** Of the plan that serves. */
  #ports: readonly number[] = [];
  /** What `hosts` will be with the plan that is being prepared, when nothing is on the tailnet yet; null = the tailnet knows. */
  #hosts: readonly string[] | null = [];

  constructor(options: Options) {
    this.#options = options;
  }

  get hosts(): readonly string[] {
    return this.#hosts ?? this.#tailnet?.hosts ?? [];
  }

  /** Whether the node is on the tailnet. */
  runs(): boolean {
    return this.#tailnet?.status()?.state === "running";
  }

  /** Names that tailscaled gives certificates for. */
  domains(): readonly string[] {
    return this.#tailnet?.certDomains ?? [];
  }

  /** What clients in the tailnet call the node: its whole name and the first label of that, and its addresses. Empty while they are not known. */
  names(): readonly string[] {
    const { name = "", addresses = [] } = this.status() ?? {};
    // The control server says them, and they go into certificates.
    return [...(isHostName(name) ? new Set([name, name.split(".")[0] ?? ""]) : []), ...addresses.filter((address) => isIP(address) !== 0)];
  }

  /** Loads what the plan needs; changes nothing that serves. */
  async prepare(plan: TailscalePlan | null): Promise<void> {
    if (plan === null || this.status() !== null) return;
    this.#hosts = plan.kind === "own" && !plan.tun ? ["127.0.0.1"] : [];
    if (this.#tailnet !== null) return;
    const { Tailnet } = await import("./tailscale/tailnet.ts");
    this.#tailnet = new Tailnet(this.#options);
  }

  /**
   * Before a plan is committed: refuses the ports that it does not open any more, so that nothing else answers on them in between.
   * @throws {GatewayError} when such a port becomes a port of this machine and is not proven to be refused: its clients would pass for local ones.
   * `apply` must follow in any case, unless the signal was aborted: then it resolves at once.
   */
  async sealAhead({ tailscale, listeners, admin }: Plan, signal: AbortSignal): Promise<void> {
    const wanted = new Set(tailscale?.ports);
    const local = [admin, ...[...listeners.values()].map(({ listen }) => listen)].flatMap((address) => (address.kind === "tcp" ? [address.port] : []));
    const taken = this.#ports.find((port) => !wanted.has(port) && local.includes(port));
    const sealing = this.#tailnet?.sealAhead(wanted, taken === undefined ? AHEAD_MS : TAKEN_MS) ?? Promise.resolve(true);
    const isSealed = await untilAborted(sealing, signal).catch(() => false);
    if (!isSealed && taken !== undefined && !signal.aborted)
      throw new GatewayError(
        "ERR_TAILNET_SEAL",
        `Port ${taken} is still open to the tailnet, and cannot become one of this machine: try again, or take another port`,
      );
  }

  /** Joins, changes what differs, or leaves, in the background. */
  apply(plan: TailscalePlan | null): void {
    this.#hosts = null;
    this.#ports = plan?.ports ?? [];
    this.#tailnet?.apply(plan);
  }

  get proves(): boolean {
    return this.#tailnet?.proves ?? false;
  }

  whois(address: string, port: number, localPort: number, isDoubtful: boolean): Promise<TailnetPeer | null> {
    return this.#tailnet?.whois(address, port, localPort, isDoubtful) ?? Promise.resolve(null);
  }

  node(address: string): Promise<TailnetPeer | null | undefined> {
    return this.#tailnet?.node(address) ?? Promise.resolve(undefined);
  }

  status(): TailnetStatus | null {
    return this.#tailnet?.status() ?? null;
  }

  certificate(domain: string, minValidityMs: number): Promise<{ readonly cert: string; readonly key: string }> {
    return this.#tailnet?.certificate(domain, minValidityMs) ?? Promise.reject(new GatewayError("ERR_TAILNET", "Nothing is on the tailnet"));
  }

  async logout(): Promise<{ readonly ok: boolean; readonly message: string }> {
    return (await this.#tailnet?.logout()) ?? { ok: false, message: "Nothing is on the tailnet: there is no 'tailscale' section and no 'tailnet:' listener" };
  }

  async close(): Promise<void> {
    await this.#tailnet?.close();
  }
}
