// TXT records for dns-01 challenges: set at the provider, waited for, and removed again.
import type { DnsPlan } from "../plan/model.ts";
import { AcmeError } from "./acme-issuer.ts";
import { createCloudflareRecord, type DnsRecord } from "./dns-cloudflare.ts";
import { runDnsCommand } from "./dns-exec.ts";
import { followCnames } from "./dns-lookup.ts";
import { waitForTxtRecord } from "./dns-propagation.ts";

/**
 * Sets a TXT record beside others of the same name, at the end of the CNAME records when the name has some, and waits until the zone's
 * authoritative servers show it. A record that does not show is removed again. Calls for one name may overlap.
 * @param recordName `_acme-challenge.example.com`
 * @param value base64url (RFC 8555, 8.4)
 * @returns removes the record; it throws {AcmeError} when that fails
 * @throws {AcmeError} what failed at which provider, and what to do; also when the signal is aborted
 */
export async function setDnsRecord(plan: DnsPlan, recordName: string, value: string, signal: AbortSignal): Promise<() => Promise<void>> {
  try {
    const { resolvers, propagationTimeoutMs: timeoutMs } = plan;
    const name = await followCnames(recordName, resolvers, signal);
    const record = createRecord(plan, name, value);
    try {
      await record.set(signal);
      await waitForTxtRecord({ name, value, resolvers, timeoutMs, signal });
    } catch (error) {
      // Best effort: what failed first is what has to be told, and a record that was left behind does no harm.
      await record.remove().catch(() => undefined);
      throw error;
    }
    return () => record.remove();
  } catch (error) {
    if (error instanceof AcmeError) throw error;
    if (signal.aborted) throw new AcmeError(`Setting TXT record '${recordName}' was cancelled`, { cause: signal.reason });
    throw error;
  }
}

function createRecord(plan: DnsPlan, name: string, value: string): DnsRecord {
  if (plan.provider === "cloudflare") return createCloudflareRecord(plan, name, value);
  return {
    set: (signal) => runDnsCommand(plan, "present", name, value, signal),
    // Also when the order is cancelled: it has its own time limit.
    remove: () => runDnsCommand(plan, "cleanup", name, value, new AbortController().signal),
  };
}
