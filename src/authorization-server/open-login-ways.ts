// The ways to log in that a plan names, made live.
import type { LoginPlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import { openGithubLogin } from "./login-github.ts";
import { openOidcLogin } from "./login-oidc.ts";
import { openPasswordLogin } from "./login-password.ts";
import { tailnetPerson } from "./login-tailnet.ts";
import type { LoginThrottle } from "./login-throttle.ts";
import type { LoginWays } from "./login-ways.ts";

/** @param throttle the same for all servers of the gateway, and after each reload */
export function openLoginWays({ github, oidc, password, tailnet }: LoginPlan, log: Log, throttle: LoginThrottle): LoginWays & { close(): void } {
  const external = [...(github === null ? [] : [openGithubLogin(github, log)]), ...(oidc === null ? [] : [openOidcLogin(oidc, log)])];
  return {
    external,
    password: password === null ? null : openPasswordLogin(password, throttle, log),
    // A tagged node is a machine: nobody who sits before it is known by it.
    tailnet: (peer) => (tailnet && peer !== null && peer.user !== null && peer.tags.length === 0 ? tailnetPerson(peer) : null),
    close() {
      for (const source of external) source.close();
    },
  };
}
