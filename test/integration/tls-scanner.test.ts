// What a scanner finds on listeners with the default settings: nothing to complain of.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { startOrigin } from "../components/echo.ts";
import { startGateway } from "../components/gateway.ts";
import { skipWithout } from "../components/require.ts";
import { scanWithSslyze, sslyzeMissing, type Scan } from "../components/sslyze.ts";

const VERSIONS = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3"] as const;

/** What is accepted, by version; versions that are refused are left out. */
function acceptedSuites(scan: Scan): Record<string, string[]> {
  const all = VERSIONS.map((version) => [version, scan[`${version}_cipher_suites`]] as const);
  const supported = all.filter(([, { is_tls_version_supported, accepted_cipher_suites }]) => is_tls_version_supported || accepted_cipher_suites.length > 0);
  return Object.fromEntries(
    supported.map(([version, { accepted_cipher_suites }]) => [version, accepted_cipher_suites.map((each) => each.cipher_suite.name).toSorted()]),
  );
}

test("sslyze finds TLS 1.2 and 1.3 with strong suites alone and no known weakness, and calls the defaults compliant", async (t) => {
  if (skipWithout(t, sslyzeMissing())) return;
  await using origin = await startOrigin();
  const name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const pems = execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", ...name, "-keyout", "-", "-out", "-"], {
    encoding: "utf8",
    stdio: "pipe",
  });
  const [key = "", cert = ""] = pems.split(/(?=-----BEGIN CERTIFICATE)/);
  await using gateway = await startGateway({
    yaml: `listeners:
  ecdsa: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
  rsa: { protocol: http, listen: "127.0.0.1:0", tls: { cert_file: rsa.crt, key_file: rsa.key } }
  auto: { protocol: http, listen: "127.0.0.1:0", tls: { mode: auto, internal: true } }
  raw: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${origin.port}", tls: { internal: true } }
routes:
  - upstream: http://127.0.0.1:${origin.port}
    auth: none
`,
    files: { "rsa.crt": cert, "rsa.key": key },
    // A line for each of hundreds of handshakes would be no test of TLS.
    env: { SIDEGATE_LOG_LEVEL: "info" },
  });
  const caFile = `${gateway.dir}/ca.pem`;
  await writeFile(caFile, await gateway.ca());
  const names = ["ecdsa", "rsa", "auto", "raw"];
  const { scans, compliance } = await scanWithSslyze(
    names.map((each) => gateway.port(each)),
    caFile,
    `${gateway.dir}/scan.json`,
  );
  for (const [i, scan] of scans.entries()) {
    const listener = names[i] ?? "";
    const sign = listener === "rsa" ? "RSA" : "ECDSA";
    assert.deepEqual(
      acceptedSuites(scan),
      {
        tls_1_2: ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"].map((suite) => `TLS_ECDHE_${sign}_WITH_${suite}`),
        tls_1_3: ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"].map((suite) => `TLS_${suite}`),
      },
      listener,
    );
    assert.deepEqual(
      {
        compression: scan.tls_compression.supports_compression,
        earlyData: scan.tls_1_3_early_data.supports_early_data,
        ccsInjection: scan.openssl_ccs_injection.is_vulnerable_to_ccs_injection,
        heartbleed: scan.heartbleed.is_vulnerable_to_heartbleed,
        robot: scan.robot.robot_result,
        fallbackScsv: scan.tls_fallback_scsv.supports_fallback_scsv,
        extendedMasterSecret: scan.tls_extended_master_secret.supports_ems_extension,
        renegotiation: scan.session_renegotiation,
        sessionIds: scan.session_resumption.session_id_resumption_result,
        tickets: scan.session_resumption.tls_ticket_resumption_result,
        curves: scan.elliptic_curves.supported_curves.map((curve) => curve.name).toSorted(),
      },
      {
        compression: false,
        earlyData: false,
        ccsInjection: false,
        heartbleed: false,
        robot: "NOT_VULNERABLE_RSA_NOT_SUPPORTED",
        fallbackScsv: true,
        extendedMasterSecret: true,
        renegotiation: { supports_secure_renegotiation: true, is_vulnerable_to_client_renegotiation_dos: false, client_renegotiations_success_count: 0 },
        sessionIds: "NOT_SUPPORTED",
        tickets: "FULLY_SUPPORTED",
        // Its OpenSSL does not know the post-quantum hybrid.
        curves: ["X25519", "secp256r1", "secp384r1"],
      },
      listener,
    );
  }
  // The one of 'rsa' signed itself, which no CA stands for.
  assert.deepEqual(
    compliance.map((each) => each.replaceAll(/\s+/g, " ")),
    [
      "OK - Compliant.",
      "FAILED - Not compliant. * certificate_path_validation: Certificate path validation failed for CN=localhost.",
      "OK - Compliant.",
      "OK - Compliant.",
    ],
  );
});
