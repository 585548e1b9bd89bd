// A stand-in for IB Gateway: speaks enough of the Interactive Brokers API for a client such as ib_async to connect and look around.
// It knows no market and no orders. Run it with `node stand-in.ts`; it needs nothing but Node.js.
//
//   HOST          address to listen on                      127.0.0.1
//   IB_LIVE_PORT  port of the live account                  4001
//   IB_PAPER_PORT port of the paper account                 4002
//   CONTROL_PORT  port of the control interface, loopback   4900
//   TICK_MS       time between two unasked messages         5000
//
// The control interface makes it ill: `curl -X POST 127.0.0.1:4900/hang`, and `/normal` makes it well again.
//   normal   as it should be
//   hang     connects, never answers: a dialog is open
//   silent   answers the handshake, but the API never gets ready: not logged in
//   lost     the API gets ready, but has no connection to Interactive Brokers
//   close    closes each connection at once: shutting down
//   refuse   does not listen: not started
//   other    another product behind the port
//   drop     (no mode) cuts all connections, as the nightly restart does
// `curl 127.0.0.1:4900` tells the mode, the ports, the client ids and how many connections and bytes came.
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";

const MODES = ["normal", "hang", "silent", "lost", "close", "refuse", "other"] as const;
type Mode = (typeof MODES)[number];

/** One account on one port, as IB Gateway runs live and paper. */
type Venue = {
  readonly name: string;
  readonly account: string;
  readonly wantedPort: number;
  port: number;
  server: Server | null;
  readonly clients: Map<number, Socket>;
};

const HOST = process.env["HOST"] ?? "127.0.0.1";
const TICK_MS = port("TICK_MS", 5_000);
const MAX_SERVER_VERSION = 178;
const MAX_FRAME_BYTES = 1024 * 1024;

let mode: Mode = "normal";
let connections = 0;
let bytes = 0;
const sockets = new Set<Socket>();
const venues: Venue[] = [
  { name: "live", account: "U1234567", wantedPort: port("IB_LIVE_PORT", 4001), port: 0, server: null, clients: new Map() },
  { name: "paper", account: "DU1234567", wantedPort: port("IB_PAPER_PORT", 4002), port: 0, server: null, clients: new Map() },
];

function port(name: string, otherwise: number): number {
  return Number(process.env[name] ?? otherwise);
}

// --- the API --------------------------------------------------------------------------------------------------------

function serve(venue: Venue, socket: Socket): void {
  connections += 1;
  sockets.add(socket);
  socket.on("error", () => socket.destroy());
  socket.on("close", () => sockets.delete(socket));
  if (mode === "close") {
    socket.end();
    return;
  }
  if (mode === "other") socket.write("220 mail.example.com ESMTP\r\n");

  let held: Buffer = Buffer.alloc(0);
  let greeted = false;
  socket.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (mode === "hang" || mode === "other") return;
    held = Buffer.concat([held, chunk]);
    if (!greeted) {
      // A client begins with "API\0", then its versions in a frame: "v157..178".
      if (held.length >= 4 && held.toString("latin1", 0, 4) !== "API\0") socket.destroy();
      const versions = held.length < 8 ? null : takeFrame(4);
      if (versions === null) return;
      greeted = true;
      const wanted = Number(/\.\.(\d+)/.exec(versions)?.[1] ?? MAX_SERVER_VERSION);
      send(socket, Math.min(wanted, MAX_SERVER_VERSION), `${new Date().toISOString().slice(0, 19).replaceAll("-", "").replace("T", " ")} UTC`);
    }
    for (let frame = takeFrame(0); frame !== null; frame = takeFrame(0)) answer(venue, socket, frame.split("\0"));
  });

  /** The next message without its length, which stands at `offset`; null until all of it is there. */
  function takeFrame(offset: number): string | null {
    if (held.length < offset + 4) return null;
    const length = held.readUInt32BE(offset);
    if (length > MAX_FRAME_BYTES) socket.destroy();
    if (held.length < offset + 4 + length) return null;
    const body = held.toString("utf8", offset + 4, offset + 4 + length);
    held = held.subarray(offset + 4 + length);
    return body;
  }
}

/** A message: its length, then each field ended by a NUL. */
function send(socket: Socket, ...fields: (string | number)[]): void {
  const body = Buffer.from(fields.map((field) => `${field}\0`).join(""));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  socket.write(Buffer.concat([length, body]));
}

/** Answers a request; fields are the message id, mostly a version, then what it asks for. */
function answer({ account, clients }: Venue, socket: Socket, fields: string[]): void {
  switch (fields[0]) {
    case "71": // startApi
      startApi(clients, socket, account, Number(fields[2]));
      break;
    case "61": // positions
      send(socket, 61, 3, account, 265598, "AAPL", "STK", "", 0, "", "", "NASDAQ", "USD", "AAPL", "NMS", 100, 187.5);
      send(socket, 61, 3, account, 756733, "SPY", "STK", "", 0, "", "", "ARCA", "USD", "SPY", "SPY", 10, 512.25);
      send(socket, 62, 1);
      break;
    case "62": // account summary
      for (const [tag, value] of [
        ["NetLiquidation", "100000.00"],
        ["TotalCashValue", "75000.00"],
        ["BuyingPower", "300000.00"],
      ] as const)
        send(socket, 63, 1, fields[2] ?? 0, account, tag, value, "USD");
      send(socket, 64, 1, fields[2] ?? 0);
      break;
    case "5": // open orders
    case "16":
      send(socket, 53, 1);
      break;
    case "6": // account updates
      send(socket, 54, 1, account);
      break;
    case "7": // executions
      send(socket, 55, 1, fields[2] ?? 0);
      break;
    case "8": // next valid id
      send(socket, 9, 1, 1);
      break;
    case "49": // current time
      sendTime(socket);
      break;
    case "76": // account updates of one model
      send(socket, 74, 1, fields[2] ?? 0);
      break;
    case "99": // completed orders
      send(socket, 102);
      break;
    case "15": // bind manual orders
    case "63": // end of the account summary
    case "64": // end of positions
      break;
    default:
      sendNotice(socket, 321, `The stand-in does not know message ${Number(fields[0])}`);
  }
}

function startApi(clients: Map<number, Socket>, socket: Socket, account: string, clientId: number): void {
  if (mode === "silent") return;
  if (clients.has(clientId)) {
    sendNotice(socket, 326, "Unable to connect as the client id is already in use. Retry with a unique client id.");
    socket.end();
    return;
  }
  clients.set(clientId, socket);
  const timer = setInterval(() => sendTime(socket), TICK_MS);
  socket.on("close", () => {
    clearInterval(timer);
    if (clients.get(clientId) === socket) clients.delete(clientId);
  });
  if (mode === "lost") sendNotice(socket, 1100, "Connectivity between IB and Trader Workstation has been lost.");
  send(socket, 15, 1, account);
  send(socket, 9, 1, 1);
  sendNotice(socket, 2104, "Market data farm connection is OK:usfarm");
}

/** The last field, a rejected order's details, came with server version 166. */
function sendNotice(socket: Socket, code: number, text: string): void {
  send(socket, 4, 2, -1, code, text, "");
}

function sendTime(socket: Socket): void {
  if (socket.writable) send(socket, 49, 1, Math.floor(Date.now() / 1_000));
}

// --- listening and control --------------------------------------------------------------------------------------------

async function listen(venue: Venue): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => serve(venue, socket));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  // A port that the system chose is kept when it listens again.
  server.listen(venue.port || venue.wantedPort, HOST, resolve);
  await promise;
  venue.port = (server.address() as AddressInfo).port;
  venue.server = server;
}

function drop(): void {
  for (const socket of sockets) socket.destroy();
}

async function change(next: Mode): Promise<void> {
  mode = next;
  if (mode === "refuse") {
    for (const venue of venues) {
      venue.server?.close();
      venue.server = null;
    }
    drop();
  } else {
    for (const venue of venues) if (venue.server === null) await listen(venue);
  }
}

function status(): string {
  const ports = Object.fromEntries(venues.map((venue) => [venue.name, { port: venue.port, clients: [...venue.clients.keys()] }]));
  return `${JSON.stringify({ mode, ...ports, open: sockets.size, connections, bytes })}\n`;
}

const control = createHttpServer((request, response) => {
  obey(request, response).catch((error: unknown) => response.writeHead(500).end(`${JSON.stringify({ error: String(error) })}\n`));
});

async function obey(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const word = (request.url ?? "/").slice(1);
  const wanted = MODES.find((each) => each === word);
  if (request.method === "POST" && wanted !== undefined) await change(wanted);
  else if (request.method === "POST" && word === "drop") drop();
  else if (request.method !== "GET" || word !== "") response.statusCode = 404;
  response.setHeader("content-type", "application/json").end(response.statusCode === 404 ? `{"modes":${JSON.stringify([...MODES, "drop"])}}\n` : status());
}

for (const venue of venues) await listen(venue);
control.listen(port("CONTROL_PORT", 4900), "127.0.0.1", () => {
  const [live, paper] = venues;
  console.log(`IB Gateway stand-in: live ${HOST}:${live?.port}, paper ${HOST}:${paper?.port}, control 127.0.0.1:${(control.address() as AddressInfo).port}`);
});
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));
