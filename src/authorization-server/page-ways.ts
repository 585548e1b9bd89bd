// The part of a page on which a person chooses how to log in: a button for each way, or the fields for name and password.
import { html, type Html } from "./html.ts";
import type { Offer } from "./login-ways.ts";

/** A password that was not right: what to say, and the name that was typed. */
export type Refused = { readonly message: string; readonly name: string };

/** @param form where the forms go, and the token that they bring along @param verb what the button below a password says */
export function waysPart(offer: Offer, form: { readonly action: string; readonly token: string }, refused: Refused | null, verb = "Log in"): Html {
  const parts: Html[] = [];
  if (offer.tailnet !== null) parts.push(button("tailnet", `Continue as ${offer.tailnet}`, "main", form));
  for (const { kind, label } of offer.external) parts.push(button(kind, `Continue with ${label}`, parts.length === 0 ? "main" : "plain", form));
  const or = parts.length > 0 && offer.password ? html`<p class="or">or with a password</p>` : null;
  return html`${parts}${or}${offer.password ? passwordForm(form, refused, parts.length === 0, verb) : null}`;
}

/** Tells what went wrong before the person reads on; nothing for null. */
export function alertPart(message: string | null): Html | null {
  return message === null ? null : html`<div class="note bad" role="alert"><p>${message}</p></div>`;
}

/** A form that is one button. */
export function button(way: string, text: string, look: "main" | "plain", { action, token }: { readonly action: string; readonly token: string }): Html {
  return html`<form method="post" action="${action}">
    <input type="hidden" name="csrf" value="${token}" />
    <button ${look === "plain" ? html`class="plain" ` : null}name="way" value="${way}">${text}</button>
  </form>`;
}

function passwordForm({ action, token }: { readonly action: string; readonly token: string }, refused: Refused | null, isMain: boolean, verb: string): Html {
  const state = refused === null ? null : html` aria-invalid="true"`;
  return html`<form method="post" action="${action}">
    <input type="hidden" name="csrf" value="${token}" />
    <label for="name">User name</label>
    <input
      id="name"
      name="name"
      autocomplete="username"
      autocapitalize="none"
      spellcheck="false"
      required
      maxlength="64"
      value="${refused?.name ?? ""}"
      ${state}
    />
    <label for="password">Password</label>
    <input id="password" name="password" type="password" autocomplete="current-password" required maxlength="1024" ${state} />
    <button ${isMain ? null : html`class="plain" `}name="way" value="password">${verb}</button>
  </form>`;
}
