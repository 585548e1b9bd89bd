import assert from "node:assert/strict";
import { createSecureContext, getCiphers } from "node:tls";
import { test } from "node:test";
import { CIPHER_SUITES, cipherList, cipherSuiteNames, explainRefusedSuite, parseCipherSuite } from "./cipher-suites.ts";

test("of all suites that OpenSSL knows, each is spoken or refused with a reason, and none is both", () => {
  const unexplained: string[] = [];
  for (const name of getCiphers()) {
    const reason = explainRefusedSuite(name);
    if (parseCipherSuite(name) !== null) assert.equal(reason, null, name);
    else if (reason === null) unexplained.push(name);
  }
  // Suites that need a password or are for tiny devices: nobody writes them by mistake.
  assert.deepEqual(
    unexplained.filter((name) => !/^srp-|psk|_ccm/.test(name)),
    [],
  );
  for (const name of [...CIPHER_SUITES, ...cipherSuiteNames()]) assert.equal(explainRefusedSuite(name), null, name);
});

test("each refused suite has its own reason", () => {
  const reasons: [string, RegExp][] = [
    ["TLS_RSA_WITH_AES_128_CBC_SHA", /forward secrecy/],
    ["TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256", /forward secrecy/],
    ["AES128-GCM-SHA256", /forward secrecy/],
    ["PSK-AES128-GCM-SHA256", /forward secrecy/],
    ["TLS_ECDHE_RSA_WITH_RC4_128_SHA", /broken/],
    ["DES-CBC3-SHA", /broken/],
    ["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", /authenticated encryption/],
    ["ECDHE-ECDSA-AES256-SHA", /authenticated encryption/],
    ["TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", /without elliptic curves/],
    ["ADH-AES128-SHA256", /leaves out/],
    ["TLS_RSA_WITH_NULL_SHA", /leaves out/],
  ];
  for (const [name, reason] of reasons) assert.match(explainRefusedSuite(name) ?? "(null)", reason, name);
  for (const name of ["", "all", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA265", "a b-c"]) assert.equal(explainRefusedSuite(name), null, name);
});

test("OpenSSL takes the list, in which TLS 1.3 stays on unless some of it is named", () => {
  assert.equal(cipherList().split(":").length, CIPHER_SUITES.length);
  assert.match(cipherList(["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]), /^TLS_AES_128_GCM_SHA256:.*:ECDHE-RSA-AES128-GCM-SHA256$/);
  assert.equal(cipherList(["ecdhe-rsa-aes128-gcm-sha256", "TLS_AES_256_GCM_SHA384"]), "ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_256_GCM_SHA384");
  createSecureContext({ ciphers: cipherList() });
});
