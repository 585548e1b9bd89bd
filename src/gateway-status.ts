// The picture of the gateway that /status and /ready show, drawn from the plan and the live parts.
import type {
  CertificateStatus,
  GatewayStatus,
  IdentityProviderStatus,
  ListenerStatus,
  ReloadResult,
  RouteStatus,
  TailnetClientStatus,
  UpstreamStatus,
} from "./admin/status.ts";
import type { ListenerTls } from "./certificates/select.ts";
import type { CertificateInfo } from "./certificates/source.ts";
import type { IdentityProvider } from "./identity/provider-health.ts";
import { formatAddress } from "./lib/address.ts";
import type { Listeners } from "./listeners/apply.ts";
import type { AuthWayPlan, PeopleMatch, TailnetMatch, LoginPlan } from "./plan/auth-model.ts";
import type { PathMatch, Plan } from "./plan/model.ts";
import type { TailnetStatus } from "./tailscale/status.ts";
import type { Upstream } from "./upstreams/upstream.ts";

// Enough to tell two configurations apart.
const DIGEST_CHARACTERS = 12;

export type StatusParts = {
  readonly version: string;
  readonly pid: number;
  readonly file: string;
  readonly startedAt: Date;
  readonly loadedAt: Date;
  readonly refusal: { readonly at: Date; readonly result: Extract<ReloadResult, { outcome: "refused" }> } | null;
  readonly stopping: boolean;
  /** Null before the start has ended. */
  readonly plan: Plan | null;
  readonly digest: string;
  readonly listeners: Pick<Listeners, "all" | "draining">;
  readonly upstreams: readonly Upstream[];
  /** Why the state directory cannot be used; empty when it can. */
  readonly stateError: string;
  /** Those that the plan names, each once. */
  readonly identityProviders: readonly IdentityProvider[];
  /** By listener. */
  readonly tls: ReadonlyMap<string, Pick<ListenerTls, "list">>;
  /** Null: nothing is on the tailnet. */
  readonly tailnet: TailnetStatus | null;
  /** Who of the tailnet is connected. */
  readonly tailnetClients: readonly TailnetClientStatus[];
};

/** Flat data for JSON; no secret is in it. */
export function buildStatus(parts: StatusParts): GatewayStatus {
  const { refusal } = parts;
  return {
    version: parts.version,
    pid: parts.pid,
    started_at: parts.startedAt.toISOString(),
    uptime_seconds: Math.round((Date.now() - parts.startedAt.getTime()) / 1_000),
    stopping: parts.stopping,
    config: {
      file: parts.file,
      digest: parts.digest.slice(0, DIGEST_CHARACTERS),
      loaded_at: parts.loadedAt.toISOString(),
      refused: refusal === null ? null : { at: refusal.at.toISOString(), problems: refusal.result.problems, text: refusal.result.text },
    },
    listeners: parts.listeners.all.map(({ listener, address, down }): ListenerStatus => {
      const { name, protocol, tls, listen } = listener.plan;
      // The socket behind a port of the tailnet is nobody's to connect to.
      const shown = listen.kind === "tailnet" ? formatAddress(listen) : address;
      return { name, protocol, address: shown, tls: tls.mode, connections: listener.active, down };
    }),
    draining_listeners: parts.listeners.draining,
    state: { dir: parts.plan?.stateDir ?? "", error: parts.stateError },
    routes: (parts.plan?.routes ?? []).map(({ name, listeners, host, path, methods, upstream, auth }): RouteStatus => ({
      name,
      listeners: listeners === null ? null : [...listeners],
      host,
      path: describePath(path),
      methods: methods === null ? null : [...methods],
      upstream: upstream ?? "none",
      auth: auth === null ? ["none"] : auth.map(describeWay),
    })),
    upstreams: parts.upstreams.map(describeUpstream),
    certificates: describeCertificates(parts.tls),
    authorization_servers: (parts.plan?.authorizationServers ?? []).map(({ issuer, login, resources, sessionOrigins }) => ({
      issuer,
      login: describeLogin(login),
      resources: resources.map(({ url }) => url),
      session_origins: [...sessionOrigins],
    })),
    identity_providers: parts.identityProviders.map(({ kind, name, url, outage }): IdentityProviderStatus => {
      return { kind, name, url, error: outage?.error ?? "", since: outage === null ? null : new Date(outage.sinceMs).toISOString() };
    }),
    tailnet: parts.tailnet === null ? null : { ...parts.tailnet, clients: parts.tailnetClients },
  };
}

function describeLogin({ github, oidc, password, tailnet }: LoginPlan): string[] {
  return [github === null ? [] : "github", oidc === null ? [] : oidc.name, password === null ? [] : "password", tailnet ? "tailnet" : []].flat();
}

/** Each one once, with all listeners that serve it. */
function describeCertificates(tls: StatusParts["tls"]): CertificateStatus[] {
  const found = new Map<string, { readonly info: CertificateInfo; readonly listeners: string[] }>();
  for (const [listener, certificates] of tls) {
    for (const info of certificates.list()) {
      const key = JSON.stringify([info.source, info.names, info.file]);
      const known = found.get(key);
      if (known === undefined) found.set(key, { info, listeners: [listener] });
      else if (!known.listeners.includes(listener)) known.listeners.push(listener);
    }
  }
  return [...found.values()].map(({ info: { names, source, file, issuer, notBefore, notAfter, renewAt, error }, listeners }) => ({
    listeners,
    names,
    source,
    file,
    issuer,
    valid_from: notBefore?.toISOString() ?? null,
    expires_at: notAfter?.toISOString() ?? null,
    renews_at: renewAt?.toISOString() ?? null,
    error,
  }));
}

function describeUpstream({ plan, targets }: Upstream): UpstreamStatus {
  const now = performance.now();
  return {
    name: plan.name,
    verified: plan.tls.verify,
    targets: targets.map(({ plan: { url }, health, reason, active, ejectedUntil }) => ({ url, health, reason, active, ejected: ejectedUntil > now })),
  };
}

function describePath(path: PathMatch): string {
  switch (path.kind) {
    case "any":
      return "*";
    case "exact":
      return path.path;
    case "prefix":
      return `${path.path.replace(/\/$/, "")}/*`;
    case "regex":
      return `~ ${path.source}`;
  }
}

function describeWay(way: AuthWayPlan): string {
  if (way.kind === "client_certificate") {
    if (way.subjects === null && way.sans === null) return `${way.kind} any`;
    // Distinguished names have commas, and may have spaces.
    return [way.kind, ...[...(way.subjects ?? []), ...(way.sans ?? [])].map((name) => (/[ ,]/.test(name) ? `'${name}'` : name))].join(" ");
  }
  if (way.kind === "tailnet") return `${way.kind} ${describeMatch(way.match)}`;
  const scopes = way.kind !== "session" && way.scopes.length > 0 ? [`with ${way.scopes.join(" ")}`] : [];
  if (way.kind === "token") return [way.kind, way.names === null ? "any" : [...way.names].join(","), ...scopes].join(" ");
  const people = way.allow === null ? "any" : describePeople(way.allow);
  const assertions = way.kind === "oauth" && way.identityAssertions.size > 0 ? [`identity_assertions:${[...way.identityAssertions].join(",")}`] : [];
  return [way.kind, ...(way.kind === "issuer" ? [way.issuer] : []), people, ...assertions, ...scopes].join(" ");
}

/** `github_users:octocat groups:ops`; with no word of people, those whom the operator has listed himself. */
function describePeople(match: PeopleMatch): string {
  const { githubUsers, githubOrgs, githubTeams, users, emails, domains, groups, claims, tailnet, clients } = match;
  const sets = {
    github_users: githubUsers === "*" ? new Set("*") : githubUsers,
    github_orgs: githubOrgs,
    github_teams: githubTeams,
    users,
    emails,
    domains,
    groups,
    clients,
  };
  const words = Object.entries(sets).flatMap(([key, names]) => (names === null ? [] : [`${key}:${[...names].join(",")}`]));
  for (const { path, values } of claims) words.push(`${path.join(".")}:${[...values].join(",")}`);
  if (tailnet !== null) words.push(`tailnet:${describeMatch(tailnet)}`);
  return words.length === 0 ? "own people" : words.join(" ");
}

/** `alice@example.com tag:bots laptop`, or `any`. */
function describeMatch({ users, tags, nodes }: TailnetMatch): string {
  return [users, tags, nodes].every((names) => names === null) ? "any" : [...(users ?? []), ...(tags ?? []), ...(nodes ?? [])].join(" ");
}
