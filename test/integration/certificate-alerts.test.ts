// People hear of certificates: the webhook, the log, /ready, the metrics and the commands.
import assert from "node:assert/strict";
import { createHmac, X509Certificate } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { runSidegate } from "../components/command.ts";
import { startGateway } from "../components/gateway.ts";
import { createTestCa } from "../components/pki.ts";
import { findProgram, skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const DAY_MS = 86_400_000;
const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

type Alert = { readonly path: string; readonly headers: IncomingHttpHeaders; readonly body: string };
type Receiver = AsyncDisposable & { readonly url: string; readonly alerts: Alert[] };

async function startReceiver(): Promise<Receiver> {
  const alerts: Alert[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      alerts.push({ path: request.url ?? "", headers: request.headers, body });
      response.writeHead(204).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    alerts,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

test("an expired certificate is told once to the webhook, in the log, in /ready, the metrics and 'certs', and a new file ends it", async (t) => {
  if (skipWithout(t, findProgram("openssl") === null ? "openssl is not installed" : null)) return;
  await using receiver = await startReceiver();
  const ca = createTestCa();
  const old = ca.issue("/CN=a.example", { san: "DNS:a.example", notBefore: new Date(Date.now() - 400 * DAY_MS), notAfter: new Date(Date.now() - 2 * DAY_MS) });
  const yaml = (certificate: string): string => `
alerts: { webhook: { url: "${receiver.url}/hook/s3cret", secret: ${SECRET} } }
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: application, cert_file: ${certificate}.crt, key_file: ${certificate}.key } }
  other: { protocol: http, listen: "127.0.0.1:0", tls: { mode: application, cert_file: ${certificate}.crt, key_file: ${certificate}.key, internal: true } }
routes:
  - { path: /x, upstream: "http://127.0.0.1:1", auth: none }
`;
  const fresh = ca.issue("/CN=a.example", { san: "DNS:a.example", notAfter: new Date(Date.now() + 200 * DAY_MS) });
  await using gateway = await startGateway({
    yaml: yaml("old"),
    files: { "old.crt": old.cert, "old.key": old.key, "fresh.crt": fresh.cert, "fresh.key": fresh.key },
    expectErrors: true,
  });

  await waitFor(() => receiver.alerts.length > 0);
  const [{ path, headers, body }] = receiver.alerts as [Alert];
  assert.equal(path, "/hook/s3cret");
  const key = Buffer.from(SECRET.slice("whsec_".length), "base64");
  const signed = `${String(headers["webhook-id"])}.${String(headers["webhook-timestamp"])}.${body}`;
  assert.equal(headers["webhook-signature"], `v1,${createHmac("sha256", key).update(signed).digest("base64")}`);
  const { type, text, data } = JSON.parse(body) as { type: string; text: string; data: { names: string[]; source: string } };
  assert.deepEqual([type, data.names, data.source], ["certificate.expired", ["a.example"], "file"]);
  assert.match(text, /^Sidegate on '.+': The certificate for 'a\.example' expired 2d ago/);

  const told = gateway.log.filter(({ event }) => event === "certificate_expired");
  assert.equal(told.length, 1);
  assert.match(told[0]?.msg ?? "", /replace '.*\/old\.crt' and its key/);
  const ready = await gateway.admin("/ready");
  assert.equal(ready.status, 200);
  assert.match(ready.body, /"status":"degraded".*"certificate".*"a\.example".*expired 2d ago/);
  await waitFor(async () => /^sidegate_alerts_total\{result="delivered"\} 1$/m.test((await gateway.admin("/metrics")).body));
  assert.match((await gateway.admin("/metrics")).body, /^sidegate_certificate_expiry_seconds\{source="file",name="a\.example"\} -17\d{4}(\.\d+)?$/m);

  const env = { SIDEGATE_CONFIG: gateway.file };
  const listed = await runSidegate(["certs"], { env });
  assert.match(
    listed.stdout,
    /^a\.example\n {2}source {5}file, .*old\.crt\n {2}issuer {5}CN=Test CA\n {2}expires {4}expired 2d ago.*\n {2}renews {5}with its file\n {2}listeners {2}web other\n/,
  );
  const renewed = await runSidegate(["certs", "renew", "a.example"], { env });
  assert.deepEqual([renewed.code, renewed.stdout], [1, ""]);
  assert.match(renewed.stderr, /old\.crt': who writes that file renews it/);
  const trusted = await runSidegate(["certs", "trust"], { env });
  assert.ok(trusted.stdout.includes(new X509Certificate(await gateway.ca()).fingerprint256), trusted.stdout + trusted.stderr);
  const direct = await gateway.admin("/certificates/renew?name=a.example", "POST");
  assert.equal(direct.status, 422);
  assert.match(direct.body, /^\{"ok":false,"message":".*old\.crt/);

  await gateway.edit(yaml("fresh"));
  assert.match((await gateway.admin("/ready")).body, /"status":"ready"/);
  assert.equal(receiver.alerts.length, 1);
  assert.doesNotMatch(JSON.stringify(gateway.log), /s3cret|MfKQ9r8/);
});
