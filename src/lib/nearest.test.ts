import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest } from "./nearest.ts";

const KEYS = ["upstream", "path", "path_prefix", "health", "dir", "auth"];

test("a slip of the fingers finds its word", () => {
  assert.equal(nearest("uptream", KEYS), "upstream");
  assert.equal(nearest("upstraem", KEYS), "upstream");
  assert.equal(nearest("Path", KEYS), "path");
  assert.equal(nearest("path-prefix", KEYS), "path_prefix");
  assert.equal(nearest("aut", KEYS), "auth");
});

test("a longer or shorter form finds its word", () => {
  assert.equal(nearest("healthcheck", KEYS), "health");
  assert.equal(nearest("directory", KEYS), "dir");
});

test("what is far from everything finds nothing", () => {
  assert.equal(nearest("tailscale", KEYS), null);
  assert.equal(nearest("x", KEYS), null);
  assert.equal(nearest("", KEYS), null);
  assert.equal(nearest("upstream".repeat(100), KEYS), null);
});
