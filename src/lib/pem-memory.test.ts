import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { explainKnownKey, explainKnownPair, forgetOldPem, knownChain } from "./pem-memory.ts";

const FILES = join(import.meta.dirname, "../../test/config/files");
const read = (name: string): string => readFileSync(join(FILES, name), "utf8");

test("a chain is decoded once as long as every load asks for it, and forgotten after", () => {
  const text = read("mcp-chain.crt");
  const first = knownChain(text);
  forgetOldPem();
  assert.equal(knownChain(text), first);
  forgetOldPem();
  assert.equal(knownChain(text), first);
  forgetOldPem();
  forgetOldPem();
  assert.notEqual(knownChain(text), first);
  assert.deepEqual(knownChain(text), first);
});

test("what differs in content is never taken for the same", () => {
  const [mcp, docs, key] = [read("mcp.crt"), read("docs.crt"), read("mcp.key")];
  assert.notDeepEqual(knownChain(mcp), knownChain(docs));
  assert.equal(explainKnownKey(key), null);
  assert.match(explainKnownKey(mcp) ?? "", /no private key/);
  assert.equal(explainKnownPair(mcp, key), null);
  assert.match(explainKnownPair(docs, key) ?? "", /not the key/);
  assert.equal(explainKnownPair(mcp, key), null);
});
