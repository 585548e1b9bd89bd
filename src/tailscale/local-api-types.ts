// What tailscaled's LocalAPI says, as far as it is used here. Unknown fields are ignored, and those that are missing have the value of their absence.

/** State of tailscaled (ipn.State), as `status` names it. */
export type BackendState = "NoState" | "InUseOtherUser" | "NeedsLogin" | "NeedsMachineAuth" | "Stopped" | "Starting" | "Running";

/** `GET status?peers=false`. */
export type LocalStatus = {
  readonly version: string;
  /** Whether a kernel interface is in use. */
  readonly tun: boolean;
  readonly state: BackendState;
  readonly haveNodeKey: boolean;
  /** Empty when nobody is asked to log in. */
  readonly authUrl: string;
  readonly addresses: readonly string[];
  /** Null before there is a network map. */
  readonly self: {
    readonly id: string;
    /** Whole name, lower case, without the final dot. */
    readonly dnsName: string;
    readonly hostName: string;
    readonly user: string | null;
    readonly tags: readonly string[];
    /** Null: it does not expire. */
    readonly keyExpiry: Date | null;
    readonly expired: boolean;
  } | null;
  /** Name of the tailnet and suffix of its names, without dots around; empty before there is a network map. */
  readonly tailnet: string;
  readonly suffix: string;
  /** Names that `cert/` gives certificates for. */
  readonly certDomains: readonly string[];
  /** What tailscaled finds wrong, as sentences. */
  readonly health: readonly string[];
};

/** The preferences that are set here (ipn.Prefs), by their names there. */
export type LocalPrefs = {
  readonly ControlURL: string;
  readonly WantRunning: boolean;
  readonly LoggedOut: boolean;
  readonly ShieldsUp: boolean;
  readonly Hostname: string;
  readonly AdvertiseTags: readonly string[];
  readonly AdvertiseRoutes: readonly string[];
  readonly CorpDNS: boolean;
  readonly RouteAll: boolean;
  readonly ExitNodeIP: string;
  readonly ExitNodeID: string;
  readonly ExitNodeAllowLANAccess: boolean;
  readonly NoSNAT: boolean;
  readonly NoStatefulFiltering: boolean;
  readonly AppConnector: { readonly Advertise: boolean };
  readonly PostureChecking: boolean;
  readonly OperatorUser: string;
  readonly RunSSH: boolean;
  readonly RunWebClient: boolean;
};

/** ipn.ServeConfig, as far as it is looked at; the rest is kept as it came. */
export type ServeConfig = {
  readonly TCP?: Readonly<Record<string, { readonly TCPForward?: string; readonly [key: string]: unknown }>> | null;
  readonly Foreground?: Readonly<Record<string, ServeConfig>> | null;
  readonly [key: string]: unknown;
};

/**
 * One line of the bus (ipn.Notify) that tells something. Fields that did not come are undefined. Each is a reason to look at `status` again: the login URL of a
 * login that another process asked for does not come here at all.
 */
export type BusMessage = {
  /** In the first one alone. */
  readonly sessionId?: string;
  readonly state?: BackendState;
  readonly error?: string;
  readonly loginUrl?: string;
  readonly prefsChanged: boolean;
  /** That a whole network map came, or the node itself changed; peers that change by themselves are not told. */
  readonly netMapChanged: boolean;
  readonly loginFinished: boolean;
  readonly healthChanged: boolean;
};

/** What `whois` says of an address; null there = nobody. */
export type WhoIs = {
  readonly id: string;
  /** Whole name, lower case, without the final dot. */
  readonly name: string;
  readonly addresses: readonly string[];
  readonly tags: readonly string[];
  /** Login name, lower case; null when tailscaled knows no user. Of a tagged node it means nothing. */
  readonly user: string | null;
  /** The node's key has expired, or the control server says so. */
  readonly expired: boolean;
};

/**
 * What is asked of tailscaled. All reject with a `LocalApiError`, within `timeoutMs` of the client; what is slow (serve config, logout) within 6 times that,
 * certificates within 18 times.
 */
export type LocalApi = {
  readonly socket: string;
  status(): Promise<LocalStatus>;
  /**
   * A few are asked at once, the others wait within their time limit: tailscaled takes 180 ms to say that it is nobody.
   * @param address `IP:PORT` (`[IP]:PORT`) of a TCP connection, or an IP of a node alone; IPv4 never as `::ffff:`
   */
  whois(address: string): Promise<WhoIs | null>;
  prefs(): Promise<LocalPrefs>;
  /** Changes the given ones and no others. */
  editPrefs(prefs: Partial<LocalPrefs>): Promise<LocalPrefs>;
  /**
   * Starts the backend anew. A node that is logged out does not log in by this: the key waits for `loginInteractive`.
   * @param authKey empty = none. @param prefs merged into the present ones.
   */
  start(authKey: string, prefs: Partial<LocalPrefs>): Promise<void>;
  /** Logs in with the key of `start`; without one asks for a URL, which comes over the bus and with `status`. */
  loginInteractive(): Promise<void>;
  /** Tells the control server, and forgets the profile: all preferences have their defaults afterwards. */
  logout(): Promise<void>;
  serveConfig(): Promise<{ readonly config: ServeConfig; readonly etag: string }>;
  /** Whether the serve config is still the one with this ETag: its 3 MB are not parsed. */
  isServeConfig(etag: string): Promise<boolean>;
  /** @throws {LocalApiError} with `status` 412 when somebody changed it since */
  setServeConfig(config: ServeConfig, etag: string): Promise<void>;
  /** PEM of the chain and of the key; may take a minute. @throws {LocalApiError} with `retryAfterMs` when the CA has had enough */
  certificate(domain: string, minValidityMs: number): Promise<{ readonly cert: string; readonly key: string }>;
  /**
   * Follows the bus; the first message comes at once and tells the present state. Resolves when the signal aborts or tailscaled ends the stream, rejects when
   * it cannot be had or breaks off. Only its beginning has a time limit.
   */
  watch(onMessage: (message: BusMessage) => void, signal: AbortSignal): Promise<void>;
  /** Ends calls that are under way, and all connections. */
  close(): Promise<void>;
};
