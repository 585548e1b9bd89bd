import assert from "node:assert/strict";
import { randomBytes, scryptSync } from "node:crypto";
import { suite, test } from "node:test";
import { openLog } from "../telemetry/log.ts";
import { openPasswordLogin, type PasswordLogin } from "./login-password.ts";
import { LoginError } from "./login-source.ts";
import { LoginThrottle } from "./login-throttle.ts";

/** Cheaper than those of the command, so that the tests are quick. */
function hashOf(password: string, log2N = 14): string {
  const salt = randomBytes(16);
  const key = scryptSync(password, salt, 32, { N: 2 ** log2N, r: 8, p: 1, maxmem: 2 ** 30 });
  const text = (bytes: Buffer): string => bytes.toString("base64").replace(/=+$/, "");
  return `$scrypt$ln=${log2N},r=8,p=1$${text(salt)}$${text(key)}`;
}

function open(log2N?: number): { readonly login: PasswordLogin; readonly lines: string[]; readonly clock: { ms: number } } {
  const lines: string[] = [];
  const clock = { ms: 1_000 };
  const log = openLog({ level: "trace", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(text) });
  const users = new Map([["alice", { hash: hashOf("correct horse", log2N), groups: ["ops"] }]]);
  return { login: openPasswordLogin(users, new LoginThrottle({ now: () => clock.ms }), log), lines, clock };
}

function from(client: string): { readonly client: string; readonly requestId: string } {
  return { client, requestId: "request-1" };
}

async function refusalOf(task: Promise<unknown>): Promise<LoginError> {
  try {
    await task;
  } catch (error) {
    assert.ok(error instanceof LoginError, String(error));
    return error;
  }
  throw new Error("Nobody was refused");
}

suite("login with a password", { timeout: 60_000 }, () => {
  test("the right password makes a person with the groups of the file", async () => {
    const { login, lines } = open();
    assert.deepEqual(await login.check("alice", "correct horse", from("192.0.2.1")), {
      source: "password",
      subject: "alice",
      name: "alice",
      email: null,
      domain: null,
      orgs: [],
      teams: [],
      groups: ["ops"],
      claims: {},
      peer: null,
    });
    assert.deepEqual(lines, []);
  });

  test("a wrong password and a name that is not there are told alike, and logged without the password", async () => {
    const { login, lines } = open();
    const wrong = await refusalOf(login.check("alice", "wrong horse", from("192.0.2.1")));
    const unknown = await refusalOf(login.check("bob", "correct horse", from("192.0.2.1")));
    assert.deepEqual([wrong.reason, wrong.message, wrong.detail], [unknown.reason, unknown.message, unknown.detail]);
    assert.equal(wrong.reason, "refused");
    assert.match(lines.join(""), /"request_id":"request-1","user":"alice","client":"192\.0\.2\.1"/);
    assert.doesNotMatch(lines.join(""), /horse/);
  });

  test("a password that was typed in place of the name is not logged", async () => {
    const { login, lines } = open();
    await refusalOf(login.check("correct horse battery!", "", from("192.0.2.1")));
    await refusalOf(login.check("alice\n{}", "x", from("192.0.2.1")));
    assert.doesNotMatch(lines.join(""), /horse|alice/);
    assert.match(lines.join(""), /not a user name/);
  });

  test("names of objects are no names of people", async () => {
    const { login } = open();
    for (const name of ["__proto__", "constructor", "toString", ""])
      assert.equal((await refusalOf(login.check(name, "x", from("192.0.2.1")))).reason, "refused");
  });

  test("no password is taken for a name that is not there, not even the same one twice", async () => {
    const { login } = open();
    for (let i = 0; i < 3; i += 1) assert.equal((await refusalOf(login.check("bob", "", from("192.0.2.1")))).reason, "refused");
  });

  test("an endless password is refused without work", async () => {
    const { login } = open();
    assert.equal((await refusalOf(login.check("alice", "a".repeat(1_025), from("192.0.2.1")))).reason, "refused");
  });

  test("it takes as long for a name that is not there", async () => {
    const { login } = open(16);
    const timeOf = async (name: string): Promise<number> => {
      const times: number[] = [];
      for (let i = 0; i < 4; i += 1) {
        const start = performance.now();
        await refusalOf(login.check(name, "wrong", from(`192.0.2.${i}`)));
        times.push(performance.now() - start);
      }
      return Math.min(...times);
    };
    const [known, unknown] = [await timeOf("alice"), await timeOf("bob")];
    assert.ok(unknown > known / 3 && unknown < known * 3, `${known} ms and ${unknown} ms`);
  });

  test("guesses are put off with the time to wait, the right password too, until it is over", async () => {
    const { login, lines, clock } = open();
    for (let i = 0; i < 6; i += 1) {
      await refusalOf(login.check("alice", "wrong", from("192.0.2.1")));
      clock.ms += 1_000;
    }
    const off = await refusalOf(login.check("alice", "correct horse", from("192.0.2.1")));
    assert.match(lines.join(""), /"request_id":"request-1".*"retry_after_s":1,.*put off/);
    assert.deepEqual([off.reason, off.retryAfterS], ["throttled", 1]);
    assert.match(off.message, /try again in a second/);
    assert.match(lines.at(-1) ?? "", /put off/);
    clock.ms += 1_000;
    assert.equal((await login.check("alice", "correct horse", from("192.0.2.1"))).name, "alice");
  });

  test("when too many come at once some are asked to come back, nobody else's work stops, and the queue empties", async () => {
    const { login } = open(15);
    let ticks = 0;
    const ticker = setInterval(() => (ticks += 1), 5);
    const all = await Promise.allSettled(Array.from({ length: 40 }, async (_, i) => await login.check("alice", "correct horse", from(`192.0.2.${i}`))));
    clearInterval(ticker);
    const refused = all.filter((one) => one.status === "rejected").map((one) => one.reason as LoginError);
    assert.equal(all.length - refused.length, 18, "two at work and sixteen that wait");
    for (const one of refused) assert.deepEqual([one.reason, one.retryAfterS], ["unavailable", 3]);
    assert.ok(ticks > 10, `the event loop went on: ${ticks}`);
    assert.equal((await login.check("alice", "correct horse", from("192.0.2.1"))).name, "alice");
  });

  test("one address does not fill the queue", async () => {
    const { login } = open(15);
    // Each name has five attempts of its own, so the throttle lets these through.
    const crowd = Array.from({ length: 12 }, async (_, i) => await login.check(`user${i}`, "x", from("203.0.113.7")));
    const other = login.check("alice", "correct horse", from("192.0.2.1"));
    const reasons = (await Promise.allSettled(crowd)).map((one) => (one.status === "rejected" ? (one.reason as LoginError).reason : "none"));
    assert.equal(reasons.filter((reason) => reason === "unavailable").length, 6, reasons.join());
    assert.equal((await other).name, "alice");
  });
});
