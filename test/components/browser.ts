// A browser without a window: cookies, redirects and forms, and nothing that a page could run. For stories in which a person logs in.
import { Agent, buildConnector, request } from "undici";

const MAX_STEPS = 20;

export type BrowserOptions = {
  /** PEM; default: the system's CAs. */
  readonly ca?: string;
  /** Where hosts really listen: `host` or `host:port` of a URL to a port of 127.0.0.1. All names are 127.0.0.1 anyway. */
  readonly ports?: Readonly<Record<string, number>>;
  /** Default: none. */
  readonly headers?: Readonly<Record<string, string>>;
};

export type PageForm = {
  readonly method: string;
  readonly action: string;
  /** Hidden fields and those that are filled already. */
  readonly fields: Readonly<Record<string, string>>;
  readonly buttons: readonly { readonly name: string; readonly value: string; readonly text: string }[];
};

/** Where a walk ended. `status` 0: at an address where it was to stop, which was not asked. */
export type Page = {
  readonly url: URL;
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  /** What a person reads, without markup. */
  readonly text: string;
  readonly forms: readonly PageForm[];
};

export type Walk = {
  /** The walk ends at the first address that begins with it, and at every one that is neither http nor https. */
  readonly stopAt?: string;
  readonly headers?: Readonly<Record<string, string>>;
};

type Cookie = { readonly host: string; readonly path: string; readonly name: string; readonly value: string; readonly secure: boolean };

export class ScriptedBrowser implements AsyncDisposable {
  readonly #agent: Agent;
  readonly #headers: Readonly<Record<string, string>>;
  #jar: Cookie[] = [];

  constructor({ ca, ports = {}, headers = {} }: BrowserOptions) {
    const connect = buildConnector(ca === undefined ? {} : { ca });
    this.#headers = headers;
    this.#agent = new Agent({
      connect: (options, callback) => {
        const port = ports[`${options.hostname}:${options.port}`] ?? ports[options.hostname] ?? options.port;
        connect({ ...options, hostname: "127.0.0.1", servername: options.servername ?? options.hostname, port: String(port) }, callback);
      },
    });
  }

  /** Goes to the address and follows where it leads. */
  open(url: string | URL, walk: Walk = {}): Promise<Page> {
    return this.#walk("GET", new URL(url), null, walk);
  }

  /** Presses the button with that text, name=value or value; `fields` are typed in before. */
  submit(page: Page, button: string, fields: Readonly<Record<string, string>> = {}, walk: Walk = {}): Promise<Page> {
    for (const form of page.forms) {
      const pressed = form.buttons.find(({ name, value, text }) => button === text || button === value || button === `${name}=${value}`);
      if (pressed === undefined) continue;
      const values = new URLSearchParams({ ...form.fields, ...fields, ...(pressed.name === "" ? {} : { [pressed.name]: pressed.value }) });
      const url = new URL(form.action, page.url);
      if (form.method !== "post") url.search = values.toString();
      return this.#walk(form.method === "post" ? "POST" : "GET", url, form.method === "post" ? values.toString() : null, walk);
    }
    throw new Error(`No button '${button}' at ${page.url.href}, ${page.status}: ${page.text.slice(0, 600)}`);
  }

  /** Cookies that it keeps for the host of the URL, by name. */
  cookies(url: string): ReadonlyMap<string, string> {
    const { hostname } = new URL(url);
    return new Map(this.#jar.filter(({ host }) => host === hostname).map(({ name, value }) => [name, value]));
  }

  setCookie(url: string, name: string, value: string): void {
    this.#keep(new URL(url), `${name}=${value}; Path=/`);
  }

  clearCookies(): void {
    this.#jar = [];
  }

  async #walk(first: "GET" | "POST", start: URL, form: string | null, { stopAt, headers = {} }: Walk): Promise<Page> {
    let method = first;
    let body = form;
    let url = start;
    let from: string | null = null;
    for (let step = 0; step < MAX_STEPS; step += 1) {
      const isStop = !/^https?:$/.test(url.protocol) || (stopAt !== undefined && url.href.startsWith(stopAt));
      if (isStop) return { url, status: 0, headers: {}, body: "", text: "", forms: [] };
      const response = await request(url, {
        method,
        dispatcher: this.#agent,
        body,
        headers: {
          accept: "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
          "user-agent": "Mozilla/5.0 (scripted)",
          "sec-fetch-mode": "navigate",
          "sec-fetch-dest": "document",
          "sec-fetch-site": from === null && method === "GET" ? "none" : from === null || from === url.origin ? "same-origin" : "cross-site",
          ...(method === "POST" ? { origin: url.origin, "content-type": "application/x-www-form-urlencoded" } : {}),
          ...this.#cookieHeader(url),
          ...this.#headers,
          ...headers,
        },
      });
      const text = await response.body.text();
      for (const line of [response.headers["set-cookie"] ?? []].flat()) this.#keep(url, line);
      const location = response.headers["location"];
      if (response.statusCode < 300 || response.statusCode >= 400 || typeof location !== "string")
        return { url, status: response.statusCode, headers: response.headers, body: text, text: textOf(text), forms: formsOf(text) };
      if (response.statusCode !== 307 && response.statusCode !== 308) {
        method = "GET";
        body = null;
      }
      from = url.origin;
      url = new URL(location, url);
    }
    throw new Error(`More than ${MAX_STEPS} redirects from ${start.href}`);
  }

  #cookieHeader(url: URL): Record<string, string> {
    const isSecure = url.protocol === "https:" || url.hostname === "localhost" || url.hostname === "127.0.0.1";
    const sent = this.#jar.filter(
      ({ host, path, secure }) =>
        host === url.hostname && (url.pathname === path || url.pathname.startsWith(path.endsWith("/") ? path : `${path}/`)) && (!secure || isSecure),
    );
    return sent.length === 0 ? {} : { cookie: sent.map(({ name, value }) => `${name}=${value}`).join("; ") };
  }

  #keep(url: URL, line: string): void {
    const [pair = "", ...attributes] = line.split(";").map((part) => part.trim());
    const equals = pair.indexOf("=");
    const [name, value] = [pair.slice(0, equals), pair.slice(equals + 1)];
    const attribute = (wanted: string): string | undefined => {
      const found = attributes.find((one) => one.toLowerCase() === wanted || one.toLowerCase().startsWith(`${wanted}=`));
      return found?.slice(wanted.length + 1);
    };
    const path = attribute("path") ?? "/";
    const secure = attribute("secure") !== undefined;
    // RFC 6265bis, 4.1.3.2.
    if (name.startsWith("__Host-") && (!secure || path !== "/" || attribute("domain") !== undefined || url.protocol !== "https:")) return;
    this.#jar = this.#jar.filter((one) => one.host !== url.hostname || one.name !== name || one.path !== path);
    const age = attribute("max-age");
    const expires = attribute("expires");
    const isOver = age === undefined ? expires !== undefined && Date.parse(expires) <= Date.now() : Number(age) <= 0;
    if (!isOver) this.#jar.push({ host: url.hostname, path, name, value, secure });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

export function scriptedBrowser(options: BrowserOptions = {}): ScriptedBrowser {
  return new ScriptedBrowser(options);
}

/**
 * A person who says yes: opens the address, consents by the way (`github`, `oidc`, `tailnet`; `password` with its fields) and follows.
 * @param walk.stopAt the client's redirect URI
 * @returns where the browser ended, with the code in its query
 * @throws when that is a page instead
 */
export async function approve(
  browser: ScriptedBrowser,
  url: string | URL,
  { way = "github", fields = {}, ...walk }: Walk & { readonly way?: string; readonly fields?: Readonly<Record<string, string>> },
): Promise<URL> {
  const asked = await browser.open(url, walk);
  const end = asked.status === 0 ? asked : await browser.submit(asked, `way=${way}`, fields, walk);
  if (end.status !== 0) throw new Error(`${end.url.href} shows a page, ${end.status}: ${end.text.slice(0, 600)}`);
  return end.url;
}

function formsOf(body: string): PageForm[] {
  return [...body.matchAll(/<form\b([^>]*)>([\s\S]*?)<\/form>/gi)].map(([, attributes = "", inner = ""]) => {
    const fields = [...inner.matchAll(/<input\b([^>]*)>/gi)].flatMap(([, input = ""]) => {
      const name = attributeOf(input, "name");
      const type = attributeOf(input, "type") ?? "text";
      return name === null || type === "submit" || type === "checkbox" || type === "radio" ? [] : [[name, attributeOf(input, "value") ?? ""] as const];
    });
    const buttons = [...inner.matchAll(/<button\b([^>]*)>([\s\S]*?)<\/button>|<input\b([^>]*type="submit"[^>]*)>/gi)].map((found) => {
      const own = found[1] ?? found[3] ?? "";
      return { name: attributeOf(own, "name") ?? "", value: attributeOf(own, "value") ?? "", text: textOf(found[2] ?? attributeOf(own, "value") ?? "") };
    });
    return {
      method: (attributeOf(attributes, "method") ?? "get").toLowerCase(),
      action: attributeOf(attributes, "action") ?? "",
      fields: Object.fromEntries(fields),
      buttons,
    };
  });
}

function attributeOf(text: string, name: string): string | null {
  const found = new RegExp(`(?:^|\\s)${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)')`, "i").exec(text);
  return found === null ? null : unescape(found[1] ?? found[2] ?? "");
}

function textOf(body: string): string {
  return unescape(body.replaceAll(/<(style|head)\b[\s\S]*?<\/\1>/gi, "").replaceAll(/<[^>]+>/g, " "))
    .replaceAll(/\s+/g, " ")
    .trim();
}

function unescape(text: string): string {
  const signs: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', "#39": "'", "#x27": "'", amp: "&" };
  return text.replaceAll(/&(lt|gt|quot|#39|#x27|amp);/g, (_all, name: string) => signs[name] ?? "");
}
