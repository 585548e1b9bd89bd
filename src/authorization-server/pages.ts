// The frame of all pages, with the headers that keep them to themselves, and the page for what went wrong.
import type { EndpointAnswer } from "./endpoint.ts";
import { html, htmlText, markup, type Html } from "./html.ts";
import { STYLE, STYLE_SOURCE } from "./page-style.ts";

export type PageOptions = {
  /** Default: 200. */
  readonly status?: number;
  readonly title: string;
  /** Whose page it is: the host that people see in their address bar. */
  readonly host: string;
  readonly body: Html;
  /** Below the card. */
  readonly footer?: Html | null;
  /** Schemes that the answers to the page's forms may lead on to, such as `https:`; none leave this origin otherwise. */
  readonly leadsTo?: readonly string[];
  /** The page has no opener that waits for it. Default: false, as clients on the web open a window for the whole of OAuth and listen to it. */
  readonly alone?: boolean;
  /** Flat pairs. */
  readonly headers?: readonly string[];
};

export type ErrorPageOptions = {
  readonly status: number;
  /** What happened, as a heading; without a full stop. */
  readonly title: string;
  /** Sentences: why, and what to do. */
  readonly message: string;
  /** What to do, when it is a paragraph of its own. */
  readonly advice?: string | null;
  readonly host: string;
  readonly requestId: string;
  /** A way on: on this site, or the client's, which the text then names. */
  readonly link?: { readonly href: string; readonly text: string } | null;
  readonly more?: Html | null;
  readonly leadsTo?: readonly string[];
  /** Flat pairs, such as Retry-After. */
  readonly headers?: readonly string[];
};

const MARK = html`<svg viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" aria-hidden="true" focusable="false">
  <path d="M3.5 17V6.5L10 3l6.5 3.5V17" />
  <path d="M8 17v-5.5a2 2 0 0 1 4 0V17" />
</svg>`;
const STYLE_ELEMENT = markup(`<style>${STYLE}</style>`);

/** A whole page. No script runs on it, nothing is loaded, nobody frames or keeps it. */
export function page({ status = 200, title, host, body, footer = null, leadsTo = [], alone = false, headers = [] }: PageOptions): EndpointAnswer {
  const document = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <title>${title} · ${host}</title>
        ${STYLE_ELEMENT}
      </head>
      <body>
        <main>
          <header>${MARK}<span>${host}</span></header>
          ${body}
        </main>
        ${footer === null ? null : html`<footer>${footer}</footer>`}
      </body>
    </html> `;
  return {
    status,
    headers: ["Content-Type", "text/html; charset=utf-8", ...pageHeaders(leadsTo), ...(alone ? ALONE : []), ...headers],
    body: htmlText(document),
  };
}

/** The page for what went wrong: what happened, what to do, and what to tell the operator. */
export function errorPage({
  status,
  title,
  message,
  advice = null,
  host,
  requestId,
  link = null,
  more = null,
  leadsTo = [],
  headers = [],
}: ErrorPageOptions): EndpointAnswer {
  return page({
    status,
    title,
    host,
    leadsTo,
    headers,
    body: html`<h1>${title}</h1>
      <p>${message}</p>
      ${advice === null ? null : html`<p>${advice}</p>`} ${link === null ? null : html`<p><a class="button" href="${link.href}">${link.text}</a></p>`}${more}`,
    footer: html`Request id <code>${requestId}</code>`,
  });
}

/** Leads on by GET, whatever the method was. */
export function redirect(location: string, headers: readonly string[] = []): EndpointAnswer {
  return { status: 303, headers: ["Location", location, "Cache-Control", "no-store", "Referrer-Policy", "no-referrer", ...headers], body: "" };
}

const ALONE = ["Cross-Origin-Opener-Policy", "same-origin"];

/**
 * Chromium holds the redirects that follow a form to `form-action` as well, all of them: a provider hands over to other hosts as it likes, and a client's
 * own page leads on. So the policy names schemes; it keeps forms from what is no web page, and the markup, all of it ours, has no other targets.
 */
function pageHeaders(leadsTo: readonly string[]): string[] {
  const policy = `default-src 'none'; style-src ${STYLE_SOURCE}; form-action ${["'self'", ...new Set(leadsTo)].join(" ")}; frame-ancestors 'none'; base-uri 'none'`;
  return [
    "Content-Security-Policy",
    policy,
    "X-Frame-Options",
    "DENY",
    "Referrer-Policy",
    "no-referrer",
    "Cache-Control",
    "no-store",
    "X-Content-Type-Options",
    "nosniff",
    "Cross-Origin-Resource-Policy",
    "same-origin",
  ];
}
