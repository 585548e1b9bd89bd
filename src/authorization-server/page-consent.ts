// The page that asks a person whether a client may act for them. Everything that the client said of itself is shown as its own words.
import { isLoopbackHost } from "../lib/address.ts";
import { printable } from "../lib/printable.ts";
import type { ScopePlan } from "../plan/auth-model.ts";
import type { EndpointAnswer } from "./endpoint.ts";
import { html, type Html } from "./html.ts";
import type { Offer } from "./login-ways.ts";
import { page } from "./pages.ts";
import { alertPart, button, waysPart, type Refused } from "./page-ways.ts";
import type { PendingAuthorization } from "./pending-authorization.ts";

const MAX_NAME_CHARS = 80;

export type ConsentPage = {
  readonly host: string;
  readonly pending: PendingAuthorization;
  readonly scopes: ReadonlyMap<string, ScopePlan>;
  readonly offer: Offer;
  readonly form: { readonly action: string; readonly token: string };
  readonly leadsTo: readonly string[];
  /** Something that went wrong before. */
  readonly notice: string | null;
  /** A password that was not right. */
  readonly refused: Refused | null;
  /** Default: 200. */
  readonly status?: number;
  readonly headers?: readonly string[];
};

export function consentPage({ host, pending, scopes, offer, form, leadsTo, notice, refused, status = 200, headers = [] }: ConsentPage): EndpointAnswer {
  const name = clientLabel(pending);
  const back = describeRedirect(pending.redirectUri);
  return page({
    status,
    title: `Connect ${name}`,
    host,
    leadsTo,
    headers,
    body: html`${alertPart(refused?.message ?? notice)}
      <h1>Connect <bdi>${name}</bdi>?</h1>
      <p class="soft">The application asks for access in your name. Continue only if you have just started this yourself.</p>
      <dl>
        <div>
          <dt>You are sent back to</dt>
          <dd>${back.place}<span class="hint">${back.hint}</span></dd>
        </div>
        <div>
          <dt>Who says that it is <bdi>${name}</bdi></dt>
          <dd>${describeKind(pending)}</dd>
        </div>
        <div>
          <dt>It gets access to</dt>
          <dd>${pending.resource.url}</dd>
        </div>
        ${scopesPart(pending.scopes, scopes)}
      </dl>
      ${waysPart(offer, form, refused, "Log in and allow")}
      <div class="last">${button("cancel", "Cancel", "plain", form)}</div>`,
    footer: html`Nothing is granted before you have logged in.`,
  });
}

/** The client's name for people, on one line: strangers choose it. */
export function clientLabel({ clientName, clientId }: Pick<PendingAuthorization, "clientName" | "clientId">): string {
  const name = printable(legible(clientName), MAX_NAME_CHARS).toWellFormed();
  return name === "" ? printable(clientId, MAX_NAME_CHARS) : name;
}

/** Without what nobody sees, such as fillers, and without marks that pile up over the lines beside them. */
function legible(text: string): string {
  return text.replaceAll(/\p{Default_Ignorable_Code_Point}|\u2800/gu, "").replaceAll(/(\p{M}{2})\p{M}+/gu, "$1");
}

function describeKind({ clientKind, clientId }: PendingAuthorization): Html {
  if (clientKind === "static") return html`The operator of this site, who knows it`;
  if (clientKind === "document") {
    const url = URL.parse(clientId);
    // Some sites hold what anybody puts there: the path tells whose it is.
    return html`${url?.host ?? "an unknown site"}<span class="hint">the site that describes it, at ${printable(url?.pathname ?? "", MAX_NAME_CHARS)}</span>`;
  }
  return html`Nobody but itself<span class="hint">it registered itself, and nobody has checked its name</span>`;
}

/** Where the code goes: what tells an application from one that only has its name. */
export function describeRedirect(redirectUri: string): { readonly place: string; readonly hint: string } {
  const url = URL.parse(redirectUri);
  if (url === null) return { place: "an unknown address", hint: "" };
  if (url.protocol !== "https:" && url.protocol !== "http:")
    return { place: "An application on this device", hint: `the one that opens addresses with ${url.protocol}` };
  if (isLoopbackHost(url.hostname)) return { place: "An application on this computer", hint: `at ${url.host}` };
  return { place: url.host, hint: url.protocol === "https:" ? "a site on the web" : "a site on the web, without encryption" };
}

function scopesPart(asked: readonly string[], known: ReadonlyMap<string, ScopePlan>): Html | null {
  if (asked.length === 0) return null;
  const items = asked.map((scope) => {
    const description = known.get(scope)?.description ?? null;
    return description === null ? html`<li><code>${scope}</code></li>` : html`<li>${description} <code class="soft">${scope}</code></li>`;
  });
  return html`<div>
    <dt>It may</dt>
    <dd>
      <ul>
        ${items}
      </ul>
    </dd>
  </div>`;
}
