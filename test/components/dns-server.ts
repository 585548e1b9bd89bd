// A small DNS server on a UDP port of a loopback address; its records change while it runs.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { AUTHORITATIVE_ANSWER, decode, encode, RECURSION_AVAILABLE, type Answer, type Question } from "dns-packet";

const RCODES = { normal: 0, servfail: 2, notimp: 4, refused: 5 } as const;
const NXDOMAIN = 3;

export type DnsServer = AsyncDisposable & {
  /** `127.0.0.1:5353`, `[::1]:5353`. */
  readonly address: string;
  readonly port: number;
  /** Values by `TXT example.com`; `CNAME *.example.com` answers for names that are not there. */
  readonly records: Map<string, string[]>;
  /** What was asked so far, as `TXT example.com`. */
  readonly questions: string[];
  /** Questions that get no answer, as `TXT example.com`. */
  readonly silentFor: Set<string>;
  /** What becomes of all others: `silent` answers nothing. */
  mode: keyof typeof RCODES | "silent";
};

/** @param options.port default: a free one */
export async function startDnsServer(options: { host?: string; port?: number; records?: Record<string, string[]> } = {}): Promise<DnsServer> {
  const { host = "127.0.0.1", port = 0 } = options;
  const socket = createSocket(isIPv6(host) ? "udp6" : "udp4");
  socket.bind(port, host);
  await once(socket, "listening");
  const bound = socket.address().port;
  const server: DnsServer = {
    address: isIPv6(host) ? `[${host}]:${bound}` : `${host}:${bound}`,
    port: bound,
    records: new Map(Object.entries(options.records ?? {})),
    questions: [],
    silentFor: new Set(),
    mode: "normal",
    [Symbol.asyncDispose]: async () => {
      socket.close();
      await once(socket, "close");
    },
  };
  socket.on("message", (message, sender) => {
    const { id = 0, questions = [] } = decode(message);
    const [question] = questions;
    if (question === undefined) return;
    question.name = question.name.toLowerCase();
    server.questions.push(`${question.type} ${question.name}`);
    if (server.mode === "silent" || server.silentFor.has(`${question.type} ${question.name}`)) return;
    const answers = server.mode === "normal" ? answersTo(question, server.records) : [];
    const known = [...server.records.keys()].some((key) => key.endsWith(` ${question.name}`));
    const rcode = server.mode === "normal" && answers.length === 0 && !known ? NXDOMAIN : RCODES[server.mode];
    socket.send(encode({ type: "response", id, flags: AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | rcode, questions, answers }), sender.port, sender.address);
  });
  return server;
}

/** The records, and those behind a CNAME, as a resolver gives them. */
function answersTo({ name, type }: Question, records: ReadonlyMap<string, string[]>, hops = 0): Answer[] {
  const parent = name.slice(name.indexOf(".") + 1);
  const exists = [...records.keys()].some((key) => key.endsWith(` ${name}`));
  const [cname] = records.get(`CNAME ${name}`) ?? (exists ? [] : (records.get(`CNAME *.${parent}`) ?? []));
  if (cname !== undefined) {
    const answer: Answer = { name, type: "CNAME", ttl: 1, data: cname };
    return type === "CNAME" || hops > 8 ? [answer] : [answer, ...answersTo({ name: cname, type }, records, hops + 1)];
  }
  return (records.get(`${type} ${name}`) ?? []).map((data) => ({ name, type, ttl: 1, data }) as Answer);
}
