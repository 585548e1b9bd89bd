// Answers to the challenges of a CA in this process: what the listeners of the gateway show, without the gateway.
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo, Server } from "node:net";
import { createSecureContext, createServer as createTlsServer } from "node:tls";
import type { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";

export type AcmeAnswers = AsyncDisposable & {
  /** Tokens and server names that were asked for, in turn. */
  readonly asked: readonly string[];
  readonly httpPort: number;
  readonly tlsPort: number;
};

/** Answers http-01 and tls-alpn-01 on two ports of 127.0.0.1, which Pebble has to be told. */
export async function startAcmeAnswers(challenges: AcmeChallenges): Promise<AcmeAnswers> {
  const asked: string[] = [];
  const http = createHttpServer((request, response) => {
    const token = (request.url ?? "").replace("/.well-known/acme-challenge/", "");
    asked.push(token);
    const answer = challenges.http(token);
    response.writeHead(answer === null ? 404 : 200).end(answer ?? "nothing here");
  });
  const tls = createTlsServer({
    ALPNProtocols: ["acme-tls/1"],
    SNICallback: (name, callback) => {
      asked.push(name);
      const shown = challenges.tlsAlpn(name);
      if (shown === null) callback(new Error(`No challenge for ${name}`));
      else callback(null, createSecureContext(shown));
    },
  });
  tls.on("tlsClientError", () => {});
  const listen = async (server: Server): Promise<number> => {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return (server.address() as AddressInfo).port;
  };
  const [httpPort, tlsPort] = await Promise.all([listen(http), listen(tls)]);
  return {
    asked,
    httpPort,
    tlsPort,
    [Symbol.asyncDispose]: async () => {
      http.closeAllConnections();
      await Promise.all([http, tls].map(async (server) => await new Promise((resolve) => server.close(resolve))));
    },
  };
}
