import assert from "node:assert/strict";
import { test } from "node:test";
import { FRESH_PREFS, nodePlan } from "../../test/components/fake-local-api.ts";
import { parseTailscaleFlags } from "../lib/tailscale-flags.ts";
import { differingPrefs, isSameControl, plannedPrefs } from "./prefs.ts";

const plan = nodePlan({ tags: ["tag:b", "tag:a"] });
const present = { ...FRESH_PREFS, ...plannedPrefs(plan) };

test("what the plan does not name is reset, and second doors are shut", () => {
  const left = {
    ...present,
    Hostname: "old",
    RunSSH: true,
    RunWebClient: true,
    RouteAll: true,
    OperatorUser: "bob",
    ExitNodeID: "n9",
    AdvertiseRoutes: ["10.0.0.0/8"],
  };
  assert.deepEqual(differingPrefs(nodePlan({ hostname: null, tags: ["tag:a", "tag:b"] }), left, null), {
    Hostname: "",
    RunSSH: false,
    RunWebClient: false,
    RouteAll: false,
    OperatorUser: "",
    ExitNodeID: "",
    AdvertiseRoutes: [],
  });
});

test("tags that the file does not name stay: taking the last one away ends the login", () => {
  const present = { ...FRESH_PREFS, ...plannedPrefs(plan) };
  assert.deepEqual(differingPrefs(nodePlan({ tags: [] }), present, null), {});
  assert.deepEqual(differingPrefs(nodePlan({ tags: ["tag:c"] }), present, null), { AdvertiseTags: ["tag:c"] });
});

test("the order of tags is no difference, and the control server is for a login to change", () => {
  assert.deepEqual(differingPrefs(plan, { ...present, AdvertiseTags: ["tag:a", "tag:b"], ControlURL: "http://other.test" }, null), {});
  assert.deepEqual(differingPrefs(plan, { ...present, AdvertiseTags: ["tag:a"] }, null), { AdvertiseTags: ["tag:b", "tag:a"] });
});

test("an exit node that tailscaled knows by its id now is the one of the plan", () => {
  const exiting = nodePlan({ flags: parseTailscaleFlags(["--exit-node=100.64.0.9"]).flags });
  const wanted = { ...FRESH_PREFS, ...plannedPrefs(exiting) };
  const resolved = { ...wanted, ExitNodeIP: "", ExitNodeID: "n9" };
  assert.equal(wanted.ExitNodeIP, "100.64.0.9");
  assert.deepEqual(differingPrefs(exiting, resolved, "n9"), {});
  assert.deepEqual(differingPrefs(exiting, resolved, "n8"), { ExitNodeIP: "100.64.0.9", ExitNodeID: "" });
  assert.deepEqual(differingPrefs(exiting, resolved, null), { ExitNodeIP: "100.64.0.9", ExitNodeID: "" });
});

test("Tailscale's own control server has several names", () => {
  for (const url of [null, "", "https://login.tailscale.com/", "https://controlplane.tailscale.com"]) assert.ok(isSameControl(url, null), String(url));
  assert.ok(isSameControl("https://Head.test/", "https://head.test"));
  assert.ok(!isSameControl("https://head.test", null));
});
