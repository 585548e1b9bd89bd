import assert from "node:assert/strict";
import { test } from "node:test";
import { refusal } from "./guard.ts";

const TCP = { kind: "tcp", host: "127.0.0.1", port: 2019 } as const;
const UNIX = { kind: "unix", path: "/run/sidegate.sock" } as const;

test("local names are let in, with any port", () => {
  for (const host of ["localhost", "LOCALHOST:2019", "127.0.0.1", "127.0.0.1:1", "[::1]:2019"]) assert.equal(refusal({ host }, TCP), null, host);
  assert.equal(refusal({ host: "127.0.0.5:2019" }, { ...TCP, host: "127.0.0.5" }), null);
  assert.equal(refusal({ host: "[::2]:2019" }, { ...TCP, host: "::2" }), null);
});

test("names that an attacker's DNS could point here are refused", () => {
  for (const host of [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example:127.0.0.1",
    "localhost:x",
    "127.0.0.1@evil.example",
    "localhost,evil.example",
    "[::1].evil",
    "127.0.0.5",
    "::1",
  ]) {
    assert.notEqual(refusal({ host }, TCP), null, host);
  }
  assert.notEqual(refusal({ host: "evil.example" }, UNIX), null);
});

test("no host is fine on a unix socket alone", () => {
  assert.equal(refusal({}, UNIX), null);
  assert.equal(refusal({ host: "" }, UNIX), null);
  assert.notEqual(refusal({}, TCP), null);
  assert.notEqual(refusal({ host: "" }, { ...TCP, host: null }), null);
});

test("whatever a web page makes a browser send is refused", () => {
  assert.notEqual(refusal({ host: "localhost", origin: "http://localhost:2019" }, TCP), null);
  assert.notEqual(refusal({ host: "localhost", origin: "null" }, TCP), null);
  assert.notEqual(refusal({ host: "localhost", "sec-fetch-site": "cross-site" }, TCP), null);
  assert.notEqual(refusal({ host: "localhost", "sec-fetch-site": "same-site" }, TCP), null);
  // Typed into the address bar by the user.
  assert.equal(refusal({ host: "localhost", "sec-fetch-site": "none" }, TCP), null);
});
