import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { LoginThrottle } from "./login-throttle.ts";

const MINUTE = 60_000;

type Clock = { ms: number };

function open(maxEntries?: number): { readonly clock: Clock; readonly throttle: LoginThrottle } {
  const clock = { ms: 1_000_000 };
  return { clock, throttle: new LoginThrottle({ now: () => clock.ms, ...(maxEntries === undefined ? {} : { maxEntries }) }) };
}

/** @returns how long to wait; 0 when the attempt was made, and failed */
function miss(throttle: LoginThrottle, name: string, address: string): number {
  const attempt = throttle.begin(name, address);
  if (typeof attempt === "number") return attempt;
  attempt.fail();
  return 0;
}

function hit(throttle: LoginThrottle, name: string, address: string): number {
  const attempt = throttle.begin(name, address);
  if (typeof attempt === "number") return attempt;
  attempt.succeed();
  return 0;
}

suite("how often passwords may be guessed", () => {
  test("five mistakes are free, then each wait is twice the last, to a quarter of an hour", () => {
    const { clock, throttle } = open();
    for (let i = 0; i < 5; i += 1) assert.equal(miss(throttle, "alice", "192.0.2.1"), 0);
    const waits: number[] = [];
    for (let i = 0; i < 14; i += 1) {
      const wait = miss(throttle, "alice", "192.0.2.1");
      waits.push(wait / 1_000);
      clock.ms += wait;
      assert.equal(miss(throttle, "alice", "192.0.2.1"), 0);
    }
    assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]);
  });

  test("a login that works starts the count of that name anew", () => {
    const { throttle } = open();
    for (let i = 0; i < 4; i += 1) miss(throttle, "alice", "192.0.2.1");
    assert.equal(hit(throttle, "alice", "192.0.2.1"), 0);
    for (let i = 0; i < 5; i += 1) assert.equal(miss(throttle, "alice", "192.0.2.1"), 0);
    assert.ok(miss(throttle, "alice", "192.0.2.1") > 0);
  });

  test("guesses from elsewhere do not keep a person out", () => {
    const { throttle } = open();
    for (let i = 0; i < 50; i += 1) miss(throttle, "alice", "203.0.113.7");
    assert.equal(hit(throttle, "alice", "192.0.2.1"), 0);
  });

  test("one address with many names is slowed", () => {
    const { throttle } = open();
    for (let i = 0; i < 20; i += 1) assert.equal(miss(throttle, `user${i}`, "203.0.113.7"), 0);
    assert.ok(miss(throttle, "another", "203.0.113.7") > 0);
    assert.equal(miss(throttle, "another", "203.0.113.8"), 0);
  });

  test("an account of one's own does not start the count of an address anew", () => {
    const { throttle } = open();
    for (let i = 0; i < 20; i += 1) {
      hit(throttle, "mallory", "203.0.113.7");
      miss(throttle, `user${i}`, "203.0.113.7");
    }
    assert.ok(miss(throttle, "another", "203.0.113.7") > 0);
  });

  test("a person who logged in at an address before is not kept out by what others do there", () => {
    const { throttle } = open();
    hit(throttle, "alice", "203.0.113.7");
    for (let i = 0; i < 30; i += 1) miss(throttle, `user${i}`, "203.0.113.7");
    assert.ok(miss(throttle, "bob", "203.0.113.7") > 0);
    assert.equal(hit(throttle, "alice", "203.0.113.7"), 0);
  });

  test("many addresses that guess one name are slowed together, for seconds", () => {
    const { clock, throttle } = open();
    hit(throttle, "alice", "192.0.2.1");
    for (let i = 0; i < 120; i += 1) {
      miss(throttle, "alice", `198.51.100.${i}`);
      clock.ms += 20;
    }
    const wait = miss(throttle, "alice", "198.51.100.200");
    assert.ok(wait > 0 && wait <= 10_000, `${wait}`);
    assert.equal(hit(throttle, "alice", "192.0.2.1"), 0, "where she logged in before she still can");
    clock.ms += 10_000;
    assert.equal(hit(throttle, "alice", "192.0.2.99"), 0, "elsewhere after seconds");
  });

  test("a hundred attempts at once are no way round", () => {
    const { throttle } = open();
    const attempts = Array.from({ length: 100 }, () => throttle.begin("alice", "192.0.2.1"));
    assert.equal(attempts.filter((one) => typeof one !== "number").length, 5);
    for (const one of attempts) if (typeof one !== "number") one.fail();
    assert.ok(miss(throttle, "alice", "192.0.2.1") > 0);
  });

  test("an attempt ends once", () => {
    const { throttle } = open();
    const attempt = throttle.begin("alice", "192.0.2.1");
    assert.ok(typeof attempt !== "number");
    attempt.fail();
    attempt.fail();
    attempt.succeed();
    for (let i = 0; i < 4; i += 1) assert.equal(miss(throttle, "alice", "192.0.2.1"), 0);
    assert.ok(miss(throttle, "alice", "192.0.2.1") > 0);
  });

  test("failures are forgotten after an hour without one", () => {
    const { clock, throttle } = open();
    for (let i = 0; i < 5; i += 1) miss(throttle, "alice", "192.0.2.1");
    clock.ms += 60 * MINUTE + 1;
    for (let i = 0; i < 5; i += 1) assert.equal(miss(throttle, "alice", "192.0.2.1"), 0);
  });

  test("one IPv6 network of 64 bits is one address, its neighbour is another", () => {
    const { throttle } = open();
    for (let i = 0; i < 20; i += 1) assert.equal(miss(throttle, `user${i}`, `2001:db8:0:7::${i.toString(16)}`), 0);
    assert.ok(miss(throttle, "another", "2001:db8:0:7:aaaa:bbbb:cccc:dddd") > 0);
    assert.ok(miss(throttle, "another", "2001:0db8::7:1:2:3:4") > 0);
    assert.equal(miss(throttle, "another", "2001:db8:0:8::1"), 0);
  });

  test("what is remembered has an end", () => {
    const { clock, throttle } = open(100);
    for (let i = 0; i < 5_000; i += 1) {
      miss(throttle, `user${i}`, `10.0.${i >> 8}.${i & 255}`);
      hit(throttle, `user${i}`, `10.1.${i >> 8}.${i & 255}`);
      clock.ms += 1;
    }
    assert.ok(throttle.size <= 400, `${throttle.size}`);
  });

  test("attempts that were not made are not remembered", () => {
    const { throttle } = open();
    for (let i = 0; i < 1_000; i += 1) {
      const attempt = throttle.begin(`user${i}`, "192.0.2.1");
      assert.ok(typeof attempt !== "number");
      attempt.cancel();
    }
    assert.equal(throttle.size, 0);
  });
});
