// People of a password file: guesses, what the log says of them, and edits of the file while they are logged in.
import assert from "node:assert/strict";
import { rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { hashPassword } from "../../src/lib/password-file.ts";
import { approve, scriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { Peer, PEER_REDIRECT } from "../components/oauth-peer.ts";
import { waitFor } from "../components/wait.ts";

const PASSWORDS = { alice: "correct horse battery", bob: "staple of bob" };
const HASHES = { alice: await hashPassword(PASSWORDS.alice), bob: await hashPassword(PASSWORDS.bob) };

async function open(upstream: { readonly port: number }): Promise<{ gateway: Gateway; origin: string; readonly edit: (text: string) => Promise<void> }> {
  const origin = `http://127.0.0.1:${await freePort()}`;
  const to = `upstream: "http://127.0.0.1:${upstream.port}"`;
  const gateway = await startGateway({
    files: { users: `alice:${HASHES.alice}:ops\nbob:${HASHES.bob}\n` },
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { password: { users_file: users } }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", ${to}, auth: [{ oauth: { scopes: [mcp] } }] }
  - { path_prefix: /ops, public_url: "${origin}/ops", ${to}, auth: [{ session: { allow: { groups: [ops] } } }] }
  - { path_prefix: /pages, public_url: "${origin}/pages", ${to}, auth: [{ session: {} }] }
`,
  });
  const users = join(dirname(gateway.file), "users");
  const edit = async (text: string): Promise<void> => {
    const reloads = (): number => gateway.log.filter((line) => line["event"] === "reloaded").length;
    const before = reloads();
    await writeFile(`${users}.new`, text);
    await rename(`${users}.new`, users);
    await waitFor(() => reloads() > before);
  };
  return { gateway, origin, edit };
}

test("a wrong password stays on the page, guessing is slowed down and logged without what was typed, and the right one leads on", async () => {
  await using upstream = await startOrigin();
  const { gateway, origin } = await open(upstream);
  await using _running = gateway;
  await using peer = new Peer();
  await using browser = scriptedBrowser();
  const clientId = await peer.register(origin);
  const asked = peer.authorization(origin, clientId, { resource: `${origin}/mcp` });
  let page = await browser.open(asked.url);
  const guesses = ["hunter2-hunter2", "letmein-letmein", "p4ssw0rd-p4ssw0rd", "qwerty-qwerty", "dragon-dragon", "monkey-monkey", "guessed-last"];
  const statuses: number[] = [];
  for (const password of guesses) {
    page = await browser.submit(page, "way=password", { name: "alice", password });
    statuses.push(page.status);
  }
  assert.deepEqual(statuses.slice(0, 5), [401, 401, 401, 401, 401]);
  assert.deepEqual(statuses.slice(5), [429, 429]);
  assert.match(String(page.headers["retry-after"]), /^[1-9]\d*$/);
  assert.match(page.text, /Too many attempts have failed; try again in/);
  assert.equal(
    page.forms.some(({ fields }) => fields["name"] === "alice"),
    true,
  );
  assert.ok(!page.body.includes("guessed-last"));
  // A right password is put off, too: nobody learns from the answer that it was right.
  const right = { name: "alice", password: PASSWORDS.alice };
  assert.equal((await browser.submit(page, "way=password", right)).status, 429);
  // Others of the same address are not.
  const bobs = await browser.open(peer.authorization(origin, clientId, { resource: `${origin}/mcp` }).url);
  const bob = await browser.submit(bobs, "way=password", { name: "bob", password: PASSWORDS.bob }, { stopAt: PEER_REDIRECT });
  assert.ok(bob.url.searchParams.has("code"), bob.text);
  const end = await waitFor(async () => {
    const next = await browser.submit(page, "way=password", right, { stopAt: PEER_REDIRECT });
    return next.status === 0 ? next.url : null;
  });
  const answer = await peer.exchange(origin, clientId, asked, end.searchParams.get("code") ?? assert.fail(end.href));
  assert.equal(await peer.status(`${origin}/mcp`, String(answer.json["access_token"])), 200);

  const failed = gateway.log.filter(({ msg }) => msg === "Login with a password failed");
  assert.equal(failed.length, 5);
  assert.ok(failed.every((line) => line["user"] === "alice" && line["client"] === "127.0.0.1"));
  assert.ok(gateway.log.some(({ msg }) => msg.startsWith("Login with a password put off")));
  await waitFor(() => gateway.accessLog.some((line) => line["identity"] === "password:alice"));
  const all = JSON.stringify([gateway.log, gateway.accessLog]);
  for (const secret of [...guesses, ...Object.values(PASSWORDS), ...Object.values(HASHES)]) assert.ok(!all.includes(secret), secret);
});

test("a person who is taken out of the password file is out with the next request, and whose group is taken has it no more", async () => {
  await using upstream = await startOrigin();
  const { gateway, origin, edit } = await open(upstream);
  await using _running = gateway;
  await using peer = new Peer();
  await using alices = scriptedBrowser();
  await using bobs = scriptedBrowser();
  const logIn = (name: keyof typeof PASSWORDS): ReturnType<Peer["login"]> =>
    peer.login(origin, `${origin}/mcp`, async (url) => {
      await using browser = scriptedBrowser();
      return await approve(browser, url, { way: "password", fields: { name, password: PASSWORDS[name] }, stopAt: PEER_REDIRECT });
    });
  const [alice, bob] = [await logIn("alice"), await logIn("bob")];
  for (const [browser, name, path] of [
    [alices, "alice", "/ops/x"],
    [bobs, "bob", "/pages/x"],
  ] as const) {
    const login = await browser.open(`${origin}${path}`);
    const page = await browser.submit(login, "way=password", { name, password: PASSWORDS[name] });
    assert.deepEqual([page.status, page.url.pathname], [200, path]);
  }
  assert.equal((await bobs.open(`${origin}/ops/x`)).status, 403);

  await edit(`alice:${HASHES.alice}\n`);
  assert.equal(await peer.status(`${origin}/mcp`, alice.access), 200);
  assert.equal(await peer.status(`${origin}/mcp`, bob.access), 401);
  assert.equal((await peer.refresh(origin, bob.clientId, bob.refresh)).json["error"], "invalid_grant");
  assert.equal((await alices.open(`${origin}/ops/x`)).status, 403);
  assert.equal((await alices.open(`${origin}/pages/x`)).status, 200);
  // He is asked to log in, and cannot.
  const asked = await bobs.open(`${origin}/pages/x`);
  assert.deepEqual([asked.status, asked.url.pathname], [200, "/.sidegate/login"]);
  assert.equal((await bobs.submit(asked, "way=password", { name: "bob", password: PASSWORDS.bob })).status, 401);

  // Whoever comes back to the file, of the name and with the password, is let in again.
  await edit(`alice:${HASHES.alice}:ops\nbob:${HASHES.bob}:ops\n`);
  assert.equal(await peer.status(`${origin}/mcp`, bob.access), 200);
  for (const browser of [alices, bobs]) assert.equal((await browser.open(`${origin}/ops/x`)).status, 200);

  // A new password ends what the one before has opened: whoever knew it is out.
  await edit(`alice:${HASHES.bob}:ops\nbob:${HASHES.bob}:ops\n`);
  assert.deepEqual([await peer.status(`${origin}/mcp`, alice.access), await peer.status(`${origin}/mcp`, bob.access)], [401, 200]);
  assert.equal((await peer.refresh(origin, alice.clientId, alice.refresh)).json["error"], "invalid_grant");
  assert.equal((await alices.open(`${origin}/ops/x`)).url.pathname, "/.sidegate/login");
  assert.equal((await bobs.open(`${origin}/ops/x`)).url.pathname, "/ops/x");
});
