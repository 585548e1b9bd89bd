// What is kept and logged of the provider at which people log in.
import { ProviderHealth } from "../identity/provider-health.ts";
import type { Log } from "../telemetry/log.ts";
import { LoginError } from "./login-source.ts";

/** Logs once when logins begin to fail and once when they work again; whose login it was stands in the line of each. @param name as in `status` */
export function loginHealth<What extends string>(name: string, url: string, log: Log): ProviderHealth<What> {
  return new ProviderHealth<What>({
    who: { kind: "login", name, url },
    faultOf: (error) => (error instanceof LoginError ? error.outage : null),
    onChange: (_what, reason) => {
      if (reason === null) log.info({ provider: name }, "The identity provider answers again");
      else log.warn({ provider: name, reason }, "Logins with the identity provider fail");
    },
  });
}
