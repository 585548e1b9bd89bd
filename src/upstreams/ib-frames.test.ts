import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameReader, checkHandshake, decodeFields, encodeFrame, encodeHandshake, startApiClientId } from "./ib-frames.ts";

test("a handshake is known byte by byte", () => {
  const bytes = encodeHandshake(157, 178);
  assert.equal(bytes.toString("latin1"), "API\0\0\0\0\x09v157..178");
  for (let i = 0; i < bytes.length; i += 1) assert.equal(checkHandshake(bytes.subarray(0, i)), "more");
  assert.equal(checkHandshake(bytes), "yes");
  assert.equal(checkHandshake(Buffer.concat([bytes, encodeFrame(71, 2, 1, "")])), "yes");
});

test("versions as clients write them are taken, everything else is not", () => {
  const shake = (text: string): Buffer => Buffer.concat([Buffer.from("API\0\0\0\0"), Buffer.of(text.length), Buffer.from(text)]);
  for (const text of ["v100..178", "v157", "v100..20300", "v157..178 +PACEAPI", "v100..178 --"]) assert.equal(checkHandshake(shake(text)), "yes", text);
  for (const text of ["", "157..178", "v1..2;rm", "v157..178\n", "v..", "v157..178\0"]) assert.equal(checkHandshake(shake(text)), "no", text);
  for (const text of ["A", "AP", "API"]) assert.equal(checkHandshake(Buffer.from(text)), "more");
  for (const text of ["a", "APX", "GET ", "\x16\x03"]) assert.equal(checkHandshake(Buffer.from(text)), "no");
  assert.equal(checkHandshake(Buffer.from("API\0\0\0\0\x41v")), "no");
  assert.equal(checkHandshake(Buffer.from("API\0\xff\xff\xff\xff", "latin1")), "no");
});

test("messages are found in any pieces", () => {
  const stream = Buffer.concat([encodeFrame(15, 1, "DU1"), encodeFrame(9, 1, 1), encodeFrame()]);
  for (let size = 1; size <= stream.length; size += 1) {
    const reader = new FrameReader(100);
    const seen: string[][] = [];
    for (let at = 0; at < stream.length; at += size)
      for (const body of reader.push(stream.subarray(at, at + size)) ?? assert.fail()) seen.push(decodeFields(body));
    assert.deepEqual(seen, [["15", "1", "DU1"], ["9", "1", "1"], []]);
  }
});

test("a length beyond the bound means another protocol", () => {
  assert.equal(new FrameReader(1_000_000).push(Buffer.from("HTTP/1.1 400 Bad Request")), null);
});

test("the client id is found in all three forms of startApi", () => {
  const binary = (id: number, rest: Buffer): Buffer => {
    const head = Buffer.alloc(4);
    head.writeInt32BE(id);
    return Buffer.concat([head, rest]);
  };
  assert.equal(startApiClientId(encodeFrame(71, 2, 17, "").subarray(4)), 17);
  assert.equal(startApiClientId(encodeFrame(71, 2, 2_147_483_647, "").subarray(4)), 2_147_483_647);
  assert.equal(startApiClientId(binary(71, Buffer.from("2\x0017\0\0"))), 17);
  assert.equal(startApiClientId(binary(271, Buffer.from("081112", "hex"))), 17);
  assert.equal(startApiClientId(binary(271, Buffer.from("08ffffffff07", "hex"))), 2_147_483_647);
});

test("what is no startApi gives no client id", () => {
  for (const bytes of ["", "71", "71\0", "71\x002\0", "71\x002\x0017", "71\x002\0-1\0", "71\x002\x009999999999\0", "61\x001\x0017\0", "2\x0017\0"]) {
    assert.equal(startApiClientId(Buffer.from(bytes)), null, JSON.stringify(bytes));
  }
  for (const hex of ["0000010f", "0000010f08", "0000010f08ff", "0000010f08ffffffffff01", "0000010f1211", "00000110081100"])
    assert.equal(startApiClientId(Buffer.from(hex, "hex")), null, hex);
});
