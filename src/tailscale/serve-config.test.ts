import assert from "node:assert/strict";
import { test } from "node:test";
import { sealedConfig, unsealedConfig } from "./serve-config.ts";

const REFUSED = { TCPForward: "127.0.0.1:0" };

test("every port but the open ones is forwarded to where nothing listens", () => {
  const { config, changed, refused, foreign } = sealedConfig({}, new Set([4003, 65_535]), null);
  const ports = Object.keys(config.TCP ?? {}).map(Number);
  assert.deepEqual([changed, refused, foreign, ports.length, Math.min(...ports), Math.max(...ports)], [true, 65_533, [], 65_533, 1, 65_534]);
  assert.deepEqual(config.TCP?.["4001"], REFUSED);
  assert.equal(config.TCP?.["4003"], undefined);
  assert.equal(sealedConfig(config, new Set([4003, 65_535]), null).changed, false);
});

test("what others serve stays as it came, on an open port too", () => {
  const others = { Web: { "gw:443": { Handlers: {} } }, AllowFunnel: { "gw:443": true }, Services: { "svc:x": {} } };
  const present = { ...others, TCP: { "443": { HTTPS: true }, "4003": { TCPForward: "127.0.0.1:9" }, "5": { TCPForward: "127.0.0.1:0", TerminateTLS: "gw" } } };
  const { config, foreign, refused } = sealedConfig(present, new Set([4003]), null);
  const { TCP, ...rest } = config;
  assert.deepEqual(rest, others);
  assert.deepEqual([TCP?.["443"], TCP?.["4003"], TCP?.["5"]], [present.TCP["443"], present.TCP["4003"], present.TCP["5"]]);
  assert.deepEqual([foreign, refused], [[5, 443, 4003], 65_532]);
  assert.deepEqual(unsealedConfig(config).config, present);
});

test("a port that opens loses its entry, one that closes gets one, and a hole is found", () => {
  const { config } = sealedConfig({}, new Set([1]), null);
  const moved = sealedConfig(config, new Set([2]), null);
  assert.deepEqual([moved.config.TCP?.["1"], moved.config.TCP?.["2"], moved.changed], [REFUSED, undefined, true]);
  const { "7": _, ...holed } = { ...config.TCP };
  assert.equal(sealedConfig({ TCP: holed }, new Set([1]), null).changed, true);
});

test("a session's entry seals what nobody else has, and leaves the lasting part alone", () => {
  const present = { TCP: { "443": { HTTPS: true } }, Foreground: { other: { TCP: { "8080": { HTTP: true } } } } };
  const { config, foreign } = sealedConfig(present, new Set([4003]), "mine");
  assert.deepEqual([config.TCP, config.Foreground?.["other"], foreign], [present.TCP, present.Foreground.other, [443, 8080]]);
  const mine = config.Foreground?.["mine"]?.TCP ?? {};
  assert.deepEqual([Object.keys(mine).length, mine["443"], mine["8080"], mine["4003"], mine["22"]], [65_532, undefined, undefined, undefined, REFUSED]);
  assert.equal(sealedConfig(config, new Set([4003]), "mine").changed, false);
});

test("a lasting seal leaves out what a session has, which tailscaled would refuse", () => {
  const { config, foreign } = sealedConfig({ Foreground: { other: { TCP: { "8080": { HTTP: true } } } } }, new Set(), null);
  assert.equal(config.TCP?.["8080"], undefined);
  assert.deepEqual(foreign, [8080]);
});

test("nothing is changed where nothing is ours", () => {
  const present = { TCP: { "443": { HTTPS: true } } };
  assert.deepEqual(unsealedConfig(present), { config: present, changed: false, refused: 0, foreign: [443] });
  assert.equal(unsealedConfig({}).changed, false);
});
