// The person at the browser: consents to what a client asks, and logs in with GitHub.
import { ScriptedBrowser } from "./browser.ts";

/** Goes through the consent page and GitHub. @returns the client's address that the browser is sent to, which is not visited */
export async function approve(authorization: URL): Promise<URL> {
  await using browser = new ScriptedBrowser({});
  const stopAt = authorization.searchParams.get("redirect_uri") ?? "";
  const page = await browser.open(authorization, { stopAt });
  // The client is told of an error without any page.
  if (page.status === 0) return page.url;
  return (await browser.submit(page, "way=github", {}, { stopAt })).url;
}
