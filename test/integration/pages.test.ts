// The pages in Chromium: what only a real browser refuses, and how they fit a phone.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { chromiumMissing, press, startBrowser } from "../components/chromium.ts";
import { fakeSource, startLoginFlow } from "../components/login-flow.ts";
import { skipWithout } from "../components/require.ts";

const CONSENT = "/.sidegate/consent/u1";

test("#31 in Chromium a person consents, goes over two hosts to the provider, and comes back to the client", async (t) => {
  if (skipWithout(t, chromiumMissing)) return;
  // A provider that hands over to another host before it sends people back: form-action counts each of these steps.
  const provider = createServer((req, res) => {
    const url = new URL(req.url ?? "/", "http://idp.localhost");
    const { port } = provider.address() as AddressInfo;
    const location = url.pathname === "/start" ? `http://login.localhost:${port}/next${url.search}` : (url.searchParams.get("back") ?? "");
    res.writeHead(302, { location }).end();
  });
  provider.listen(0, "127.0.0.1");
  await once(provider, "listening");
  const at = `http://idp.localhost:${(provider.address() as AddressInfo).port}/start`;
  try {
    await using server = await startLoginFlow({
      external: [fakeSource({ at })],
      plan: {
        login: {
          github: { clientId: "c", clientSecret: "s", baseUrl: at.replace("/start", ""), apiUrl: "", ca: null },
          oidc: null,
          password: null,
          tailnet: false,
        },
      },
    });
    await using chromium = await startBrowser();
    const { page } = await chromium.open();
    const problems: string[] = [];
    page.on("console", (message) => problems.push(message.text()));
    await page.goto(`${server.issuer}${CONSENT}`);
    await press(page, "Continue with GitHub");
    await page.waitForURL(/\/client\?code=granted$/);
    assert.deepEqual(server.told, ["approve octocat mcp"]);
    assert.deepEqual(
      problems.filter((text) => !text.includes("favicon")),
      [],
    );
  } finally {
    provider.closeAllConnections();
    provider.close();
  }
});

test("#31 no page of another origin shows ours in a frame", async (t) => {
  if (skipWithout(t, chromiumMissing)) return;
  await using server = await startLoginFlow();
  await using chromium = await startBrowser();
  const { page } = await chromium.open();
  await page.goto(`${server.app}/open`);
  await page.setContent(`<iframe src="${server.issuer}${CONSENT}"></iframe>`);
  await page.waitForLoadState("networkidle");
  const frame = page.frames().find((one) => one !== page.mainFrame());
  assert.equal(await frame?.getByRole("button").count(), 0);
});

test("#31 a form on another site does nothing, with the cookies of the person in Chromium", async (t) => {
  if (skipWithout(t, chromiumMissing)) return;
  await using server = await startLoginFlow();
  await using chromium = await startBrowser();
  const { page } = await chromium.open();
  await page.goto(`${server.issuer}${CONSENT}`);
  const token = await page.locator("input[name=csrf]").first().inputValue();
  await page.goto(`${server.app}/open`);
  // Even with the right token: same-site hosts send our cookie along.
  await page.setContent(
    `<form method="post" action="${server.issuer}${CONSENT}"><input name="csrf" value="${token}"><button name="way" value="github">Win</button></form>`,
  );
  await press(page, "Win");
  await page.getByRole("heading", { name: "The form was not accepted" }).waitFor();
  assert.deepEqual(server.told, []);
});

test("in Chromium a session begins, stays, and ends by the button", async (t) => {
  if (skipWithout(t, chromiumMissing)) return;
  await using server = await startLoginFlow({ password: ["alice", "correct horse"] });
  await using chromium = await startBrowser();
  const { page } = await chromium.open();
  await page.goto(`${server.app}/report`);
  await page.getByLabel("User name").fill("alice");
  await page.getByLabel("Password").fill("wrong");
  await page.getByLabel("Password").press("Enter");
  await page.getByRole("alert").waitFor();
  await page.getByLabel("Password").fill("correct horse");
  await press(page, "Log in");
  await page.getByText("at /report as alice").waitFor();
  await page.goto(`${server.app}/.sidegate/logout`);
  await press(page, "Sign out");
  await page.getByRole("heading", { name: "You are signed out" }).waitFor();
  await page.goto(`${server.app}/open`);
  await page.getByText("at /open as none").waitFor();
});

test("the pages fit a phone, in light and dark, with a heading and names for all fields", async (t) => {
  if (skipWithout(t, chromiumMissing)) return;
  await using server = await startLoginFlow({
    password: ["alice", "x"],
    pending: { clientName: "W".repeat(200), redirectUri: `https://${"long".repeat(14)}.example.com/cb` },
  });
  await using chromium = await startBrowser();
  for (const colorScheme of ["light", "dark"] as const) {
    const { page } = await chromium.open({ viewport: { width: 390, height: 844 }, colorScheme });
    await page.goto(`${server.issuer}${CONSENT}`);
    assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1);
    assert.equal(await page.locator("html").getAttribute("lang"), "en");
    const overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert.equal(overflow, 0);
    assert.equal(await page.evaluate("getComputedStyle(document.body).backgroundColor"), colorScheme === "light" ? "rgb(243, 244, 247)" : "rgb(14, 17, 22)");
    assert.ok((await page.getByLabel("Password").count()) === 1 && (await page.getByLabel("User name").count()) === 1);
  }
});
