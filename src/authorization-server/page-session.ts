// The pages of browser sessions: to log in, to sign out, and after that.
import type { EndpointAnswer } from "./endpoint.ts";
import { html } from "./html.ts";
import type { Offer } from "./login-ways.ts";
import { page } from "./pages.ts";
import { alertPart, button, waysPart, type Refused } from "./page-ways.ts";

type Form = { readonly action: string; readonly token: string };

export type LoginPage = {
  readonly host: string;
  /** Host of the pages that the login is for. */
  readonly forHost: string;
  readonly offer: Offer;
  readonly form: Form;
  readonly leadsTo: readonly string[];
  readonly notice: string | null;
  readonly refused: Refused | null;
  /** Default: 200. */
  readonly status?: number;
  readonly headers?: readonly string[];
};

export function loginPage({ host, forHost, offer, form, leadsTo, notice, refused, status = 200, headers = [] }: LoginPage): EndpointAnswer {
  return page({
    status,
    title: "Log in",
    host,
    leadsTo,
    headers,
    alone: true,
    body: html`${alertPart(refused?.message ?? notice)}
      <h1>Log in</h1>
      <p class="soft">to continue to <b>${forHost}</b></p>
      ${waysPart(offer, form, refused)}`,
  });
}

/** @param user who is logged in; null: nobody */
export function logoutPage({ host, user, form, headers }: { host: string; user: string | null; form: Form; headers: readonly string[] }): EndpointAnswer {
  if (user === null) return signedOutPage({ host, title: "You are not logged in", headers });
  return page({
    title: "Sign out",
    host,
    headers,
    alone: true,
    body: html`<h1>Sign out?</h1>
      <p>You are logged in to this site as <b>${user}</b>.</p>
      ${button("logout", "Sign out", "main", form)}
      <p class="after"><a class="button plain" href="/">Stay logged in</a></p>`,
  });
}

export function signedOutPage({ host, title, headers }: { host: string; title: string; headers: readonly string[] }): EndpointAnswer {
  return page({
    title,
    host,
    headers,
    alone: true,
    body: html`<h1>${title}</h1>
      <p>
        Your session at this site is over. The service with which you logged in, such as GitHub, may still know you: sign out there as well when others use this
        browser.
      </p>
      <p><a class="button plain" href="/.sidegate/login?choose=1">Log in</a></p>`,
  });
}
