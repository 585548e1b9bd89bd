// The certificates of the whole gateway: prepared for each plan, renewed, watched to their end, and told about.
import { AcmeCertificates } from "./certificates/acme.ts";
import { AcmeChallenges } from "./certificates/acme-challenges.ts";
import { openAcmeIssuer } from "./certificates/acme-open-issuer.ts";
import { createCertificateAlerts } from "./certificates/alerts.ts";
import type { CertificateEvent } from "./certificates/events.ts";
import { createExpiryWatch, type ExpiryWatch } from "./certificates/expiry.ts";
import { internalCaFile, openInternalCa, type InternalCa } from "./certificates/internal-ca.ts";
import { createListenerTls, type ListenerTls } from "./certificates/select.ts";
import type { CertificateInfo } from "./certificates/source.ts";
import { TailscaleCertificates, type CertificateTailnet } from "./certificates/tailscale.ts";
import { openTicketKeys, ticketKeysFile, type TicketKeys } from "./certificates/ticket-keys.ts";
import { isCovered } from "./lib/host-cover.ts";
import type { AcmePlan, AlertsPlan, Plan, TlsTermination } from "./plan/model.ts";
import type { CertificateMetrics } from "./telemetry/certificate-metrics.ts";
import type { Log } from "./telemetry/log.ts";
import { openWebhook, type Webhook } from "./telemetry/webhook.ts";

/** By listener, for those that end TLS. `commit` makes them those of the gateway, and begins to order what is missing. */
export type PreparedCertificates = { readonly tls: ReadonlyMap<string, ListenerTls>; readonly commit: () => void };

/** What outlives a plan as long as the next one wants it, too. */
type Shared = { readonly internalCa: InternalCa | null; readonly tickets: TicketKeys | null; readonly alerts: AlertsPlan | null };

/** `names`: names and addresses of the node in the tailnet, lower case; empty while they are not known. */
type NamedTailnet = CertificateTailnet & { names(): readonly string[] };

export class GatewayCertificates {
  readonly challenges = new AcmeChallenges();
  readonly #log: Log;
  readonly #metrics: CertificateMetrics;
  readonly #tailnet: NamedTailnet;
  readonly #acme: AcmeCertificates;
  readonly #tailscale: TailscaleCertificates;
  readonly #expiry: ExpiryWatch;
  readonly #webhook: Webhook;
  readonly #alerts: { tell(event: CertificateEvent): void };
  #tls: ReadonlyMap<string, ListenerTls> = new Map();
  #shared: Shared = { internalCa: null, tickets: null, alerts: null };

  /** @param args.pid of this process, told to whoever shares the state. @param args.tailnet asked for certificates of tailscaled, and for the node's names. */
  constructor({ log, pid, metrics, tailnet }: { log: Log; pid: number; metrics: CertificateMetrics; tailnet: NamedTailnet }) {
    this.#log = log;
    this.#metrics = metrics;
    this.#tailnet = tailnet;
    this.#webhook = openWebhook({ target: () => this.#shared.alerts?.webhook ?? null, log, onResult: (result) => metrics.alert(result) });
    this.#alerts = createCertificateAlerts({ send: (...message) => this.#webhook.send(...message) });
    this.#acme = new AcmeCertificates({
      log,
      pid,
      openIssuer: (stateDir) => openAcmeIssuer({ stateDir, challenges: this.challenges, log }),
      onEvent: (event) => this.#tell(event),
    });
    this.#tailscale = new TailscaleCertificates({ tailnet, log, onEvent: (event) => this.#tell(event) });
    this.#expiry = createExpiryWatch({
      certificates: () => this.list(),
      internalCa: () => this.#shared.internalCa,
      log,
      onEvent: (event) => this.#tell(event),
    });
  }

  /** By listener. */
  get tls(): ReadonlyMap<string, ListenerTls> {
    return this.#tls;
  }

  /** Why the state directory cannot be used; empty when it can. */
  get stateError(): string {
    return this.#acme.stateError;
  }

  /** Those of all listeners; the same one may come several times. */
  list(): CertificateInfo[] {
    return [...this.#tls.values()].flatMap((tls) => tls.list());
  }

  /** The node is on the tailnet, or not any more, or has another name there. */
  tailnetChanged(): void {
    this.#tailscale.look();
  }

  /** Everything that can fail. @throws {CertificateError} {InternalCaError} with nothing changed */
  async prepare(plan: Plan): Promise<PreparedCertificates> {
    const terminations = [...plan.listeners.values()].flatMap(({ tls }): TlsTermination[] => ("protocol" in tls ? [tls] : []));
    // First, since it makes a state directory whose CA others may read.
    const internalCa = await this.#prepareCa(terminations, plan.stateDir);
    const [tickets, acme] = await Promise.all([
      this.#prepareTickets(terminations, plan.stateDir),
      this.#acme.prepare(
        terminations.flatMap((tls): AcmePlan[] => (tls.acme === null ? [] : [tls.acme])),
        plan.stateDir,
      ),
    ]);
    const prepared = new Map<string, ListenerTls>();
    for (const { name, listen, tls } of plan.listeners.values()) {
      if (!("protocol" in tls)) continue;
      const sources = {
        listener: name,
        listenHost: listen.kind === "tcp" ? listen.host : null,
        tailnetNames: listen.kind === "tailnet" ? () => this.#tailnet.names() : () => [],
        acme: tls.acme === null ? null : acme.source(tls.acme),
        tailscale: tls.tailscale ? this.#tailscale.source : null,
        internalCa,
        tickets,
      };
      prepared.set(name, createListenerTls(tls, sources, this.#tls.get(name) ?? null));
    }
    const commit = (): void => {
      this.#tls = prepared;
      this.#shared = { internalCa, tickets, alerts: plan.alerts };
      acme.commit();
      this.#tailscale.want(terminations.some(({ tailscale }) => tailscale));
      this.#expiry.look();
    };
    return { tls: prepared, commit };
  }

  /** The CA of the state directory; the present one when that did not change. */
  async #prepareCa(terminations: readonly TlsTermination[], stateDir: string): Promise<InternalCa | null> {
    if (!terminations.some(({ internal }) => internal)) return null;
    const { internalCa } = this.#shared;
    return internalCa?.certFile === internalCaFile(stateDir) ? internalCa : openInternalCa(stateDir);
  }

  /** The keys of the state directory; the present ones when that did not change. */
  async #prepareTickets(terminations: readonly TlsTermination[], stateDir: string): Promise<TicketKeys | null> {
    if (terminations.length === 0) return null;
    const { tickets } = this.#shared;
    return tickets?.file === ticketKeysFile(stateDir) ? tickets : openTicketKeys(stateDir, this.#log);
  }

  #tell(event: CertificateEvent): void {
    if (event.kind === "renewed") this.#metrics.renewal(true);
    if (event.kind === "renewal_failed") this.#metrics.renewal(false);
    this.#alerts.tell(event);
  }

  /** Orders the certificate of a name now. The message is a sentence for people. Never rejects. */
  async renew(name: string): Promise<{ ok: boolean; message: string }> {
    const host = name.toLowerCase();
    const own = this.list().filter(({ names }) => isCovered(host, new Set(names)));
    const [other] = own.filter(({ source }) => source !== "acme");
    if (other === undefined || own.some(({ source }) => source === "acme")) return this.#acme.renew(name);
    if (other.source === "tailscale") return this.#tailscale.renew(host);
    if (other.source === "internal") return { ok: false, message: `The certificate of '${name}' comes from the internal CA, which issues a new one by itself` };
    return {
      ok: false,
      message: `The certificate of '${name}' comes from the file '${other.file ?? ""}': replace that and its key, the gateway then takes them`,
    };
  }

  async close(): Promise<void> {
    this.#expiry.close();
    this.#tailscale.close();
    await Promise.all([this.#acme.close(), this.#webhook.close()]);
  }
}
