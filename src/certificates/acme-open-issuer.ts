// The issuer of certificates that asks ACME CAs.
import type { Log } from "../telemetry/log.ts";
import { AcmeAccounts } from "./acme-account.ts";
import type { AcmeChallenges } from "./acme-challenges.ts";
import { AcmeError, type AcmeIssuer } from "./acme-issuer.ts";
import { orderCertificate } from "./acme-order.ts";
import type { ProofTools, SetDnsRecord } from "./acme-proof.ts";
import { fetchRenewalWindow } from "./acme-renewal-info.ts";
import { openAcmeConnection } from "./acme-transport.ts";

/**
 * Opens an issuer. It holds nothing open between its tasks, and loads what it needs with the first one.
 * @param args.stateDir accounts are kept in `acme` below it.
 * @param args.challenges what the listeners show.
 * @param args.setDnsRecord default: at the provider of the plan.
 */
export function openAcmeIssuer(args: { stateDir: string; challenges: AcmeChallenges; log: Log; setDnsRecord?: SetDnsRecord }): AcmeIssuer {
  const { stateDir, challenges, log, setDnsRecord = setAtProvider } = args;
  const accounts = new AcmeAccounts(stateDir, log);
  const tools: ProofTools = { challenges, setDnsRecord, log };
  return {
    order: async (request) => {
      const { account: plan, signal } = request;
      const account = await accounts.open(plan, signal);
      await using connection = await openAcmeConnection(plan, signal);
      try {
        return await orderCertificate(connection, account, request, tools);
      } catch (error) {
        if (!(error instanceof AcmeError) || error.problem !== "accountDoesNotExist") throw error;
        return await orderCertificate(connection, await accounts.open(plan, signal, account), request, tools);
      }
    },
    renewalWindow: async (plan, cert, signal) => {
      await using connection = await openAcmeConnection(plan, signal);
      return await fetchRenewalWindow(connection, cert);
    },
  };
}

const setAtProvider: SetDnsRecord = async (...args) => {
  const { setDnsRecord } = await import("./dns-01.ts");
  return await setDnsRecord(...args);
};
