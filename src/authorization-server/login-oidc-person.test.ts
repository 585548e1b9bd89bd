import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { Person } from "../identity/person.ts";
import { oidcPerson } from "./login-oidc-person.ts";

const TENANT = "11111111-2222-3333-4444-555555555555";
const ENTRA = `https://login.microsoftonline.com/${TENANT}/v2.0`;
const GOOGLE = "https://accounts.google.com";
const KEYCLOAK = "https://sso.example.com/realms/acme";
const PLAIN = "https://login.example.com";

function personOf(issuer: string, claims: Record<string, unknown>, userinfo: Record<string, unknown> = {}, groupsClaim = ["groups"]): Person {
  return oidcPerson({ issuer, groupsClaim }, { sub: "s", ...claims }, userinfo).person;
}

function addressOf(issuer: string, claims: Record<string, unknown>, userinfo?: Record<string, unknown>): (string | null)[] {
  const { email, domain } = personOf(issuer, claims, userinfo);
  return [email, domain];
}

suite("what claims prove", () => {
  test("an address counts when the same answer says that it is verified", () => {
    assert.deepEqual(addressOf(PLAIN, { email: "A@Example.com", email_verified: true }), ["a@example.com", "example.com"]);
    assert.deepEqual(addressOf(PLAIN, { email: "a@example.com", email_verified: "true" }), ["a@example.com", "example.com"]);
    for (const email_verified of [false, undefined, "false", 1, null])
      assert.deepEqual(addressOf(PLAIN, { email: "a@example.com", email_verified }), [null, null]);
    assert.deepEqual(addressOf(PLAIN, { email: "boss@example.com" }, { email: "me@example.com", email_verified: true }), ["me@example.com", "example.com"]);
    assert.deepEqual(addressOf(PLAIN, { email: "boss@example.com" }, { email_verified: true }), [null, null]);
    assert.deepEqual(addressOf(PLAIN, { email_verified: true }, { email: "boss@example.com" }), [null, null]);
    assert.deepEqual(addressOf(PLAIN, { email: "boss@example.com\n@evil.example", email_verified: true }), [null, null]);
    assert.deepEqual(addressOf(PLAIN, { email: "a@b@example.com", email_verified: true }), [null, null]);
  });

  test("Google: `hd` alone is the domain", () => {
    const email = { email: "a@example.com", email_verified: true };
    assert.deepEqual(addressOf(GOOGLE, { ...email, hd: "Example.com" }), ["a@example.com", "example.com"]);
    assert.deepEqual(addressOf(GOOGLE, email), ["a@example.com", null]);
    assert.deepEqual(addressOf(GOOGLE, { ...email, email_verified: false, hd: "example.com" }), [null, "example.com"]);
  });

  test("elsewhere `hd` is nothing", () => {
    assert.deepEqual(addressOf(PLAIN, { hd: "example.com" }), [null, null]);
  });

  test("Entra ID: the address is the tenant's word, but not a guest's, nor of another tenant or of personal accounts", () => {
    const claims = { tid: TENANT, iss: ENTRA, preferred_username: "Alice@Example.com" };
    assert.deepEqual(addressOf(ENTRA, claims), ["alice@example.com", "example.com"]);
    assert.deepEqual(addressOf(ENTRA, { ...claims, email: "a@example.com" }), ["a@example.com", "example.com"]);
    assert.deepEqual(addressOf(ENTRA, { ...claims, tid: "99999999-2222-3333-4444-555555555555" }), [null, null]);
    assert.deepEqual(addressOf(ENTRA, { ...claims, idp: "https://sts.windows.net/other/" }), [null, null]);
    assert.deepEqual(addressOf(ENTRA, { ...claims, xms_edov: false }), [null, null]);
    assert.deepEqual(addressOf(ENTRA, { ...claims, xms_edov: true }), ["alice@example.com", "example.com"]);
    assert.deepEqual(addressOf(ENTRA, { ...claims, preferred_username: "boss_acme.com#EXT#@example.onmicrosoft.com" }), [null, null]);
    const personal = "https://login.microsoftonline.com/9188040d-6c67-4b5b-b112-36a304b66dad/v2.0";
    assert.deepEqual(addressOf(personal, { email: "boss@acme.example" }), [null, null]);
  });

  test("the same claims from another host prove nothing", () => {
    assert.deepEqual(addressOf(`https://login.microsoftonline.com.evil.example/${TENANT}/v2.0`, { tid: TENANT, email: "boss@acme.example" }), [null, null]);
  });

  test("Entra ID tells when it left groups out", () => {
    const claims = { sub: "s", _claim_names: { groups: "src1" } };
    assert.match(oidcPerson({ issuer: ENTRA, groupsClaim: ["groups"] }, claims, {}).notes.join(), /leaves out the groups/);
    assert.deepEqual(oidcPerson({ issuer: ENTRA, groupsClaim: ["groups"] }, { sub: "s" }, {}).notes, []);
  });

  test("Keycloak: groups with and without their slash, roles by a path", () => {
    assert.deepEqual(personOf(KEYCLOAK, { groups: ["/ops", "/eu/desk", "plain"] }).groups, ["/ops", "ops", "/eu/desk", "eu/desk", "plain"]);
    assert.deepEqual(personOf(KEYCLOAK, { realm_access: { roles: ["trader"] } }, {}, ["realm_access", "roles"]).groups, ["trader"]);
    assert.deepEqual(personOf(PLAIN, { groups: ["/ops"] }).groups, ["/ops"]);
  });

  test("names are those that nobody can take from another", () => {
    const claims = { preferred_username: "boss", email: "a@example.com", email_verified: true };
    assert.equal(personOf(PLAIN, claims).name, "a@example.com");
    assert.equal(personOf(PLAIN, { preferred_username: "boss" }).name, "s");
    assert.equal(personOf(KEYCLOAK, claims).name, "boss");
    assert.equal(personOf("https://acme.okta.com", claims).name, "boss");
    assert.equal(personOf("https://acme.okta.com.evil.example", claims).name, "a@example.com");
  });

  test("claims of the id token count before those of the userinfo endpoint", () => {
    const person = personOf(PLAIN, { department: "ops", groups: ["a"] }, { department: "boss", groups: ["b"], extra: 1 });
    assert.deepEqual([person.claims["department"], person.groups, person.claims["extra"]], ["ops", ["a"], 1]);
  });
});
