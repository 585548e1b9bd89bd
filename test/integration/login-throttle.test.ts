// Guesses of passwords are counted for the whole gateway.
import assert from "node:assert/strict";
import { test } from "node:test";
import { hashPassword } from "../../src/lib/password-file.ts";
import { scriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";

test("whoever guesses passwords does not begin anew at another host of the gateway, nor after an edit of the file", async () => {
  await using upstream = await startOrigin();
  const port = await freePort();
  const yaml = (lifetime: string): string => `
listeners:
  web: { protocol: http, listen: "127.0.0.1:${port}", tls: { mode: disabled } }
auth:
  login: { password: { users_file: users } }
routes:
${["localhost", "127.0.0.1"].map((name) => `  - { host: "${name}", path_prefix: /, public_url: "http://${name}:${port}", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ session: { lifetime: ${lifetime} } }] }`).join("\n")}
`;
  await using gateway = await startGateway({ yaml: yaml("1h"), files: { users: `alice:${await hashPassword("correct horse battery")}\n` } });
  const guess = async (host: string, headers: Record<string, string> = {}): Promise<number> => {
    await using browser = scriptedBrowser({ headers });
    const page = await browser.open(`http://${host}:${port}/`);
    return (await browser.submit(page, "way=password", { name: "alice", password: "wrong wrong" })).status;
  };
  for (let i = 0; i < 5; i += 1) assert.equal(await guess("localhost"), 401);
  assert.equal(await guess("127.0.0.1"), 429);
  // What a client that nobody trusts says of others does not make it another one.
  assert.equal(await guess("localhost", { "x-forwarded-for": "203.0.113.9", forwarded: "for=203.0.113.9" }), 429);
  for (const host of ["localhost", "127.0.0.1"]) {
    await gateway.edit(yaml(host === "localhost" ? "2h" : "3h"));
    // The first delays are short: one guess may be due again, a second at once never is.
    await guess(host);
    assert.equal(await guess(host), 429);
  }
});
