// A tailscaled of the imagination: a LocalApi whose state a test writes, and that notes what it was told.
import { randomBytes } from "node:crypto";
import type { BusMessage, LocalApi, LocalPrefs, LocalStatus, ServeConfig, WhoIs } from "../../src/tailscale/local-api-types.ts";
import { LocalApiError } from "../../src/tailscale/local-api-error.ts";
import { parseTailscaleFlags } from "../../src/lib/tailscale-flags.ts";
import type { TailscaleNodePlan, TailscalePlan } from "../../src/plan/model.ts";

/** A node of our own that seals and opens port 4003; `what` says where it differs. */
export function nodePlan(what: Partial<TailscaleNodePlan & { ports: readonly number[] }> = {}): TailscaleNodePlan & TailscalePlan {
  return {
    kind: "own",
    hostname: "gw",
    authKey: "tskey-auth-one",
    tags: [],
    controlUrl: "http://control.test",
    acceptDns: false,
    ephemeral: false,
    timeoutMs: 60_000,
    seal: true,
    tun: false,
    stateDir: "/nowhere",
    flags: parseTailscaleFlags([]).flags,
    ports: [4003],
    ...what,
  };
}

export const FRESH_STATUS: LocalStatus = {
  version: "1.0",
  tun: false,
  state: "NeedsLogin",
  haveNodeKey: false,
  authUrl: "",
  addresses: [],
  self: null,
  tailnet: "",
  suffix: "",
  certDomains: [],
  health: [],
};

export const RUNNING_STATUS: LocalStatus = {
  ...FRESH_STATUS,
  state: "Running",
  haveNodeKey: true,
  addresses: ["100.64.0.1"],
  self: { id: "n1", dnsName: "gw.tail.test", hostName: "gw", user: "alice@example.com", tags: [], keyExpiry: null, expired: false },
  tailnet: "example.com",
  suffix: "tail.test",
};

export const FRESH_PREFS: LocalPrefs = {
  ControlURL: "",
  WantRunning: false,
  LoggedOut: true,
  ShieldsUp: false,
  Hostname: "",
  AdvertiseTags: [],
  AdvertiseRoutes: [],
  CorpDNS: true,
  RouteAll: false,
  ExitNodeIP: "",
  ExitNodeID: "",
  ExitNodeAllowLANAccess: false,
  NoSNAT: false,
  NoStatefulFiltering: true,
  AppConnector: { Advertise: false },
  PostureChecking: false,
  OperatorUser: "",
  RunSSH: false,
  RunWebClient: false,
};

export const noAnswer = (): LocalApiError => new LocalApiError("timeout", "tailscaled did not answer");

/** `on` is called with each call before it is answered, and may throw in its place. */
export class FakeLocalApi implements LocalApi {
  readonly socket = "/nowhere/tailscaled.sock";
  /** Calls that change something, in their order; `edit` and `start` with what they set. */
  readonly told: string[] = [];
  present: LocalStatus = FRESH_STATUS;
  settings: LocalPrefs = FRESH_PREFS;
  serve: ServeConfig = {};
  peers = new Map<string, WhoIs>();
  on: (call: string) => void | Promise<void> = () => {};
  #etag = 0;
  #send: ((message: BusMessage) => void) | null = null;

  say(message: Partial<BusMessage>): void {
    this.#send?.({ prefsChanged: false, netMapChanged: false, loginFinished: false, healthChanged: false, ...message });
  }

  /** As another program would. */
  changeServe(config: ServeConfig): void {
    this.serve = config;
    this.#etag += 1;
  }

  async status(): Promise<LocalStatus> {
    await this.on("status");
    return this.present;
  }

  async whois(address: string): Promise<WhoIs | null> {
    await this.on(`whois ${address}`);
    return this.peers.get(address) ?? null;
  }

  async prefs(): Promise<LocalPrefs> {
    await this.on("prefs");
    return this.settings;
  }

  async editPrefs(prefs: Partial<LocalPrefs>): Promise<LocalPrefs> {
    await this.#change(`edit ${JSON.stringify(prefs)}`);
    this.settings = { ...this.settings, ...prefs };
    return this.settings;
  }

  async start(authKey: string, prefs: Partial<LocalPrefs>): Promise<void> {
    await this.#change(`start ${authKey}`);
    this.settings = { ...this.settings, ...prefs };
  }

  loginInteractive(): Promise<void> {
    return this.#change("login");
  }

  async logout(): Promise<void> {
    await this.#change("logout");
    this.present = FRESH_STATUS;
    this.settings = FRESH_PREFS;
    this.serve = {};
  }

  async serveConfig(): Promise<{ readonly config: ServeConfig; readonly etag: string }> {
    await this.on("serveConfig");
    return { config: structuredClone(this.serve), etag: String(this.#etag) };
  }

  async isServeConfig(etag: string): Promise<boolean> {
    await this.on("isServeConfig");
    return etag === String(this.#etag);
  }

  async setServeConfig(config: ServeConfig, etag: string): Promise<void> {
    await this.#change("seal");
    if (etag !== String(this.#etag)) throw new LocalApiError("refused", "etag mismatch", { status: 412 });
    this.changeServe(structuredClone(config));
  }

  async certificate(): Promise<{ readonly cert: string; readonly key: string }> {
    throw noAnswer();
  }

  async watch(onMessage: (message: BusMessage) => void, signal: AbortSignal): Promise<void> {
    const sessionId = randomBytes(8).toString("hex");
    this.#send = onMessage;
    this.say({ sessionId });
    const { promise, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve());
    await promise;
    if (this.serve.Foreground?.[sessionId] === undefined) return;
    const { [sessionId]: _, ...others } = this.serve.Foreground;
    this.changeServe({ ...this.serve, Foreground: others });
  }

  async close(): Promise<void> {}

  async #change(what: string): Promise<void> {
    this.told.push(what);
    await this.on(what);
  }
}
