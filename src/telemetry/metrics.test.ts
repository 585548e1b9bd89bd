import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Metrics, NO_ROUTE } from "./metrics.ts";

async function scrape(metrics: Metrics): Promise<Map<string, string>> {
  const samples = new Map<string, string>();
  for (const line of (await metrics.text()).split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const space = line.lastIndexOf(" ");
    assert.ok(!samples.has(line.slice(0, space)), `Twice: ${line}`);
    samples.set(line.slice(0, space), line.slice(space + 1));
  }
  return samples;
}

test("requests are counted by code, with cumulative buckets and bytes both ways", async () => {
  using metrics = disposable(new Metrics());
  const route = metrics.value.httpRoute("web", "mcp");
  assert.equal(metrics.value.httpRoute("web", "mcp"), route);
  route.observe(200, 0.5, 10, 100);
  route.observe(200, 5, 1, 1);
  route.observe(502, 90_000, 0, 0);
  route.active += 1;
  const samples = await scrape(metrics.value);
  const labels = 'listener="web",route="mcp"';
  assert.equal(samples.get(`sidegate_http_requests_total{${labels},code="200"}`), "2");
  assert.equal(samples.get(`sidegate_http_requests_total{${labels},code="502"}`), "1");
  assert.equal(samples.get(`sidegate_http_requests_active{${labels}}`), "1");
  assert.equal(samples.get(`sidegate_http_request_duration_seconds_bucket{${labels},le="0.001"}`), "1");
  // A duration on a bound belongs to its bucket: 'le' is less or equal.
  assert.equal(samples.get(`sidegate_http_request_duration_seconds_bucket{${labels},le="0.005"}`), "2");
  assert.equal(samples.get(`sidegate_http_request_duration_seconds_bucket{${labels},le="60"}`), "2");
  assert.equal(samples.get(`sidegate_http_request_duration_seconds_bucket{${labels},le="+Inf"}`), "3");
  assert.equal(samples.get(`sidegate_http_request_duration_seconds_count{${labels}}`), "3");
  assert.equal(samples.get(`sidegate_http_request_duration_seconds_sum{${labels}}`), "90.0055");
  assert.equal(samples.get(`sidegate_http_request_bytes_total{${labels}}`), "11");
  assert.equal(samples.get(`sidegate_http_response_bytes_total{${labels}}`), "101");
});

test("TCP connections are counted, refusals by a bounded number of reasons", async () => {
  using metrics = disposable(new Metrics());
  const live = metrics.value.tcpListener("live");
  live.observe(2_000, 3, 4);
  live.refused("denied");
  for (let i = 0; i < 1_000; i += 1) live.refused(`reason ${i}`);
  const samples = await scrape(metrics.value);
  assert.equal(samples.get('sidegate_tcp_connection_duration_seconds_bucket{listener="live",le="1"}'), "0");
  assert.equal(samples.get('sidegate_tcp_connection_duration_seconds_bucket{listener="live",le="5"}'), "1");
  assert.equal(samples.get('sidegate_tcp_received_bytes_total{listener="live"}'), "3");
  assert.equal(samples.get('sidegate_tcp_connections_refused_total{listener="live",reason="denied"}'), "1");
  assert.ok([...samples.keys()].filter((key) => key.startsWith("sidegate_tcp_connections_refused_total")).length <= 33);
  assert.equal(samples.get('sidegate_tcp_connections_refused_total{listener="live",reason="other"}'), "969");
});

test("series of what a reload removed vanish once nothing is under way on them", async () => {
  using metrics = disposable(new Metrics());
  const { value } = metrics;
  value.httpRoute("web", "old").observe(200, 1, 0, 0);
  const busy = value.httpRoute("web", "busy");
  busy.active = 1;
  value.httpRoute("web", NO_ROUTE).observe(404, 1, 0, 0);
  value.httpRoute("gone", "kept").observe(200, 1, 0, 0);
  value.httpRoute("web", "kept").observe(200, 1, 0, 0);
  value.connections("gone").accepted = 5;
  value.retain(new Set(["web"]), new Set(["kept"]));
  const first = [...(await scrape(value)).keys()].join("\n");
  assert.doesNotMatch(first, /route="old"/);
  assert.doesNotMatch(first, /listener="gone"/);
  assert.match(first, /route="busy"/);
  assert.match(first, /route="-",code="404"/);
  assert.match(first, /listener="web",route="kept"/);
  busy.active = 0;
  assert.doesNotMatch([...(await scrape(value)).keys()].join("\n"), /route="busy"/);
});

test("a route that comes back before its last request ended goes on being counted", async () => {
  using metrics = disposable(new Metrics());
  const { value } = metrics;
  const route = value.httpRoute("web", "mcp");
  route.active = 1;
  value.retain(new Set(["web"]), new Set());
  assert.equal(value.httpRoute("web", "mcp"), route);
  route.active = 0;
  assert.match(await value.text(), /route="mcp"/);
});

test("reloads, the age of the configuration and the health of targets are told", async () => {
  let now = 1_000_000;
  const targets = [
    { upstream: "bus", target: "http://127.0.0.1:1", health: "unhealthy", active: 2 },
    { upstream: "bus", target: "http://127.0.0.1:2", health: "degraded", active: 0 },
    { upstream: "bus", target: "http://127.0.0.1:3", health: "unknown", active: 0 },
  ] as const;
  using metrics = disposable(new Metrics({ version: '1"\\', targets: () => targets, accessLogDropped: () => 7 }, () => now));
  const { value } = metrics;
  value.reload(true);
  now += 5_000;
  value.reload(false);
  const samples = await scrape(value);
  assert.equal(samples.get('sidegate_build_info{version="1\\"\\\\"}'), "1");
  assert.equal(samples.get('sidegate_config_reloads_total{result="success"}'), "1");
  assert.equal(samples.get('sidegate_config_reloads_total{result="failure"}'), "1");
  assert.equal(samples.get("sidegate_config_last_reload_successful"), "0");
  assert.equal(samples.get("sidegate_config_last_reload_success_timestamp_seconds"), "1000");
  assert.equal(samples.get("sidegate_config_age_seconds"), "5");
  assert.equal(samples.get("sidegate_access_log_dropped_total"), "7");
  const healthy = (n: number): string | undefined => samples.get(`sidegate_upstream_target_healthy{upstream="bus",target="http://127.0.0.1:${n}"}`);
  assert.deepEqual([healthy(1), healthy(2), healthy(3)], ["0", "1", "1"]);
  assert.equal(samples.get('sidegate_upstream_target_active{upstream="bus",target="http://127.0.0.1:1"}'), "2");
});

test("handshakes are counted by what was agreed, failures by reason, and both vanish with their listener", async () => {
  using metrics = disposable(new Metrics());
  const tls = metrics.value.tls("web");
  assert.equal(metrics.value.tls("web"), tls);
  tls.handshake("TLSv1.3", "TLS_AES_128_GCM_SHA256", false);
  tls.handshake("TLSv1.3", "TLS_AES_128_GCM_SHA256", false);
  tls.handshake("TLSv1.3", "TLS_AES_128_GCM_SHA256", true);
  tls.failed("no_certificate");
  metrics.value.tls("live").failed("timeout");
  const samples = await scrape(metrics.value);
  const labels = 'listener="web",version="TLSv1.3",cipher="TLS_AES_128_GCM_SHA256"';
  assert.equal(samples.get(`sidegate_tls_handshakes_total{${labels},resumed="false"}`), "2");
  assert.equal(samples.get(`sidegate_tls_handshakes_total{${labels},resumed="true"}`), "1");
  assert.equal(samples.get('sidegate_tls_handshake_failures_total{listener="web",reason="no_certificate"}'), "1");
  assert.equal(samples.get('sidegate_tls_handshake_failures_total{listener="live",reason="timeout"}'), "1");
  metrics.value.retain(new Set(["live"]), new Set());
  const after = await metrics.value.text();
  assert.doesNotMatch(after, /listener="web"/);
  assert.match(after, /listener="live",reason="timeout"/);
});

test("what a client could make up of a handshake costs memory only so often", async () => {
  using metrics = disposable(new Metrics());
  const tls = metrics.value.tls("web");
  for (let i = 0; i < 1_000; i += 1) tls.handshake("TLSv1.3", `cipher ${i}`, false);
  for (let i = 0; i < 1_000; i += 1) tls.failed(`reason ${i}`);
  const samples = await scrape(metrics.value);
  assert.equal(samples.get('sidegate_tls_handshakes_total{listener="web",version="other",cipher="other",resumed="other"}'), "936");
  assert.equal(samples.get('sidegate_tls_handshake_failures_total{listener="web",reason="other"}'), "936");
});

test("the ends of certificates, renewals and alerts are told; of two certificates with one name the first to end", async () => {
  const now = 1_000_000;
  const certificates = [
    { source: "acme", name: "a.example", notAfter: new Date(now + 90_000) },
    { source: "acme", name: "a.example", notAfter: new Date(now + 60_000) },
    { source: "acme", name: "a.example", notAfter: new Date(now + 70_000) },
    { source: "file", name: "a.example", notAfter: new Date(now - 5_500) },
    { source: "acme", name: "new.example", notAfter: null },
  ];
  using metrics = disposable(new Metrics({ certificates: () => certificates }, () => now));
  const { value } = metrics;
  value.certificates.renewal(true);
  value.certificates.renewal(true);
  value.certificates.renewal(false);
  value.certificates.alert("dropped");
  const samples = await scrape(value);
  assert.equal(samples.get('sidegate_certificate_expiry_seconds{source="acme",name="a.example"}'), "60");
  assert.equal(samples.get('sidegate_certificate_expiry_seconds{source="file",name="a.example"}'), "-5.5");
  assert.ok(![...samples.keys()].some((key) => key.includes("new.example")));
  assert.equal(samples.get('sidegate_certificate_renewals_total{result="success"}'), "2");
  assert.equal(samples.get('sidegate_certificate_renewals_total{result="failure"}'), "1");
  assert.equal(samples.get('sidegate_alerts_total{result="dropped"}'), "1");
  assert.equal(samples.get('sidegate_alerts_total{result="delivered"}'), "0");
  assert.equal(samples.get('sidegate_alerts_total{result="failed"}'), "0");
});

test("every family has its type once and before its samples", async () => {
  using metrics = disposable(new Metrics());
  metrics.value.httpRoute("web", "mcp").observe(200, 1, 0, 0);
  metrics.value.tcpListener("live");
  metrics.value.tls("live").failed("timeout");
  const seen = new Set<string>();
  let family = "";
  for (const line of (await metrics.value.text()).trimEnd().split("\n")) {
    const declared = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line)?.[1];
    if (declared !== undefined) {
      assert.ok(!seen.has(declared), declared);
      seen.add(declared);
      family = declared;
    } else if (!line.startsWith("# HELP ")) {
      assert.match(line, /^[a-z_]+(\{[^}]*\})? [0-9.e+-]+$/);
      assert.ok(line.startsWith(family), `${line} stands below ${family}`);
    }
  }
});

test("the lag of the event loop and the cost of the process are told", async () => {
  using metrics = disposable(new Metrics());
  const maxLag = async (): Promise<number> => Number((await scrape(metrics.value)).get('sidegate_event_loop_lag_seconds{quantile="1"}'));
  await delay(50);
  const end = performance.now() + 60;
  while (performance.now() < end);
  await delay(50);
  assert.ok((await maxLag()) > 0.02);
  const samples = await scrape(metrics.value);
  assert.ok(Number(samples.get("sidegate_event_loop_utilization_ratio")) > 0);
  assert.ok(Number(samples.get("process_resident_memory_bytes")) > 1e6);
});

function disposable(value: Metrics): Disposable & { readonly value: Metrics } {
  return { value, [Symbol.dispose]: () => value.close() };
}
