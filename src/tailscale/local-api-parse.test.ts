import assert from "node:assert/strict";
import { test } from "node:test";
import { maskedPrefs, parseBusMessage, parsePair, parsePrefs, parseServeConfig, parseStatus, parseWhoIs, startOptions } from "./local-api-parse.ts";

const NOW = Date.parse("2026-11-21T12:00:00Z");

const STATUS = {
  Version: "1.102.5",
  TUN: true,
  BackendState: "Running",
  HaveNodeKey: true,
  AuthURL: "",
  TailscaleIPs: ["100.64.0.1", "fd7a:115c:a1e0::1"],
  Self: { ID: "nABC", HostName: "GW", DNSName: "GW.Tail1234.ts.net.", UserID: 12, KeyExpiry: "2027-01-02T03:04:05.987231766Z", Later: { unknown: 1 } },
  Health: ["Some sentence."],
  CurrentTailnet: { Name: "example.com", MagicDNSSuffix: "Tail1234.ts.net" },
  CertDomains: ["GW.tail1234.ts.net"],
  User: { 12: { LoginName: "Alice@Example.com" }, 13: { LoginName: "bob@example.com" } },
};

const WHOIS = {
  Node: { StableID: "nPEER", Name: "Laptop.tail1234.ts.net.", Addresses: ["100.64.0.2/32", "fd7a:115c:a1e0::2/128"], KeyExpiry: "2027-01-01T00:00:00Z" },
  UserProfile: { LoginName: "Alice@Example.com" },
  CapMap: null,
};

function whois(node: object): ReturnType<typeof parseWhoIs> {
  return parseWhoIs(JSON.stringify({ ...WHOIS, Node: { ...WHOIS.Node, ...node } }), NOW);
}

test("a status is read with its names in lower case and without final dots", () => {
  const status = parseStatus(JSON.stringify(STATUS), NOW);
  assert.deepEqual(status, {
    version: "1.102.5",
    tun: true,
    state: "Running",
    haveNodeKey: true,
    authUrl: "",
    addresses: ["100.64.0.1", "fd7a:115c:a1e0::1"],
    self: {
      id: "nABC",
      dnsName: "gw.tail1234.ts.net",
      hostName: "GW",
      user: "alice@example.com",
      tags: [],
      keyExpiry: new Date("2027-01-02T03:04:05.987Z"),
      expired: false,
    },
    tailnet: "example.com",
    suffix: "tail1234.ts.net",
    certDomains: ["gw.tail1234.ts.net"],
    health: ["Some sentence"],
  });
});

test("what the control server says is fit for a terminal", () => {
  const url = (text: string): string => parseStatus(JSON.stringify({ AuthURL: text })).authUrl;
  assert.equal(url("https://login.tailscale.com/a/1f"), "https://login.tailscale.com/a/1f");
  assert.equal(url("https://login.tailscale.com/a/\u001b[2J"), "https://login.tailscale.com/a/%1B[2J");
  for (const text of ["javascript:alert(1)", "file:///etc/passwd", "open this"]) assert.equal(url(text), "");
  assert.deepEqual(parseStatus(JSON.stringify({ Health: ["You are\u001b[31m out."] })).health, ["You are [31m out"]);
  assert.equal(parseBusMessage(JSON.stringify({ ErrMessage: "a\r\nb" }))?.error, "a b");
  assert.equal(parseStatus(JSON.stringify({ Health: Array.from({ length: 5_000 }, (_, at) => `${at}`) })).health.length, 20);
});

test("what is missing in a status has the value of its absence", () => {
  const nothing = { version: "", tun: false, state: "NoState", haveNodeKey: false, authUrl: "", addresses: [], self: null, tailnet: "", suffix: "" };
  assert.deepEqual(parseStatus("{}"), { ...nothing, certDomains: [], health: [] });
  const nulls = JSON.stringify({ TailscaleIPs: null, Self: null, CurrentTailnet: null, CertDomains: null, Health: null, User: null });
  assert.deepEqual(parseStatus(nulls), { ...nothing, certDomains: [], health: [] });
  assert.equal(parseStatus(JSON.stringify({ Self: { ID: "", HostName: "vm" } })).self, null);
});

test("the own node has expired when its time is over, and never with Go's zero time", () => {
  const self = (fields: object): NonNullable<ReturnType<typeof parseStatus>["self"]> => {
    const { self: found } = parseStatus(JSON.stringify({ Self: { ID: "n", ...fields } }), NOW);
    assert.ok(found);
    return found;
  };
  assert.equal(self({ KeyExpiry: "2026-11-21T12:00:00Z" }).expired, true);
  assert.equal(self({ KeyExpiry: "2026-11-21T12:00:01Z" }).expired, false);
  assert.equal(self({ Expired: true }).expired, true);
  const never = self({ KeyExpiry: "0001-01-01T00:00:00Z" });
  assert.deepEqual([never.keyExpiry, never.expired], [null, false]);
});

test("a tagged node has no user, and ids that look alike are nobody's", () => {
  const tagged = { ...STATUS, Self: { ...STATUS.Self, Tags: ["tag:GW"] } };
  const { self } = parseStatus(JSON.stringify(tagged), NOW);
  assert.deepEqual([self?.user, self?.tags], [null, ["tag:gw"]]);
  // As JSON.parse reads them, all three are one number.
  const user = (users: string): string | null | undefined => parseStatus(`{"Self":{"ID":"n","UserID":61702938471029385},"User":{${users}}}`).self?.user;
  assert.equal(user(`"61702938471029385":{"LoginName":"alice"}`), "alice");
  assert.equal(user(`"61702938471029385":{"LoginName":"alice"},"61702938471029384":{"LoginName":"bob"}`), null);
});

test("a peer is read, of any version and with what is unknown beside it", () => {
  const peer = {
    id: "nPEER",
    name: "laptop.tail1234.ts.net",
    addresses: ["100.64.0.2", "fd7a:115c:a1e0::2"],
    tags: [],
    user: "alice@example.com",
    expired: false,
  };
  assert.deepEqual(whois({ Tags: null, Hostinfo: { new: true } }), peer);
  assert.deepEqual(whois({ Tags: ["tag:Bots"] }).tags, ["tag:bots"]);
  assert.equal(whois({ Expired: true }).expired, true);
  assert.equal(whois({ KeyExpiry: "2026-11-21T11:59:59Z" }).expired, true);
  assert.equal(whois({ KeyExpiry: "0001-01-01T00:00:00Z" }).expired, false);
  assert.equal(parseWhoIs(JSON.stringify({ Node: { StableID: "n" } })).user, null);
});

test("a field of another type is named", () => {
  const wrong: readonly [() => unknown, RegExp][] = [
    [() => parseStatus(`{"BackendState": 6}`), /^FieldError: 'BackendState' is not a text$/],
    [() => parseStatus(`{"BackendState": "Dancing"}`), /^FieldError: 'BackendState' 'Dancing' is unknown here$/],
    [() => parseStatus(`{"TUN": "yes"}`), /'TUN' is not true or false/],
    [() => parseStatus(`{"Self": [1]}`), /'Self' is not an object/],
    [() => parseStatus(`{"Self": {"ID": "n", "Tags": "tag:x"}}`), /'Self.Tags' is not a list of texts/],
    [() => parseStatus(`{"Self": {"ID": "n", "KeyExpiry": "tomorrow"}}`), /'Self.KeyExpiry' is not a time/],
    [() => parseStatus(`{"Self": {"ID": "n", "UserID": 1}, "User": {"1": {"LoginName": 5}}}`), /'User.1.LoginName' is not a text/],
    [() => whois({ Tags: ["tag:x", 1] }), /'Node.Tags' is not a list of texts/],
    [() => whois({ Expired: "no" }), /'Node.Expired' is not true or false/],
    [() => whois({ StableID: "" }), /'Node.StableID' is missing/],
    [() => parseWhoIs(`{"UserProfile": {"LoginName": "alice"}}`), /'Node.StableID' is missing/],
    [() => parsePrefs(`{"AdvertiseTags": {"0": "tag:x"}}`), /'AdvertiseTags' is not a list of texts/],
    [() => parseServeConfig(`{"TCP": {"80": {"TCPForward": 1}}}`), /'TCP.80.TCPForward' is not a text/],
    [() => parseServeConfig(`{"TCP": {"80": 5}}`), /'TCP.80' is not an object/],
    [() => parseServeConfig(`{"Foreground": {"id": {"TCP": []}}}`), /'Foreground.id.TCP' is not an object/],
    [() => parseServeConfig(`[]`), /it is not a JSON object/],
    [() => parseBusMessage(`{"State": 7}`), /'State' 7 is unknown here/],
    [() => parseBusMessage(`{"State": "6"}`), /'State' is not a number/],
    [() => parseBusMessage(`{"State": `), /it is not JSON/],
    [() => parsePair("hello"), /it is not a key and a certificate in PEM/],
  ];
  for (const [parse, message] of wrong) {
    assert.throws(parse, (error) => {
      assert.match(`FieldError: ${(error as Error).message}`, message);
      return (error as Error).constructor.name === "FieldError";
    });
  }
  // What every object has by birth is no field of the answer.
  assert.deepEqual(parseServeConfig(`{"TCP": {"__proto__": null, "constructor": {"TCPForward": "x"}}}`).TCP?.["constructor"], { TCPForward: "x" });
});

test("preferences are read with their absence, and written with their marks", () => {
  const prefs = parsePrefs(`{"AdvertiseTags": null, "NoStatefulFiltering": null, "AppConnector": {"Advertise": true}, "Hostname": "gw", "Config": {"x": 1}}`);
  assert.deepEqual([prefs.AdvertiseTags, prefs.NoStatefulFiltering, prefs.AppConnector, prefs.Hostname], [[], false, { Advertise: true }, "gw"]);
  assert.deepEqual(maskedPrefs({ Hostname: "gw", ShieldsUp: false, AppConnector: { Advertise: false } }), {
    Hostname: "gw",
    HostnameSet: true,
    ShieldsUp: false,
    ShieldsUpSet: true,
    AppConnector: { Advertise: false },
    AppConnectorSet: true,
  });
});

test("a start keeps the preferences that it does not know, and leaves keys where they are", () => {
  const present = `{"Hostname": "old", "AutoUpdate": {"Check": true, "Apply": null}, "Later": [1], "NetfilterMode": 2, "Config": {"PrivateNodeKey": "privkey:00"}}`;
  assert.deepEqual(startOptions(present, "tskey-auth-x", { Hostname: "gw", WantRunning: true }), {
    AuthKey: "tskey-auth-x",
    UpdatePrefs: { Hostname: "gw", AutoUpdate: { Check: true, Apply: null }, Later: [1], NetfilterMode: 2, WantRunning: true },
  });
});

test("a serve config is kept as it came; none is an empty one", () => {
  assert.deepEqual(parseServeConfig("null"), {});
  const config = { TCP: { 80: { HTTP: true }, 81: { TCPForward: "127.0.0.1:0" } }, Web: { "gw:80": {} }, Foreground: { id: { TCP: null } }, Later: 1 };
  assert.deepEqual(parseServeConfig(JSON.stringify(config)), config);
});

test("a pair is parted into key and chain", () => {
  const key = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
  const chain = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----\n";
  assert.deepEqual(parsePair(key + chain), { key, cert: chain });
  assert.throws(() => parsePair(chain + key));
});

test("a line of the bus tells what is followed here, or nothing", () => {
  const nothing = { prefsChanged: false, netMapChanged: false, loginFinished: false, healthChanged: false };
  const cases: readonly [object, object | null][] = [
    [
      { Version: "1", SessionID: "5586ec", State: 2, Prefs: {} },
      { ...nothing, sessionId: "5586ec", state: "NeedsLogin", prefsChanged: true },
    ],
    [
      { State: 0, Prefs: null, NetMap: null, ErrMessage: null },
      { ...nothing, state: "NoState" },
    ],
    [{ LoginFinished: {} }, { ...nothing, loginFinished: true }],
    [{ BrowseToURL: "https://login.tailscale.com/a/x" }, { ...nothing, loginUrl: "https://login.tailscale.com/a/x" }],
    [{ ErrMessage: "invalid authkey" }, { ...nothing, error: "invalid authkey" }],
    [{ SelfChange: { StableID: "n" } }, { ...nothing, netMapChanged: true }],
    [{ NetMap: { Peers: [] } }, { ...nothing, netMapChanged: true }],
    [{ Health: { Warnings: null } }, { ...nothing, healthChanged: true }],
    [{ Engine: { NumLive: 3 } }, null],
    [{ Version: "1", ErrMessage: null, State: null, DriveShares: [] }, null],
  ];
  for (const [line, expected] of cases) assert.deepEqual(parseBusMessage(JSON.stringify(line)), expected);
});
