// A browser that is led about by redirects alone, in a window of its own each time: cookies are kept for one walk.
import { Agent, request } from "undici";

const MAX_STEPS = 20;

export type Visit = {
  /** Default: the system's CAs. */
  readonly ca?: string;
  /** Where the walk ends: at the first address that does not begin with it. Default: the origin that it begins at. */
  readonly within?: string;
};

/**
 * Follows the redirects of a provider until one leads away from it.
 * @returns the address that it leads to, which is not visited
 * @throws when a page comes instead, with its status and beginning
 */
export async function walk(location: string, { ca, within = new URL(location).origin }: Visit = {}): Promise<URL> {
  const agent = new Agent(ca === undefined ? {} : { connect: { ca } });
  const jar = new Map<string, string>();
  let url = new URL(location);
  try {
    for (let step = 0; step < MAX_STEPS; step += 1) {
      if (!url.href.startsWith(within)) return url;
      const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
      const response = await request(url, {
        dispatcher: agent,
        headers: { accept: "text/html", "user-agent": "Mozilla/5.0", ...(cookie === "" ? {} : { cookie }) },
      });
      const body = await response.body.text();
      for (const line of [response.headers["set-cookie"] ?? []].flat()) {
        const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
        if (value === "") jar.delete(name);
        else jar.set(name, value);
      }
      const to = response.headers["location"];
      if (typeof to !== "string") throw new Error(`${url.pathname} shows a page, ${response.statusCode}: ${body.slice(0, 600)}`);
      url = new URL(to, url);
    }
    throw new Error(`More than ${MAX_STEPS} redirects from ${location}`);
  } finally {
    await agent.close();
  }
}
