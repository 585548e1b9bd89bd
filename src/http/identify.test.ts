import assert from "node:assert/strict";
import { test } from "node:test";
import type { Authentication } from "../identity/authenticate.ts";
import type { Exchange } from "./exchange.ts";
import { inTime } from "./identify.ts";

function exchange(identifyMs: number): Exchange {
  return { state: { identifyMs }, onClose: null } as unknown as Exchange;
}

test("the wait for an answer ends with the client, with the time, and with the answer", async () => {
  const never = new Promise<Authentication>(() => {});
  const gone = exchange(600_000);
  const waiting = inTime(gone, never);
  gone.onClose?.clientGone();
  assert.deepEqual([await waiting, gone.onClose], [{ kind: "none" }, null]);

  const late = exchange(10);
  assert.equal((await inTime(late, never)).kind, "unavailable");
  assert.equal(late.onClose, null);

  const answered = exchange(600_000);
  assert.deepEqual([await inTime(answered, Promise.resolve({ kind: "invalid" })), answered.onClose], [{ kind: "invalid" }, null]);
  const failed = exchange(600_000);
  await assert.rejects(inTime(failed, Promise.reject(new Error("x"))), /x/);
  assert.equal(failed.onClose, null);
});
