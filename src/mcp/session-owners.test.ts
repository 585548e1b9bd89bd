import assert from "node:assert/strict";
import { test } from "node:test";
import { isDisguised, SessionOwners } from "./session-owners.ts";

test("#46 a session is its first user's until it ends, at each place for itself", () => {
  const owners = new SessionOwners();
  assert.equal(owners.isForeign("up", "s", "b"), false);
  owners.bind("up", "s", "a");
  owners.bind("up", "s", "b");
  assert.equal(owners.isForeign("up", "s", "a"), false);
  assert.equal(owners.isForeign("up", "s", "b"), true);
  assert.equal(owners.isForeign("other", "s", "b"), false);
  owners.unbind("up", "s", "b");
  assert.equal(owners.isForeign("up", "s", "b"), true);
  owners.unbind("up", "s", "a");
  assert.equal(owners.size, 0);
});

test("memory is bounded: the session used longest ago goes first, and one who opens many loses their own", () => {
  const owners = new SessionOwners(4, 2);
  for (const session of ["1", "2", "3"]) owners.bind("up", session, "greedy");
  assert.equal(owners.size, 2);
  assert.equal(owners.isForeign("up", "1", "x"), false);
  assert.equal(owners.isForeign("up", "3", "x"), true);
  owners.bind("up", "a", "a");
  owners.bind("up", "b", "b");
  owners.bind("up", "2", "greedy");
  owners.bind("up", "c", "c");
  assert.equal(owners.size, 4);
  assert.equal(owners.isForeign("up", "3", "x"), false);
  assert.equal(owners.isForeign("up", "2", "x"), true);
});

test("#46 another spelling of a UUID is the same session", () => {
  const owners = new SessionOwners();
  const id = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
  owners.bind("up", id, "a");
  const hyphened = id.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  for (const same of [id.toUpperCase(), hyphened, `{${id}}`, `urn:uuid:${hyphened}`, `+${id.slice(1)}`, id.slice(0, 9) + "-" + id.slice(9)])
    assert.equal(owners.isForeign("up", same, "b"), true, same);
  owners.bind("up", "00abcdefabcdefabcdefabcdefabcdef", "a");
  for (const same of ["0xabcdefabcdefabcdefabcdefabcdef", "0_abcdefabcdefabcdefabcdefabcdef"]) assert.equal(owners.isForeign("up", same, "b"), true, same);
  owners.bind("up", "Abc", "a");
  assert.equal(owners.isForeign("up", "abc", "b"), false);
  for (const disguised of [`\uff10${id.slice(1)}`, ` ${id.slice(1)}`, `{${id.slice(1)}\u{1d7d8}}`]) assert.equal(isDisguised(disguised), true);
  for (const other of [id, "München", "regular hours", ` ${id}`]) assert.equal(isDisguised(other), false);
});
