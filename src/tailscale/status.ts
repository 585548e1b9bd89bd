// What is told of the tailnet: flat data for `status`, `/ready` and the metrics. Never a secret.

/**
 * `off`: no tailscaled runs (it is being started or restarted). `needs_login`: somebody must open `login_url`, or a key must come. `needs_approval`: an
 * administrator of the tailnet must approve the node. `stopped`: logged out by command, or told to be down. `expired`: the node's key is.
 */
export type TailnetState = "off" | "starting" | "needs_login" | "needs_approval" | "stopped" | "expired" | "running";

/** Times are ISO 8601. */
export type TailnetStatus = {
  /** `external`: the tailscaled of somebody else. */
  readonly mode: "userspace" | "tun" | "external";
  readonly state: TailnetState;
  /** What is wrong and what to do; empty when nothing is. Several sentences are parted by "; ". */
  readonly reason: string;
  /** Whether connections from the tailnet can be served: it runs, and is sealed where it must be. */
  readonly serving: boolean;
  /** What works, and yet not as wished: another name was granted, a tag is missing, the key will expire. */
  readonly warnings: readonly string[];
  /** Null when nobody needs to log in. */
  readonly login_url: string | null;
  /** The name asked for; null: the machine's. */
  readonly hostname: string | null;
  /** The name granted, without the final dot; empty before there is one. */
  readonly name: string;
  readonly tailnet: string;
  readonly addresses: readonly string[];
  /** Login name of the node's user; null for a tagged node. */
  readonly user: string | null;
  readonly tags: readonly string[];
  /** Null: it does not expire. */
  readonly key_expires_at: string | null;
  /** Version of tailscaled; empty while it is not known. */
  readonly version: string;
  readonly socket: string;
  /** How often tailscaled had to be started again. */
  readonly restarts: number;
  readonly seal: {
    readonly enabled: boolean;
    /** Whether every undeclared port is refused now. */
    readonly active: boolean;
    /** Ports that listeners open. */
    readonly open: readonly number[];
    /** How many ports are refused. */
    readonly refused: number;
    /** Ports that another program serves by its own serve config; they are left alone. */
    readonly foreign: readonly number[];
    /** Why it could not be set; empty when it could. */
    readonly error: string;
  };
};
