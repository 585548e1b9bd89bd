import assert from "node:assert/strict";
import { test } from "node:test";
import { cookieValue, setsOwnCookie, withoutOwnCookies } from "./cookies.ts";

test("a cookie is found by its exact name, also in crumbs; two of the name are none", () => {
  assert.equal(cookieValue(["Cookie", "a=1;\t__Host-sidegate=v ; b=2"], "__Host-sidegate"), "v");
  assert.equal(cookieValue(["Cookie", "a=1", "cookie", "__Host-sidegate=v"], "__Host-sidegate"), "v");
  assert.equal(cookieValue(["Cookie", "__Host-sidegate=v", "Cookie", "__Host-sidegate=w"], "__Host-sidegate"), null);
  // For browsers these have no prefix, so that a neighbour of the domain may set them.
  for (const other of ["\u00a0__Host-sidegate=v", "__Host-sidegate\u00a0=v", "\u000b__Host-sidegate=v", "x__Host-sidegate=v", "__host-sidegate=v"])
    assert.equal(cookieValue(["Cookie", other], "__Host-sidegate"), null, JSON.stringify(other));
});

test("cookies of the gateway's own names neither go on nor come from an upstream, however they are written", () => {
  for (const own of [
    "__Host-sidegate=x; Path=/",
    "sidegate=x",
    " sidegate = x",
    "=sidegate=x",
    "= sidegate=x",
    "__host-Sidegate-login=x",
    "sidegate",
    "sidegate; Path=/",
  ])
    assert.equal(setsOwnCookie(own), true, own);
  for (const other of ["sidegateway=x", "mysidegate=x", "a=sidegate=x", "", "="]) assert.equal(setsOwnCookie(other), false, other);
  assert.equal(withoutOwnCookies("a=1; __Host-sidegate=x; b=2; sidegate-login=y; sidegateway=3"), "a=1; b=2; sidegateway=3");
});
