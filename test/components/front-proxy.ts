// A real proxy before the gateway, as people set it up: nginx, HAProxy or Caddy, with plain HTTP and TLS towards its clients.
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { certificate } from "./http-gateway.ts";
import { freePort } from "./free-port.ts";
import { startProxyProcess } from "./proxy-process.ts";
import { findProgram } from "./require.ts";

export const FRONT_PROXIES = ["nginx", "haproxy", "caddy"] as const;
export type FrontProxyKind = (typeof FRONT_PROXIES)[number];

export type FrontProxyOptions = {
  /** `127.0.0.1:80`, `[::1]:80` or `unix:/path`. */
  readonly to: string;
  /** File with the CA of the gateway's certificate for localhost: TLS is spoken to it. */
  readonly caFile?: string;
  /** Another proxy stands before this one, and its word for the scheme and the host is passed on. */
  readonly inner?: boolean;
  /** It says nothing of its clients, and is as its makers deliver it: nginx speaks HTTP/1.0 then, with a Host of its own. */
  readonly silent?: boolean;
};

/** On 127.0.0.1, with `certificate()`. */
export type FrontProxy = AsyncDisposable & { readonly httpPort: number; readonly httpsPort: number };

type Ports = { readonly httpPort: number; readonly httpsPort: number };

/** For `skipWithout`. */
export function missingProxy(...kinds: FrontProxyKind[]): string | null {
  const missing = kinds.filter((kind) => findProgram(kind) === null);
  return missing.length === 0 ? null : `${missing.join(" and ")} is not there`;
}

export async function startFrontProxy(kind: FrontProxyKind, options: FrontProxyOptions): Promise<FrontProxy> {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-front-"));
  const ports = { httpPort: await freePort(), httpsPort: await freePort() };
  const { cert, key } = certificate();
  const file = join(dir, "proxy.conf");
  for (const [name, text] of Object.entries({
    "tls.crt": cert,
    "tls.key": key,
    "tls.pem": `${cert}\n${key}`,
    "proxy.conf": CONFIGS[kind](dir, ports, options),
  }))
    await writeFile(join(dir, name), text);
  return { ...ports, ...(await startProxyProcess(kind, { dir, file, ports: Object.values(ports) })) };
}

const CONFIGS: Record<FrontProxyKind, (dir: string, ports: Ports, options: FrontProxyOptions) => string> = {
  nginx: (dir, { httpPort, httpsPort }, { to, caFile, inner, silent }) => {
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${dir}/temp-${kind};`).join(" ");
    const [proto, host] = inner === true ? ["$http_x_forwarded_proto", "$http_x_forwarded_host"] : ["$scheme", "$http_host"];
    const words = `proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto ${proto};
      proxy_set_header X-Forwarded-Host ${host};`;
    const tls = caFile === undefined ? "" : `proxy_ssl_verify on; proxy_ssl_trusted_certificate ${caFile}; proxy_ssl_name localhost; proxy_ssl_server_name on;`;
    return `${process.getuid?.() === 0 ? "user root;\n" : ""}worker_processes 1;
pid ${dir}/nginx.pid;
error_log stderr error;
events { worker_connections 256; }
http {
  ${temporary} access_log off;
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  server {
    listen 127.0.0.1:${httpPort};
    listen 127.0.0.1:${httpsPort} ssl;
    ssl_certificate ${dir}/tls.crt;
    ssl_certificate_key ${dir}/tls.key;
    location / {
      proxy_pass ${caFile === undefined ? "http" : "https"}://${to.startsWith("unix:") ? `${to}:` : to};
      ${tls}
      ${silent === true ? "" : words}
    }
  }
}
`;
  },
  haproxy: (dir, { httpPort, httpsPort }, { to, caFile, inner, silent }) => {
    const words = [
      "  option forwardfor",
      ...(inner === true
        ? []
        : ["  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]", "  http-request set-header X-Forwarded-Host %[req.hdr(host)]"]),
    ];
    return `global
  nbthread 1
  maxconn 256
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
  timeout tunnel 1m
frontend front
  bind 127.0.0.1:${httpPort}
  bind 127.0.0.1:${httpsPort} ssl crt ${dir}/tls.pem alpn h2,http/1.1
${silent === true ? "" : words.join("\n")}
  default_backend gateway
backend gateway
  server gateway ${to.replace(/^unix:/, "unix@")}${caFile === undefined ? "" : ` ssl verify required ca-file ${caFile} verifyhost localhost sni str(localhost)`}
`;
  },
  caddy: (dir, { httpPort, httpsPort }, { to, caFile, inner, silent }) => {
    const lines = [
      ...(inner === true ? ["trusted_proxies 127.0.0.0/8"] : []),
      ...(silent === true ? ["header_up -X-Forwarded-For", "header_up -X-Forwarded-Proto", "header_up -X-Forwarded-Host"] : []),
      // Newer ones send the upstream's own host over https.
      ...(caFile === undefined ? [] : ["header_up Host {host}"]),
      ...(caFile === undefined ? [] : [`transport http {\n      tls_trusted_ca_certs ${caFile}\n      tls_server_name localhost\n    }`]),
    ];
    const site = `  reverse_proxy ${caFile === undefined ? "" : "https://"}${to.startsWith("unix:") ? `unix/${to.slice(5)}` : to} {
    flush_interval -1
    ${lines.join("\n    ")}
  }`;
    return `{
  admin off
  auto_https off
}
http://:${httpPort} {
  bind 127.0.0.1
${site}
}
https://:${httpsPort} {
  bind 127.0.0.1
  tls ${dir}/tls.crt ${dir}/tls.key
${site}
}
`;
  },
};
