// What is had of one ACME certificate, in memory and in the state: the one that serves, and what is remembered of it.
import type { Log } from "../telemetry/log.ts";
import { adoptSchedule, createSchedule, isDue, nextAttemptMs, spreadOf, type Life, type Schedule } from "./renew.ts";
import type { ServerCertificate } from "./source.ts";
import {
  keepFromOthers,
  lookAt,
  readCertificate,
  readSchedule,
  StoredCertificateError,
  writeCertificate,
  writeSchedule,
  type AcmeFiles,
  type StoredCertificate,
} from "./store.ts";

export class AcmeRecord {
  readonly files: AcmeFiles;
  readonly #names: readonly string[];
  readonly #log: Log;
  readonly #onStateError: (file: string, error: unknown) => void;
  #planKey: string;
  #served: ServerCertificate | null = null;
  #life: Life | null = null;
  /** Always of the present certificate and plan. */
  #schedule: Schedule;
  /** Of the file that was read or written last. */
  #stamp: string | null = null;
  #unsaved: "nothing" | "schedule" | "everything" = "nothing";
  #isLoaded = false;
  #saving = Promise.resolve();

  /** @param args.onStateError told when the state cannot be read or written; what is had is kept in memory then. */
  constructor(args: { log: Log; onStateError: (file: string, error: unknown) => void; files: AcmeFiles; names: readonly string[]; planKey: string }) {
    this.files = args.files;
    this.#names = args.names;
    this.#log = args.log;
    this.#onStateError = args.onStateError;
    this.#planKey = args.planKey;
    this.#schedule = createSchedule(args.planKey, "", 0);
  }

  get served(): ServerCertificate | null {
    return this.#served;
  }

  /** Null without a certificate. */
  get life(): Life | null {
    return this.#life;
  }

  get schedule(): Schedule {
    return this.#schedule;
  }

  get nextAttemptMs(): number {
    return nextAttemptMs(this.#schedule, this.#life);
  }

  isDue(nowMs: number): boolean {
    return isDue(this.#schedule, this.#life, nowMs);
  }

  /** Whether the state does not hold what it should. */
  get isUnsaved(): boolean {
    return this.#unsaved !== "nothing";
  }

  /** Failures under another plan do not count any more. */
  setPlanKey(planKey: string): void {
    this.#planKey = planKey;
    this.#schedule = adoptSchedule(this.#schedule, planKey, this.#schedule.leaf, 0);
  }

  /** Reads what the state holds, before anything else. Never rejects. */
  async load(): Promise<void> {
    await this.refresh(true);
    this.#isLoaded = true;
  }

  /** Takes what is newer in the state, and writes what could not be written. Never rejects. @param withSchedule also what others remember of the present certificate */
  async refresh(withSchedule: boolean): Promise<void> {
    const { certificate, schedule } = this.files;
    let isNew = false;
    try {
      const found = await lookAt(certificate);
      if (found !== null && found.stamp !== this.#stamp) isNew = await this.#read(found);
    } catch (error) {
      this.#onStateError(certificate, error);
    }
    try {
      if ((isNew || withSchedule) && this.#unsaved === "nothing") {
        const [stored, present] = [await readSchedule(schedule), this.#schedule];
        if (isNew || (stored !== null && stored.planKey === this.#planKey && stored.leaf === present.leaf)) {
          this.#schedule = adoptSchedule(stored, this.#planKey, present.leaf, present.obtainedAtMs);
        }
      }
    } catch (error) {
      this.#onStateError(schedule, error);
    }
    await this.#save();
  }

  /** A new certificate serves from now on. @param schedule of it */
  async take(issued: StoredCertificate, schedule: Schedule): Promise<void> {
    this.#serve(issued);
    this.#schedule = { ...schedule, planKey: this.#planKey };
    this.#unsaved = "everything";
    await this.#save();
  }

  /** @param schedule of the present certificate */
  async remember(schedule: Schedule): Promise<void> {
    this.#schedule = schedule;
    if (this.#unsaved === "nothing") this.#unsaved = "schedule";
    await this.#save();
  }

  #serve({ certificate, leaf }: StoredCertificate): void {
    this.#served = certificate;
    this.#life = { notBeforeMs: certificate.info.notBefore?.getTime() ?? 0, notAfterMs: endOf(certificate), spread: spreadOf(leaf) };
  }

  /** @returns whether what was read serves now @throws a system error */
  async #read({ stamp, isOpen }: { stamp: string; isOpen: boolean }): Promise<boolean> {
    const file = this.files.certificate;
    try {
      if (isOpen) {
        await keepFromOthers(file);
        this.#log.warn(
          { event: "certificate_file_open", file },
          `File '${file}' holds a private key that others have rights on: its mode is set to 0600; renew the certificate if they may have read it`,
        );
      }
      const stored = await readCertificate(file, this.#names);
      this.#stamp = stamp;
      // An older one is what could not be written over, or came from a backup.
      if (stored === null || (this.#served !== null && endOf(stored.certificate) <= endOf(this.#served))) return false;
      this.#serve(stored);
      this.#schedule = createSchedule(this.#planKey, stored.leaf, this.#life?.notBeforeMs ?? 0);
      this.#unsaved = "nothing";
      const { issuer, notAfter } = stored.certificate.info;
      if (this.#isLoaded) {
        this.#log.info({ event: "certificate_taken", names: this.#names, issuer, not_after: notAfter?.toISOString() }, "Another gateway got a certificate");
      }
      return true;
    } catch (error) {
      if (!(error instanceof StoredCertificateError)) throw error;
      this.#stamp = stamp;
      this.#log.warn(
        { event: "certificate_file_ignored", names: this.#names, file },
        `File '${file}' ${error.message}: it is not used, and written over by the next certificate`,
      );
      return false;
    }
  }

  /** One at a time, so that the last one to be written is the newest. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#saveNow());
    return this.#saving;
  }

  async #saveNow(): Promise<void> {
    const [what, served, schedule] = [this.#unsaved, this.#served, this.#schedule];
    if (what === "nothing") return;
    const { files } = this;
    try {
      if (what === "everything" && served !== null) {
        await writeCertificate(files.certificate, served);
        this.#stamp = (await lookAt(files.certificate))?.stamp ?? null;
      }
      await writeSchedule(files.schedule, schedule);
      if (this.#served === served && this.#schedule === schedule) this.#unsaved = "nothing";
    } catch (error) {
      this.#onStateError(files.certificate, error);
    }
  }
}

function endOf({ info }: ServerCertificate): number {
  return info.notAfter?.getTime() ?? 0;
}
