// The plan as preferences of tailscaled (ipn.Prefs), and what of them differs from the present ones.
import type { TailscaleNodePlan } from "../plan/model.ts";
import type { LocalPrefs } from "./local-api-types.ts";

/** All that the plan sets. ShieldsUp, WantRunning and LoggedOut are not among them: those depend on how far joining and the seal have come. */
export type PlannedPrefs = Omit<LocalPrefs, "ShieldsUp" | "WantRunning" | "LoggedOut">;

// Names of one and the same server (ipn.IsLoginServerSynonym).
const OWN_CONTROL = new Set(["", "https://login.tailscale.com", "https://controlplane.tailscale.com"]);

/** What the plan asks for. Preferences that the file cannot name have the value that opens no further door. */
export function plannedPrefs(plan: TailscaleNodePlan): PlannedPrefs {
  const { flags } = plan;
  return {
    ControlURL: plan.controlUrl ?? "",
    Hostname: plan.hostname ?? "",
    AdvertiseTags: plan.tags,
    AdvertiseRoutes: flags.advertiseRoutes,
    CorpDNS: plan.acceptDns,
    RouteAll: flags.acceptRoutes,
    ExitNodeIP: flags.exitNode ?? "",
    ExitNodeID: "",
    ExitNodeAllowLANAccess: flags.exitNodeAllowLanAccess,
    NoSNAT: !flags.snatSubnetRoutes,
    NoStatefulFiltering: !flags.statefulFiltering,
    AppConnector: { Advertise: flags.advertiseConnector },
    PostureChecking: flags.reportPosture,
    OperatorUser: flags.operator ?? "",
    // Tailscale's SSH server and web client answer inside tailscaled, before any serve config.
    RunSSH: false,
    RunWebClient: false,
  };
}

/**
 * What must be told to a node that is logged in. The control server is not among it: that is another network, which needs another login.
 * @param exitNodeId stable id of the node that has the address of the plan's exit node, as far as it is known: tailscaled replaces the address by it
 */
export function differingPrefs(plan: TailscaleNodePlan, present: LocalPrefs, exitNodeId: string | null): Partial<LocalPrefs> {
  const { ControlURL: _, ...wanted } = plannedPrefs(plan);
  const isResolved = wanted.ExitNodeIP !== "" && present.ExitNodeIP === "" && present.ExitNodeID !== "" && present.ExitNodeID === exitNodeId;
  const differing = Object.entries(wanted).filter(([name, value]) => {
    // Taking all tags away ends the login at the control server: none in the file means those that there are.
    if (name === "AdvertiseTags" && plan.tags.length === 0) return false;
    if (isResolved && (name === "ExitNodeIP" || name === "ExitNodeID")) return false;
    return normal(value) !== normal(present[name as keyof LocalPrefs]);
  });
  return Object.fromEntries(differing);
}

/** Whether the two name the same control server. Null and the empty text are Tailscale's own. */
export function isSameControl(a: string | null, b: string | null): boolean {
  return controlName(a) === controlName(b);
}

function controlName(url: string | null): string {
  const plain = (url ?? "").toLowerCase().replace(/\/+$/, "");
  return OWN_CONTROL.has(plain) ? "" : plain;
}

// The order of tags and routes means nothing, and tailscaled sorts some of them.
function normal(value: unknown): string {
  return JSON.stringify(Array.isArray(value) ? (value as string[]).toSorted() : value);
}
