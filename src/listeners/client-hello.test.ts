import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { connect, type ConnectionOptions } from "node:tls";
import { beginsTls, parseClientHello } from "./client-hello.ts";

/** The bytes that Node's own client sends first. */
async function helloOf(options: ConnectionOptions): Promise<Buffer> {
  const sent = Promise.withResolvers<Buffer>();
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, callback) {
      sent.resolve(chunk);
      callback();
    },
  });
  const client = connect({ socket: stream, ...options }).on("error", () => {});
  const hello = await sent.promise;
  client.destroy();
  return hello;
}

/** The message of a record in records of `size` bytes each. */
function split(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    const fragment = message.subarray(at, at + size);
    records.push(Buffer.from([22, 3, 1, fragment.length >> 8, fragment.length & 0xff]), fragment);
  }
  return Buffer.concat(records);
}

function vector(size: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(size);
  length.writeUIntBE(body.length, 0, size);
  return Buffer.concat([length, body]);
}

function extension(type: number, ...parts: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from([type >> 8, type & 0xff]), vector(2, ...parts)]);
}

function helloWith(...extensions: Buffer[]): Buffer {
  const rest = extensions.length === 0 ? Buffer.alloc(0) : vector(2, ...extensions);
  const body = Buffer.concat([Buffer.from([3, 3]), Buffer.alloc(32), vector(1), vector(2, Buffer.from([0x13, 1])), vector(1, Buffer.from([0])), rest]);
  const message = Buffer.concat([Buffer.from([1]), vector(3, body)]);
  return Buffer.concat([Buffer.from([22, 3, 1]), vector(2, message)]);
}

const hostName = (name: string): Buffer => Buffer.concat([Buffer.from([0]), vector(2, Buffer.from(name))]);
const serverName = (...names: Buffer[]): Buffer => extension(0, vector(2, ...names));
const alpn = (...names: string[]): Buffer => extension(16, vector(2, ...names.map((name) => vector(1, Buffer.from(name)))));

test("the server name and the protocols of a real client are read, with TLS 1.2 and 1.3, whole, in pieces and over records", async () => {
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    const hello = await helloOf({ servername: "a.example.com", ALPNProtocols: ["h2", "http/1.1"], maxVersion });
    const expected = { serverName: "a.example.com", alpn: ["h2", "http/1.1"] };
    assert.ok(beginsTls(hello));
    assert.deepEqual(parseClientHello(hello), expected);
    for (let length = 0; length < hello.length; length += 1) assert.equal(parseClientHello(hello.subarray(0, length)), "incomplete");
    for (const size of [300, 1000]) {
      const records = split(hello, size);
      assert.deepEqual(parseClientHello(records), expected);
      for (let length = 0; length < records.length; length += 1) assert.equal(parseClientHello(records.subarray(0, length)), "incomplete");
    }
  }
  assert.deepEqual(parseClientHello(await helloOf({ servername: "" })), { serverName: null, alpn: [] });
  assert.deepEqual(parseClientHello(helloWith()), { serverName: null, alpn: [] });
});

test("what is no ClientHello, or breaks its rules, is malformed and nothing more is waited for", async () => {
  const name = serverName(hostName("a.example.com"));
  assert.deepEqual(parseClientHello(helloWith(name, alpn("acme-tls/1"))), { serverName: "a.example.com", alpn: ["acme-tls/1"] });
  const whole = helloWith(name);
  const bad: Record<string, Buffer> = {
    "plain HTTP": Buffer.from("GET / HTTP/1.1\r\n"),
    "another record": Buffer.from([23, 3, 3, 0, 1, 0]),
    "another version": Buffer.from([22, 2]),
    "an empty record": Buffer.from([22, 3, 1, 0, 0]),
    "a large record": Buffer.from([22, 3, 1, 0xff, 0xff]),
    "another message": Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0]),
    "an empty message": Buffer.from([22, 3, 1, 0, 4, 1, 0, 0, 0]),
    "more after the message": Buffer.concat([Buffer.from([22, 3, 1]), vector(2, whole.subarray(5), Buffer.from([0]))]),
    "the same extension twice": helloWith(name, name),
    "two names": helloWith(serverName(hostName("a.example.com"), hostName("b.example.com"))),
    "no name": helloWith(serverName()),
    "an empty name": helloWith(serverName(hostName(""))),
    "another type of name": helloWith(serverName(Buffer.concat([Buffer.from([1]), vector(2, Buffer.from("a"))]))),
    "a name with a zero byte": helloWith(serverName(hostName("a.example.com\0.b"))),
    "a name with a line break": helloWith(serverName(hostName("a\nb"))),
    "a long name": helloWith(serverName(hostName("a".repeat(256)))),
    "no protocol": helloWith(alpn()),
    "an empty protocol": helloWith(alpn("h2", "")),
    "bytes behind the extension's list": helloWith(extension(16, vector(2, vector(1, Buffer.from("h2"))), Buffer.from([0]))),
    "records of a byte": split(whole, 1),
  };
  for (const [what, bytes] of Object.entries(bad)) assert.equal(parseClientHello(bytes), "malformed", what);
});

test("whatever comes, the parser answers, and never waits for more than 16 KB", async () => {
  const hello = await helloOf({ servername: "a.example.com", ALPNProtocols: ["h2"] });
  // A fixed seed: what fails once fails again.
  let state = 1;
  const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  const outcomes = new Map<string, number>();
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = Buffer.from(round % 3 === 0 ? split(hello, 200 + random(400)) : hello);
    for (let change = random(4); change >= 0; change -= 1) bytes[random(round % 2 === 0 ? 120 : bytes.length)] = random(256);
    const result = parseClientHello(round % 5 === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
    const outcome = typeof result === "string" ? result : "hello";
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (result === "incomplete") assert.notEqual(parseClientHello(Buffer.concat([bytes, Buffer.alloc(16_384)])), "incomplete");
  }
  assert.deepEqual([...outcomes.keys()].toSorted(), ["hello", "incomplete", "malformed"]);
});
