// tailscaled's answers as our types.
import { printable } from "../lib/printable.ts";
import { FieldError, Fields } from "./local-api-fields.ts";
import type { BackendState, BusMessage, LocalPrefs, LocalStatus, ServeConfig, WhoIs } from "./local-api-types.ts";

/** In the order of their numbers (ipn.State). */
const STATES: readonly BackendState[] = ["NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running"];

// The control server adds texts of its own (tailcfg.MapResponse.DisplayMessages); all that complain are logged and shown.
const MAX_HEALTH = 20;

/** @throws {FieldError} as all of this file */
export function parseStatus(text: string, nowMs: number = Date.now()): LocalStatus {
  const status = Fields.parse(text);
  const self = status.object("Self");
  const tailnet = status.object("CurrentTailnet");
  return {
    version: status.text("Version"),
    tun: status.flag("TUN"),
    state: stateNamed(status.text("BackendState")),
    haveNodeKey: status.flag("HaveNodeKey"),
    authUrl: webUrl(status.text("AuthURL")),
    addresses: status.texts("TailscaleIPs"),
    // Without a network map it is there, with the machine's name and no identity (seen, 1.102.5).
    self: self === null || self.text("ID") === "" ? null : parseSelf(self, status.object("User"), nowMs),
    tailnet: tailnet?.text("Name") ?? "",
    suffix: plainName(tailnet?.text("MagicDNSSuffix") ?? ""),
    certDomains: status.texts("CertDomains").map(plainName),
    health: status
      .texts("Health")
      .slice(0, MAX_HEALTH)
      .map((text) => printable(text)),
  };
}

function parseSelf(self: Fields, users: Fields | null, nowMs: number): NonNullable<LocalStatus["self"]> {
  const tags = lowerCase(self.texts("Tags"));
  const keyExpiry = self.time("KeyExpiry");
  return {
    id: self.text("ID"),
    dnsName: plainName(self.text("DNSName")),
    hostName: self.text("HostName"),
    // A tagged node belongs to nobody; it has a user "tagged-devices".
    user: tags.length > 0 ? null : loginName(userOf(self, users)),
    tags,
    keyExpiry,
    // tailscaled marks others as expired, and not the node itself (seen, 1.102.5).
    expired: self.flag("Expired") || isPast(keyExpiry, nowMs),
  };
}

/** Ids have 64 bits, which JavaScript's numbers do not hold: two that look alike are nobody's. */
function userOf(self: Fields, users: Fields | null): Fields | null {
  const ids = Object.keys(users?.raw ?? {}).filter((id) => Number(id) === self.number("UserID"));
  return ids.length === 1 ? (users?.object(ids[0] ?? "") ?? null) : null;
}

export function parseWhoIs(text: string, nowMs: number = Date.now()): WhoIs {
  const answer = Fields.parse(text);
  const node = answer.object("Node");
  // An identity is never guessed at: whoever has none is no peer.
  if (node === null || node.text("StableID") === "") throw new FieldError("'Node.StableID' is missing");
  return {
    id: node.text("StableID"),
    name: plainName(node.text("Name")),
    addresses: node.texts("Addresses").map((prefix) => prefix.replace(/\/\d+$/, "")),
    tags: lowerCase(node.texts("Tags")),
    user: loginName(answer.object("UserProfile")),
    expired: node.flag("Expired") || isPast(node.time("KeyExpiry"), nowMs),
  };
}

export function parsePrefs(text: string): LocalPrefs {
  const prefs = Fields.parse(text);
  return {
    ControlURL: prefs.text("ControlURL"),
    WantRunning: prefs.flag("WantRunning"),
    LoggedOut: prefs.flag("LoggedOut"),
    ShieldsUp: prefs.flag("ShieldsUp"),
    Hostname: prefs.text("Hostname"),
    AdvertiseTags: prefs.texts("AdvertiseTags"),
    AdvertiseRoutes: prefs.texts("AdvertiseRoutes"),
    CorpDNS: prefs.flag("CorpDNS"),
    RouteAll: prefs.flag("RouteAll"),
    ExitNodeIP: prefs.text("ExitNodeIP"),
    ExitNodeID: prefs.text("ExitNodeID"),
    ExitNodeAllowLANAccess: prefs.flag("ExitNodeAllowLANAccess"),
    NoSNAT: prefs.flag("NoSNAT"),
    NoStatefulFiltering: prefs.flag("NoStatefulFiltering"),
    AppConnector: { Advertise: prefs.object("AppConnector")?.flag("Advertise") ?? false },
    PostureChecking: prefs.flag("PostureChecking"),
    OperatorUser: prefs.text("OperatorUser"),
    RunSSH: prefs.flag("RunSSH"),
    RunWebClient: prefs.flag("RunWebClient"),
  };
}

/**
 * ipn.Options that start with these preferences over the present ones. They replace all preferences, so that those that are not known here go along as they came.
 * @param present answer to `GET prefs`
 */
export function startOptions(present: string, authKey: string, prefs: Partial<LocalPrefs>): object {
  // Keys and profile (`Config`) are not preferences: tailscaled keeps its own, and shows them blackened.
  const { Config: _, ...raw } = Fields.parse(present).raw;
  return { AuthKey: authKey, UpdatePrefs: { ...raw, ...prefs } };
}

/** ipn.MaskedPrefs: the given preferences, each with the mark that it is to be set. */
export function maskedPrefs(prefs: Partial<LocalPrefs>): object {
  return Object.fromEntries(Object.entries(prefs).flatMap(([name, value]) => [[name, value] as const, [`${name}Set`, true] as const]));
}

export function parseServeConfig(text: string): ServeConfig {
  if (text.trim() === "null") return {};
  const config = Fields.parse(text);
  checkPorts(config);
  const sessions = config.object("Foreground");
  for (const id of Object.keys(sessions?.raw ?? {})) checkPorts(sessions?.object(id) ?? null);
  return config.raw;
}

function checkPorts(config: Fields | null): void {
  const ports = config?.object("TCP") ?? null;
  for (const port of Object.keys(ports?.raw ?? {})) ports?.object(port)?.text("TCPForward");
}

/** `cert/…?type=pair`: the key, then the chain. */
export function parsePair(text: string): { readonly cert: string; readonly key: string } {
  const match = /^\s*(-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n)\s*(-----BEGIN CERTIFICATE-----.*)$/s.exec(text);
  if (match === null) throw new FieldError("it is not a key and a certificate in PEM");
  return { key: match[1] ?? "", cert: match[2] ?? "" };
}

/** Null for a line that tells nothing of what is followed here: statistics, peers, files. */
export function parseBusMessage(line: string): BusMessage | null {
  const notify = Fields.parse(line);
  const number = notify.number("State");
  const state = number === null ? undefined : STATES[number];
  if (number !== null && state === undefined) throw new FieldError(`'State' ${number} is unknown here`);
  const [sessionId, error, loginUrl] = [notify.text("SessionID"), printable(notify.text("ErrMessage")), webUrl(notify.text("BrowseToURL"))];
  const message: BusMessage = {
    ...(sessionId === "" ? {} : { sessionId }),
    ...(state === undefined ? {} : { state }),
    ...(error === "" ? {} : { error }),
    ...(loginUrl === "" ? {} : { loginUrl }),
    prefsChanged: notify.has("Prefs"),
    netMapChanged: notify.has("SelfChange") || notify.has("NetMap"),
    loginFinished: notify.has("LoginFinished"),
    healthChanged: notify.has("Health"),
  };
  return Object.values(message).some((value) => value !== false) ? message : null;
}

function stateNamed(name: string): BackendState {
  const state = STATES.find((known) => known === (name === "" ? "NoState" : name));
  if (state === undefined) throw new FieldError(`'BackendState' '${name}' is unknown here`);
  return state;
}

function loginName(profile: Fields | null): string | null {
  const name = profile?.text("LoginName").toLowerCase() ?? "";
  return name === "" ? null : name;
}

/** Empty for what no browser should open: the control server says it, and it is shown on terminals. */
function webUrl(text: string): string {
  const url = URL.parse(text);
  return url !== null && (url.protocol === "https:" || url.protocol === "http:") ? url.href : "";
}

function plainName(name: string): string {
  return name.toLowerCase().replace(/\.+$/, "");
}

function lowerCase(texts: readonly string[]): readonly string[] {
  return texts.map((text) => text.toLowerCase());
}

function isPast(time: Date | null, nowMs: number): boolean {
  return time !== null && time.getTime() <= nowMs;
}
