// The tailnet of the gateway: what runs tailscaled is loaded when a plan first wants it, and a gateway without one starts without it.
import { GatewayError } from "./lib/errors.ts";
import type { TailnetAccess, TailnetPeer } from "./lib/tailnet-peer.ts";
import type { TailscalePlan } from "./plan/model.ts";
import type { Tailnet } from "./tailscale/tailnet.ts";
import type { TailnetStatus } from "./tailscale/status.ts";
import type { Log } from "./telemetry/log.ts";

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

  /** Loads what the plan needs; changes nothing that serves. */
  async prepare(plan: TailscalePlan | null): Promise<void> {
    if (plan === null || this.status() !== null) return;
    this.#hosts = plan.kind === "own" && !plan.tun ? ["127.0.0.1"] : [];
    if (this.#tailnet !== null) return;
    const { Tailnet } = await import("./tailscale/tailnet.ts");
    this.#tailnet = new Tailnet(this.#options);
  }

  /** Before a plan is committed: refuses the ports that it does not open any more, so that nothing else answers on them in between. */
  async sealAhead(plan: TailscalePlan | null): Promise<void> {
    await this.#tailnet?.sealAhead(new Set(plan?.ports));
  }

  /** Joins, changes what differs, or leaves, in the background. */
  apply(plan: TailscalePlan | null): void {
    this.#hosts = null;
    this.#tailnet?.apply(plan);
  }

  whois(address: string, port: number): Promise<TailnetPeer | null> {
    return this.#tailnet?.whois(address, port) ?? Promise.resolve(null);
  }

  node(address: string): Promise<TailnetPeer | null | undefined> {
    return this.#tailnet?.node(address) ?? Promise.resolve(undefined);
  }

  status(): TailnetStatus | null {
    return this.#tailnet?.status() ?? null;
  }

  certificate(domain: string, minValidityMs: number): Promise<{ readonly cert: string; readonly key: string }> {
    if (this.#tailnet === null) return Promise.reject(new GatewayError("ERR_TAILNET", "Nothing is on the tailnet"));
    return this.#tailnet.certificate(domain, minValidityMs);
  }

  async logout(): Promise<{ readonly ok: boolean; readonly message: string }> {
    return (await this.#tailnet?.logout()) ?? { ok: false, message: "Nothing is on the tailnet: there is no 'tailscale' section and no 'tailnet:' listener" };
  }

  async close(): Promise<void> {
    await this.#tailnet?.close();
  }
}
