// Chromium, for pages as people see them and for what only a real browser refuses.
import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from "playwright-core";
import { findProgram } from "./require.ts";

export const chromiumMissing = findProgram("chromium") === null ? "Chromium is not installed" : null;

export type RealBrowser = AsyncDisposable & {
  readonly browser: Browser;
  /** A window with cookies of its own; closed with the browser. Self-signed certificates are taken. */
  open(options?: BrowserContextOptions): Promise<{ readonly context: BrowserContext; readonly page: Page }>;
};

/** Starts it without a window. Every name is 127.0.0.1: nothing leaves the machine. @throws when it is not installed: see `chromiumMissing` */
export async function startBrowser(): Promise<RealBrowser> {
  const executablePath = findProgram("chromium");
  if (executablePath === null) throw new Error(chromiumMissing ?? "");
  const browser = await chromium.launch({
    executablePath,
    // Tests run as root in containers, where its sandbox cannot.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * 127.0.0.1", "--disable-background-networking"],
  });
  return {
    browser,
    async open(options = {}) {
      const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
      return { context, page: await context.newPage() };
    },
    [Symbol.asyncDispose]: () => browser.close(),
  };
}

/** The person at the page says yes. @param button what is written on it */
export async function press(page: Page, button: string): Promise<void> {
  await page.getByRole("button", { name: button, exact: true }).click();
}
