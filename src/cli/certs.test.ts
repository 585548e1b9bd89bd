import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { startTestAdmin } from "../../test/components/admin.ts";
import type { ActionResult, CertificateStatus } from "../admin/status.ts";
import { openInternalCa } from "../certificates/internal-ca.ts";
import { formatCertificates } from "./certs.ts";
import { runCommand } from "./commands.ts";

const NOW = new Date("2026-11-21T10:00:00.000Z");
const FILE: CertificateStatus = {
  listeners: ["web", "live"],
  names: ["a.example", "*.a.example"],
  source: "file",
  file: "/certs/tls.crt",
  issuer: "C=US, CN=CA",
  valid_from: "2026-01-01T00:00:00.000Z",
  expires_at: "2026-12-31T10:00:00.000Z",
  renews_at: null,
  error: "",
};
const ACME: CertificateStatus = {
  ...FILE,
  names: ["mcp.example"],
  source: "acme",
  file: null,
  renews_at: "2026-12-01T10:00:00.000Z",
  error: "No\u001b[2J answer",
};
const WAITING: CertificateStatus = { ...ACME, names: ["new.example"], issuer: "", valid_from: null, expires_at: null, renews_at: null, error: "" };

const TAILSCALE: CertificateStatus = { ...ACME, names: ["ib.tail1234.ts.net"], source: "tailscale", error: "" };

async function setUp(t: TestContext, certificates: CertificateStatus[], renew: (name: string) => Promise<ActionResult> = () => assert.fail("asked")) {
  const { dir, file } = await startTestAdmin(t, { status: () => ({ certificates }), renew });
  const stop = new AbortController();
  const out = { stdout: "", stderr: "" };
  const run = async (args: string[], isTty = false): Promise<{ code: number; stdout: string; stderr: string }> => {
    out.stdout = "";
    out.stderr = "";
    const code = await runCommand(["certs", ...args], {
      env: { SIDEGATE_CONFIG: file, NO_COLOR: "1" },
      cwd: dir,
      pid: 1,
      stdin: () => assert.fail("read"),
      stdout: (text) => void (out.stdout += text),
      stderr: (text) => void (out.stderr += text),
      isTty,
      stopped: stop.signal,
      onHangup: () => {},
    });
    return { code, ...out };
  };
  return { dir, run, stop, out };
}

test("each certificate is a block of what is to be known of it", () => {
  assert.equal(
    formatCertificates([FILE, ACME, WAITING], NOW, false),
    `a.example *.a.example
  source     file, /certs/tls.crt
  issuer     C=US, CN=CA
  expires    in 40d, 2026-12-31 10:00 UTC
  renews     with its file
  listeners  web live

mcp.example
  source     ACME
  issuer     C=US, CN=CA
  expires    in 40d, 2026-12-31 10:00 UTC
  renews     in 10d, 2026-12-01 10:00 UTC
  listeners  web live
  error      No answer

new.example
  source     ACME
  expires    not issued yet
  listeners  web live
`,
  );
  assert.equal(
    formatCertificates(
      [
        { ...TAILSCALE, error: "rate limited" },
        { ...WAITING, source: "tailscale", names: [], error: "no HTTPS" },
      ],
      NOW,
      false,
    ),
    `ib.tail1234.ts.net
  source     Tailscale
  issuer     C=US, CN=CA
  expires    in 40d, 2026-12-31 10:00 UTC
  renews     in 10d, 2026-12-01 10:00 UTC
  listeners  web live
  error      rate limited

(name not known yet)
  source     Tailscale
  expires    not issued yet
  listeners  web live
  error      no HTTPS
`,
  );
  assert.match(formatCertificates([], NOW, false), /^No certificates/);
});

test("'certs' lists, with or without the word and the file, as text or JSON", async (t) => {
  const { run } = await setUp(t, [FILE]);
  for (const args of [[], ["list"], ["sidegate.yaml"], ["list", "sidegate.yaml"], ["./sidegate.yaml"]])
    assert.match((await run(args)).stdout, /^a\.example \*\.a\.example\n {2}source {5}file/, args.join(" "));
  assert.deepEqual(JSON.parse((await run(["--json"])).stdout), [FILE]);
});

test("'certs renew' orders by name, says so, and ends as the order does", async (t) => {
  const asked: string[] = [];
  const { run } = await setUp(t, [FILE, ACME, WAITING, TAILSCALE], (name) => {
    asked.push(name);
    return Promise.resolve(
      name === "mcp.example" ? { ok: true, message: "The certificate for 'mcp.example' is renewed" } : { ok: false, message: "The CA says no" },
    );
  });
  assert.deepEqual(await run(["renew", "MCP.Example."]), {
    code: 0,
    stdout: "Ordering a certificate for 'mcp.example' ...\nThe certificate for 'mcp.example' is renewed\n",
    stderr: "",
  });
  const ordering = "Ordering a certificate for 'new.example' ...\n";
  assert.deepEqual(await run(["renew", "new.example", "sidegate.yaml"]), { code: 1, stdout: ordering, stderr: "The CA says no\n" });
  assert.deepEqual(JSON.parse((await run(["renew", "new.example", "--json"])).stdout), { ok: false, message: "The CA says no" });
  assert.equal((await run(["renew", "ib.tail1234.ts.net"])).code, 1);
  assert.deepEqual(asked, ["mcp.example", "new.example", "new.example", "ib.tail1234.ts.net"]);
});

test("'certs renew' orders nothing that no CA can be asked for, and says who renews it", async (t) => {
  const { run } = await setUp(t, [FILE, ACME, { ...FILE, source: "internal", names: ["localhost"], file: "/x/ca.crt" }]);
  const refusal = async (name: string): Promise<string> => {
    const { code, stdout, stderr } = await run(["renew", name]);
    assert.deepEqual([code, stdout], [1, ""]);
    return stderr;
  };
  assert.equal(
    await refusal("*.a.example"),
    "The certificate for '*.a.example' is in '/certs/tls.crt': who writes that file renews it, and the gateway takes the new one by itself\n",
  );
  assert.match(await refusal("x.a.example"), /^The certificate for 'x\.a\.example' is in '\/certs\/tls\.crt'/);
  assert.equal(await refusal("localhost"), "The certificate for 'localhost' is from the internal CA: the gateway renews it by itself in time\n");
  assert.equal(await refusal("mpc.example"), "No certificate has the name 'mpc.example'. Did you mean 'mcp.example'?\n");
  assert.equal(await refusal("zzzzzzzzzzz"), "No certificate has the name 'zzzzzzzzzzz'; those that can be ordered: mcp.example\n");
});

test("on a terminal the time that an order takes is shown, and an interrupt does not wait for it", async (t) => {
  const { promise, resolve } = Promise.withResolvers<ActionResult>();
  const { run, out, stop } = await setUp(t, [ACME], () => promise);
  const first = run(["renew", "mcp.example"], true);
  await waitFor(() => out.stdout.includes("... 1s"));
  resolve({ ok: true, message: "Done" });
  assert.deepEqual(await first, {
    code: 0,
    stdout: "Ordering a certificate for 'mcp.example' ...\r\u001b[KOrdering a certificate for 'mcp.example' ... 1s\nDone\n",
    stderr: "",
  });
  const hanging = await setUp(t, [ACME], () => new Promise(() => {}));
  const second = hanging.run(["renew", "mcp.example"]);
  await waitFor(() => hanging.out.stdout !== "");
  hanging.stop.abort();
  const { code, stderr } = await second;
  assert.equal(code, 1);
  assert.match(stderr, /^Not waited for; the gateway goes on with the order/);
  assert.ok(!stop.signal.aborted);
});

test("'certs trust' tells where the CA is and its fingerprint, for every kind of client, and changes nothing", async (t) => {
  const certificates: CertificateStatus[] = [FILE];
  const { dir, run } = await setUp(t, certificates);
  const ca = await openInternalCa(join(dir, "my state"));
  certificates.push({ ...FILE, source: "internal", names: ["localhost"], file: ca.certFile });
  const before = readFileSync(ca.certFile);
  const { code, stdout } = await run(["trust"]);
  assert.equal(code, 0);
  assert.ok(stdout.startsWith(`The certificate of the internal CA is in ${ca.certFile}\n`));
  const { fingerprint256, subject } = new X509Certificate(ca.cert);
  assert.ok(stdout.includes(`SHA-256  ${fingerprint256}\n`));
  // A path with a space is one word of the command.
  assert.ok(stdout.includes(`  cp '${ca.certFile}' sidegate-ca.crt\n`), stdout);
  for (const word of ["Debian", "Fedora", "RHEL", "Alpine", "macOS", "Windows", "Firefox", "keytool", "curl --cacert", "REQUESTS_CA_BUNDLE", "docker cp"])
    assert.ok(stdout.includes(word), word);
  assert.deepEqual(readFileSync(ca.certFile), before);
  assert.deepEqual(JSON.parse((await run(["trust", "--json"])).stdout), {
    file: ca.certFile,
    subject,
    expires_at: ca.notAfter.toISOString(),
    sha256: fingerprint256,
  });
  rmSync(ca.certFile);
  const gone = await run(["trust"]);
  assert.deepEqual([gone.code, gone.stdout], [1, ""]);
  assert.match(gone.stderr, /^Cannot read the internal CA's certificate '.*': no such file or directory; run this command where/);
});

test("'certs trust' says so when there is no internal CA", async (t) => {
  const { run } = await setUp(t, [FILE, ACME]);
  const { code, stdout } = await run(["trust"]);
  assert.equal(code, 0);
  assert.match(stdout, /^This gateway has no internal CA/);
  assert.equal((await run(["trust", "--json"])).stdout, "null\n");
});
