// A corpus of malicious requests, sent as bytes: the upstream sees nothing of them, or exactly one well-formed request.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { startHttpGateway, TOKEN, type HttpGateway } from "../components/http-gateway.ts";
import { startOrigin, startRecordingOrigin, type RecordedRequest, type RecordingOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";
import { AddressSet } from "../../src/lib/address.ts";

type Case = {
  name: string;
  /** Why this answer is the right one. */
  why: string;
  send: (string | Buffer | number)[];
  /** Statuses that the client gets, in order; [] when the connection is closed without a word. */
  statuses: number[];
  /** What the upstream sees: targets in order. */
  upstream?: string[];
  also?: (requests: readonly RecordedRequest[], text: string) => void;
};

const GET = "GET /open HTTP/1.1\r\nHost: a.example\r\n";
const POST = "POST /open HTTP/1.1\r\nHost: a.example\r\n";
/** What an attacker wants to slip past the route's token. */
const SMUGGLED = "GET /private HTTP/1.1\r\nHost: a.example\r\n\r\n";
const value = (request: RecordedRequest | undefined, name: string): string[] => request?.headers.filter(([key]) => key === name).map(([, text]) => text) ?? [];

const framing: Case[] = [
  {
    name: "CL.TE",
    why: "RFC 9112, 6.3: both lengths are an attempt to smuggle",
    send: [`${POST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX`],
    statuses: [400],
  },
  {
    name: "TE.CL",
    why: "the order makes no difference",
    send: [`${POST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n${SMUGGLED}`],
    statuses: [400],
  },
  {
    name: "TE.TE with identity",
    why: "RFC 9112, 6.1: only chunked is known",
    send: [`${POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`],
    statuses: [400],
  },
  {
    name: "identity before chunked",
    why: "a coding that we do not know may hide the end of the body",
    send: [`${POST}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n`],
    statuses: [501],
  },
  {
    name: "two Transfer-Encoding headers",
    why: "servers take the first, the last or both",
    send: [`${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`],
    statuses: [400],
  },
  {
    name: "chunked twice",
    why: "chunked is applied once only",
    send: [`${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    statuses: [400],
  },
  { name: "xchunked", why: "some servers look for the word anywhere", send: [`${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`], statuses: [501] },
  {
    name: "gzip, chunked",
    why: "RFC 9112, 6.1: 501 for a coding that is not understood",
    send: [`${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
    statuses: [501],
  },
  { name: "quoted chunked", why: "no value but the plain word", send: [`${POST}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`], statuses: [501] },
  {
    name: "Transfer-Encoding with a vertical tab",
    why: "a control character hides the word from one of two parsers",
    send: [`${POST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`],
    statuses: [400],
  },
  {
    name: "Transfer-Encoding with obs-text",
    why: "no other spelling of chunked",
    send: [`${POST}Transfer-Encoding: chunked\xff\r\n\r\n0\r\n\r\n`],
    statuses: [501],
  },
  {
    name: "CHUNKED",
    why: "RFC 9112, 7: names of codings have no case",
    send: [`${POST}Transfer-Encoding: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.equal(request?.body, "hi"),
  },
  { name: "space before the colon", why: "RFC 9112, 5.1: reject", send: [`${POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`], statuses: [400] },
  { name: "tab before the colon", why: "RFC 9112, 5.1: reject", send: [`${POST}Content-Length\t: 5\r\n\r\nhello`], statuses: [400] },
  {
    name: "Transfer-Encoding in HTTP/1.0",
    why: "RFC 9112, 6.1: treat as faulty framing",
    send: ["POST /open HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "two different Content-Length",
    why: "RFC 9112, 6.3: unrecoverable",
    send: [`${POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!`],
    statuses: [400],
  },
  {
    name: "two equal Content-Length",
    why: "allowed to be merged, safer refused",
    send: [`${POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`],
    statuses: [400],
  },
  { name: "Content-Length as a list", why: "the same in one line", send: [`${POST}Content-Length: 5, 5\r\n\r\nhello`], statuses: [400] },
  { name: "negative Content-Length", why: "1*DIGIT", send: [`${POST}Content-Length: -5\r\n\r\nhello`], statuses: [400] },
  { name: "Content-Length with plus", why: "1*DIGIT", send: [`${POST}Content-Length: +5\r\n\r\nhello`], statuses: [400] },
  { name: "hexadecimal Content-Length", why: "1*DIGIT", send: [`${POST}Content-Length: 0x5\r\n\r\nhello`], statuses: [400] },
  { name: "empty Content-Length", why: "1*DIGIT", send: [`${POST}Content-Length: \r\n\r\nhello`], statuses: [400] },
  {
    name: "Content-Length beyond 64 bits",
    why: "an overflow makes it small again",
    send: [`${POST}Content-Length: 18446744073709551621\r\n\r\nhello`],
    statuses: [400],
  },
  { name: "Content-Length with a space inside", why: "one number", send: [`${POST}Content-Length: 5 5\r\n\r\nhello`], statuses: [400] },
  {
    name: "Content_Length",
    why: "CGI takes the underscore for a hyphen: the header is dropped",
    send: [`${POST}Content_Length: 5\r\nContent-Length: 2\r\n\r\nhi`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.deepEqual(value(request, "content_length"), []),
  },
  {
    name: "a request in the body of a GET",
    why: "what the length covers is body and nothing else",
    send: [`${GET}Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.equal(request?.body, SMUGGLED),
  },
  {
    name: "a request behind a body",
    why: "what follows is a request of its own and meets the route's token",
    send: [`${POST}Content-Length: 2\r\n\r\nhi${SMUGGLED}`],
    statuses: [200, 401],
    upstream: ["/open"],
  },
  {
    name: "a request behind a bodyless POST",
    why: "RFC 9112, 6.3: without framing there is no body",
    send: [`${POST}\r\n${SMUGGLED}`],
    statuses: [200, 401],
    upstream: ["/open"],
  },
  {
    name: "Connection names Content-Length",
    why: "a hop-by-hop header cannot unframe the message",
    send: [`${POST}Connection: close, content-length\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.equal(request?.body, SMUGGLED),
  },
  {
    name: "Connection names Host",
    why: "Host always passes",
    send: [`${GET}Connection: host\r\n\r\n`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.deepEqual(value(request, "host"), ["a.example"]),
  },
  {
    name: "Connection names X-Forwarded-For",
    why: "the address that we set cannot be taken off",
    send: [`${GET}Connection: x-forwarded-for, x-real-ip, forwarded\r\n\r\n`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.deepEqual(value(request, "x-forwarded-for"), ["127.0.0.1"]),
  },
];

const CHUNKED = `${POST}Transfer-Encoding: chunked\r\n\r\n`;
const chunks: Case[] = [
  { name: "chunk size beyond 64 bits", why: "an overflow makes it small again", send: [`${CHUNKED}10000000000000002\r\nhi\r\n0\r\n\r\n`], statuses: [400] },
  { name: "negative chunk size", why: "1*HEXDIG", send: [`${CHUNKED}-1\r\nhi\r\n0\r\n\r\n`], statuses: [400] },
  { name: "chunk size with 0x", why: "1*HEXDIG", send: [`${CHUNKED}0x2\r\nhi\r\n0\r\n\r\n`], statuses: [400] },
  { name: "chunk longer than its size", why: "its end must be a CRLF", send: [`${CHUNKED}2\r\nhiX\r\n0\r\n\r\n`], statuses: [400] },
  { name: "chunk size line with a bare LF", why: "RFC 9112, 7.1: CRLF", send: [`${CHUNKED}2\nhi\r\n0\r\n\r\n`], statuses: [400] },
  {
    name: "chunk extension with a bare LF",
    why: "one parser ends the line there, the other does not",
    send: [`${CHUNKED}2;a\nxx\r\nhi\r\n0\r\n\r\n`],
    statuses: [400],
  },
  {
    name: "chunk extension",
    why: "it is read and not passed on",
    send: [`${CHUNKED}2;a=b;c="d"\r\nhi\r\n0\r\n\r\n`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.equal(request?.body, "hi"),
  },
  { name: "endless chunk extension", why: "bounded", send: [`${CHUNKED}2;${"a".repeat(40_000)}\r\nhi\r\n0\r\n\r\n`], statuses: [431] },
  {
    name: "forged trailers",
    why: "a trailer cannot name a user, an address or a length",
    send: [`${CHUNKED}0\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-User: root\r\nHost: evil\r\nAuthorization: Bearer x\r\nX-Checksum: 1\r\n\r\n`],
    statuses: [200],
    upstream: ["/open"],
    also: ([request]) => assert.equal(request?.trailers, "X-Checksum: 1\r\n"),
  },
  {
    name: "Content-Length as a trailer",
    why: "the parser refuses it beside Transfer-Encoding",
    send: [`${CHUNKED}0\r\nContent-Length: 9\r\n\r\n`],
    statuses: [400],
  },
  {
    name: "chunked body with a request behind it",
    why: "it meets the token",
    send: [`${CHUNKED}0\r\n\r\n${SMUGGLED}`],
    statuses: [200, 401],
    upstream: ["/open"],
  },
];

const lines: Case[] = [
  {
    name: "bare LF line ends",
    why: "RFC 9112, 2.2 lets a recipient take them; two that differ are a smuggling pair",
    send: ["GET /open HTTP/1.1\nHost: a.example\n\n"],
    statuses: [400],
  },
  {
    name: "bare LF before a second header",
    why: "one parser sees a header that the other does not",
    send: [`${GET}X-A: b\nX-Real-IP: 6.6.6.6\r\n\r\n`],
    statuses: [400],
  },
  { name: "bare CR in a value", why: "RFC 9112, 2.2: reject", send: [`${GET}X-A: b\rX-B: c\r\n\r\n`], statuses: [400] },
  { name: "obs-fold", why: "RFC 9112, 5.2: reject", send: [`${GET}X-A: b\r\n c\r\n\r\n`], statuses: [400] },
  { name: "obs-fold of Transfer-Encoding", why: "RFC 9112, 5.2: reject", send: [`${POST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n`], statuses: [400] },
  { name: "first header begins with white space", why: "RFC 9112, 2.2: reject", send: ["GET /open HTTP/1.1\r\n Host: a.example\r\n\r\n"], statuses: [400] },
  { name: "NUL in a value", why: "RFC 9110, 5.5: reject", send: [`${GET}X-A: a\0b\r\n\r\n`], statuses: [400] },
  { name: "DEL in a value", why: "a control character", send: [`${GET}X-A: a\x7fb\r\n\r\n`], statuses: [400] },
  { name: "header without a colon", why: "no header", send: [`${GET}Nonsense\r\n\r\n`], statuses: [400] },
  { name: "empty header name", why: "1*tchar", send: [`${GET}: x\r\n\r\n`], statuses: [400] },
  { name: "header name with a slash", why: "1*tchar", send: [`${GET}X/A: x\r\n\r\n`], statuses: [400] },
  { name: "header name with obs-text", why: "1*tchar", send: [`${GET}X\xe9: x\r\n\r\n`], statuses: [400] },
  { name: "tab between method and target", why: "one space", send: ["GET\t/open HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "HTTP/0.9", why: "no version, no headers, no route", send: ["GET /open\r\n\r\n"], statuses: [505] },
  { name: "HTTP/2.0 in a request line", why: "not of this protocol", send: ["GET /open HTTP/2.0\r\nHost: a.example\r\n\r\n"], statuses: [505] },
  { name: "HTTP/1.9", why: "a version that nobody defined", send: ["GET /open HTTP/1.9\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "lower-case version", why: "RFC 9112, 2.3: case matters", send: ["GET /open http/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "unknown method", why: "the parser knows all registered ones", send: ["GETT /open HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  {
    name: "TRACE",
    why: "it would show the upstream's view of the request to a script",
    send: ["TRACE /open HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [501],
  },
  { name: "a TLS ClientHello", why: "no HTTP", send: [Buffer.from("160301005f0100005b0303", "hex"), Buffer.alloc(80, 1)], statuses: [400] },
  { name: "HTTP/2 preface", why: "over TLS only", send: ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], statuses: [400] },
  {
    name: "HTTP/1.0 kept alive",
    why: "allowed, one request at a time",
    send: ["GET /open HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n"],
    statuses: [200],
    upstream: ["/open"],
  },
  { name: "HTTP/1.0 without Host", why: "RFC 9112, 3.2 asks for it in 1.1 only", send: ["GET /open HTTP/1.0\r\n\r\n"], statuses: [200], upstream: ["/open"] },
];

const targets: Case[] = [
  { name: "no Host", why: "RFC 9112, 3.2: 400", send: ["GET /open HTTP/1.1\r\n\r\n"], statuses: [400] },
  { name: "empty Host", why: "no route can mean it", send: ["GET /open HTTP/1.1\r\nHost: \r\n\r\n"], statuses: [400] },
  { name: "two Hosts", why: "RFC 9112, 3.2: 400", send: [`${GET}Host: b.example\r\n\r\n`], statuses: [400] },
  { name: "two equal Hosts", why: "RFC 9112, 3.2: more than one line is 400", send: [`${GET}Host: a.example\r\n\r\n`], statuses: [400] },
  {
    name: "Host with userinfo",
    why: "which side of the @ is the host?",
    send: ["GET /open HTTP/1.1\r\nHost: a.example@evil.example\r\n\r\n"],
    statuses: [400],
  },
  { name: "Host with a space", why: "no host", send: ["GET /open HTTP/1.1\r\nHost: a.example evil\r\n\r\n"], statuses: [400] },
  { name: "Host with a comma", why: "two hosts in one line", send: ["GET /open HTTP/1.1\r\nHost: a.example, evil.example\r\n\r\n"], statuses: [400] },
  {
    name: "Host with a path",
    why: "an upstream that builds URLs of it is led astray",
    send: ["GET /open HTTP/1.1\r\nHost: a.example/private\r\n\r\n"],
    statuses: [400],
  },
  { name: "Host with a quote", why: "it goes into Forwarded", send: ['GET /open HTTP/1.1\r\nHost: a";for=6.6.6.6\r\n\r\n'], statuses: [400] },
  { name: "Host with a bad port", why: "no port", send: ["GET /open HTTP/1.1\r\nHost: a.example:80x\r\n\r\n"], statuses: [400] },
  {
    name: "absolute form that differs from Host",
    why: "whoever stands before us may have looked at the other",
    send: ["GET http://b.example/open HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "absolute form that equals Host",
    why: "RFC 9112, 3.2.2: must be taken",
    send: ["GET http://a.example/open?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [200],
    upstream: ["/open?q=1"],
  },
  {
    name: "absolute form with userinfo",
    why: "which side of the @ is the host?",
    send: ["GET http://a.example@b.example/open HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "absolute form of another scheme",
    why: "we are no proxy for it",
    send: ["GET ftp://a.example/open HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  { name: "asterisk with GET", why: "RFC 9112, 3.2.4: with OPTIONS only", send: ["GET * HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "authority form", why: "with CONNECT only", send: ["GET a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  {
    name: "CONNECT",
    why: "we are no tunnel: closed without a word by the parser's owner",
    send: ["CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n"],
    statuses: [],
  },
  {
    name: "dot segments",
    why: "an upstream that resolves them sees /private",
    send: ["GET /open/../private HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "escaped dot segments",
    why: "the same, spelled differently",
    send: ["GET /open/%2e%2E/private HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "dot segments behind an escaped slash",
    why: "the same for upstreams that decode first",
    send: ["GET /open%2f..%2fprivate HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "dot segment with parameters",
    why: "servlet containers drop what follows the semicolon",
    send: ["GET /open/..;/private HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "two slashes at the start",
    why: "new URL() takes what follows for a host: the path becomes /private",
    send: ["GET //open/private HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "two slashes inside",
    why: "upstreams that merge them see another path",
    send: ["GET /open//private HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  { name: "backslash", why: "URL parsers take it for a slash", send: ["GET /open\\..\\private HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "escaped backslash", why: "the same after decoding", send: ["GET /open/%5c..%5cprivate HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  {
    name: "escaped letters",
    why: "%70rivate is private: the route with the token is found",
    send: ["GET /%70rivate HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [401],
  },
  {
    name: "escaped slash into another route",
    why: "decoded it is below /private, as written it is not",
    send: ["GET /private%2Fx HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  {
    name: "escaped slash within a route",
    why: "both readings lead to the same route",
    send: ["GET /open/a%2Fb HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [200],
    upstream: ["/open/a%2Fb"],
  },
  { name: "escaped NUL", why: "C programs end the path there", send: ["GET /open%00/x HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  {
    name: "escaped CRLF",
    why: "header injection into whatever decodes the path",
    send: ["GET /open%0d%0aX-Real-IP:%206.6.6.6 HTTP/1.1\r\nHost: a.example\r\n\r\n"],
    statuses: [400],
  },
  { name: "broken escape", why: "no meaning", send: ["GET /open%zz HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "fragment", why: "RFC 9112, 3.2: not part of a target", send: ["GET /open#/private HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "raw bytes above ASCII", why: "two encodings, two paths", send: ["GET /open/\xe9 HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "a space in the target", why: "where does the target end?", send: ["GET /open /private HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [400] },
  { name: "another case of the path", why: "paths have case: no route", send: ["GET /PRIVATE HTTP/1.1\r\nHost: a.example\r\n\r\n"], statuses: [404] },
  {
    name: "a dot at the end of the host",
    why: "the same host: the token is asked for",
    send: ["GET /private HTTP/1.1\r\nHost: A.Example.:80\r\n\r\n"],
    statuses: [401],
  },
];

const sizes: Case[] = [
  { name: "huge header", why: "max_header_size", send: [`${GET}X-A: ${"a".repeat(20_000)}\r\n\r\n`], statuses: [431] },
  { name: "huge request line", why: "max_header_size", send: [`GET /open/${"a".repeat(20_000)} HTTP/1.1\r\nHost: a.example\r\n\r\n`], statuses: [431] },
  { name: "many headers", why: "each costs; 256 are plenty", send: [`${GET}${"a: b\r\n".repeat(300)}\r\n`], statuses: [431] },
  {
    name: "more headers than Node.js keeps",
    why: "what is dropped in silence must not be decided by",
    send: [`${GET}${"a:\r\n".repeat(2_500)}\r\n`],
    statuses: [431],
  },
  { name: "an endless header name", why: "max_header_size", send: [`${GET}${"a".repeat(20_000)}`], statuses: [431] },
  { name: "slow headers", why: "timeouts.headers", send: [GET, 50, "X-A: b\r\n"], statuses: [408] },
  { name: "slow body", why: "timeouts.read", send: [`${POST}Content-Length: 10\r\n\r\nhel`], statuses: [408], upstream: [] },
  { name: "slow chunked body", why: "timeouts.read", send: [`${CHUNKED}5\r\nhel`], statuses: [408] },
  {
    name: "many pipelined requests",
    why: "each is answered, in order",
    send: [`${GET}\r\n`.repeat(20)],
    statuses: Array.from({ length: 20 }, () => 200),
    upstream: Array.from({ length: 20 }, () => "/open"),
  },
];

const credentials: Case[] = [
  { name: "no token", why: "401", send: [SMUGGLED], statuses: [401] },
  { name: "a wrong token", why: "401", send: [SMUGGLED.replace("\r\n\r\n", "\r\nAuthorization: Bearer wrong\r\n\r\n")], statuses: [401] },
  {
    name: "two Authorization headers",
    why: "which one counts?",
    send: [SMUGGLED.replace("\r\n\r\n", `\r\nAuthorization: Bearer ${TOKEN}\r\nAuthorization: Bearer x\r\n\r\n`)],
    statuses: [400],
  },
  { name: "the token as basic", why: "Bearer only", send: [SMUGGLED.replace("\r\n\r\n", `\r\nAuthorization: Basic ${TOKEN}\r\n\r\n`)], statuses: [401] },
  {
    name: "the token in the query",
    why: "RFC 6750, 5.3: header only",
    send: [`GET /private?access_token=${TOKEN} HTTP/1.1\r\nHost: a.example\r\n\r\n`],
    statuses: [401],
  },
  {
    name: "the right token with forged names",
    why: "the upstream sees neither the token nor what the client says of itself",
    send: [
      SMUGGLED.replace(
        "\r\n\r\n",
        `\r\nAuthorization: Bearer ${TOKEN}\r\nX-Forwarded-User: root\r\nX-Forwarded-Scopes: all\r\nX_Forwarded_User: root\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Request-Id: forged-request-id\r\nProxy-Authorization: x\r\n\r\n`,
      ),
    ],
    statuses: [200],
    upstream: ["/private"],
    also: ([request]) => {
      const text = JSON.stringify(request);
      for (const bad of [TOKEN, "6.6.6.6", "root", "evil", "forged", "proxy-authorization", "x_forwarded", "x-forwarded-port"])
        assert.ok(!text.includes(bad), `${bad} in ${text}`);
      assert.deepEqual(value(request, "x-forwarded-proto"), ["http"]);
    },
  },
];

let origin: RecordingOrigin;
let gateway: HttpGateway;

before(async () => {
  origin = await startRecordingOrigin();
  gateway = await startHttpGateway({
    targets: [origin.url],
    routes: [
      { path: { kind: "prefix", path: "/open" }, auth: null },
      { path: { kind: "prefix", path: "/private" }, auth: [{ kind: "token", names: null, scopes: [] }] },
    ],
    listener: { timeouts: { headersMs: 400, readMs: 300 } },
  });
});

after(async () => {
  await gateway[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  assert.deepEqual(gateway.errors, []);
});

for (const [group, cases] of Object.entries({ framing, chunks, lines, targets, sizes, credentials })) {
  for (const { name, why, send, statuses, upstream = [], also } of cases) {
    test(`${group}: ${name} (${why})`, async () => {
      origin.reset();
      const reply = await sendRaw(gateway.port, send, Math.max(statuses.length, 1));
      assert.deepEqual(reply.statuses, statuses, reply.text);
      assert.deepEqual(
        origin.requests.map(({ target }) => target),
        upstream,
      );
      assert.deepEqual(origin.malformed, []);
      also?.(origin.requests, reply.text);
    });
  }
}

test("a client that resets its connection behind the request does not lose its address and pass a deny list", async () => {
  await using target = await startRecordingOrigin();
  await using guarded = await startHttpGateway({ targets: [target.url], listener: { deny: new AddressSet(["127.0.0.0/8"]) } });
  // Another process, waited for: when the gateway accepts the connection, it is reset already.
  const script = `const socket = require("node:net").connect(${guarded.port}, "127.0.0.1", () =>
    socket.write("POST /transfer HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 2\\r\\n\\r\\nhi", () => socket.resetAndDestroy()));`;
  assert.equal(spawnSync(process.execPath, ["-e", script]).status, 0);
  const line = await waitFor(() => guarded.accessLog[0], { what: () => "the request to be judged" });
  assert.equal(line["client"], "", "the kernel still told the address: this shows nothing");
  assert.match(String(line["error"]), /ERR_ADDRESS/);
  assert.equal(target.connections(), 0);
});

test("a flood of pipelined requests does not become a flood of connections to the upstream, and its connection is closed", async () => {
  await using silent = await startOrigin(() => {});
  await using flooded = await startHttpGateway({ targets: [silent.url] });
  const socket = connect(flooded.port, "127.0.0.1");
  let closed = false;
  socket.on("error", () => {});
  socket.on("close", () => (closed = true));
  socket.resume();
  socket.write(`${GET}\r\n`.repeat(2_000));
  await waitFor(() => closed, { what: () => "the connection to be closed" });
  await waitFor(() => flooded.state.live.active === 0 && flooded.upstream.active === 0, { what: () => "every request to end" });
  assert.ok(silent.connections() <= 64, `${silent.connections()} connections`);
  assert.ok(flooded.accessLog.some(({ error }) => String(error).includes("ERR_PIPELINED")));
});

test("a client that sends requests and takes no answer is cut after timeouts.write", async (t) => {
  await using large = await startOrigin((_req, res) => void res.end(Buffer.alloc(15_000)));
  await using unread = await startHttpGateway({ targets: [large.url], listener: { timeouts: { writeMs: 300 } } });
  const socket = connect(unread.port, "127.0.0.1");
  socket.pause();
  socket.on("error", () => {});
  // Never so many at once that the limit of requests under way would cut it first.
  let sent = 0;
  const flood = setInterval(() => {
    if (unread.state.live.active > 0 || unread.accessLog.length < sent) return;
    socket.write(`${GET}\r\n`.repeat(30));
    sent += 30;
  }, 2).unref();
  t.after(() => socket.destroy());
  const ends = (): string => [...new Set(unread.accessLog.map(({ error }) => String(error)))].join("; ");
  await waitFor(() => ends().includes("ERR_CLIENT_WRITE_TIMEOUT"), { what: () => `the client to be cut; ends: ${ends()}` });
  await waitFor(() => unread.sockets.size === 0 && unread.state.live.active === 0);
  clearInterval(flood);
});
