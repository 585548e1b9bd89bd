// A real proxy that forwards to an application what the gateway admits at /verify: nginx with auth_request, Caddy with forward_auth, as documented.
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./free-port.ts";
import { startProxyProcess } from "./proxy-process.ts";

type Args = { readonly gatewayPort: number; readonly applicationPort: number };

export type ForwardAuthProxy = AsyncDisposable & { readonly port: number };

/** On 127.0.0.1, plain; says that its clients use https. The paths of logins go to the gateway. */
export async function startForwardAuthProxy(kind: "nginx" | "caddy", args: Args): Promise<ForwardAuthProxy> {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-forward-auth-"));
  const port = await freePort();
  const file = join(dir, "proxy.conf");
  await writeFile(file, CONFIGS[kind](dir, port, args));
  return { port, ...(await startProxyProcess(kind, { dir, file, ports: [port] })) };
}

const NAMES = ["User", "User-Source", "User-Node", "Scopes", "Email", "Groups"];

const CONFIGS: Record<"nginx" | "caddy", (dir: string, port: number, args: Args) => string> = {
  // Its clients speak plain HTTP here; the public scheme stands in place of $scheme.
  nginx: (dir, port, { gatewayPort, applicationPort }) => {
    const variable = (name: string): string => name.toLowerCase().replace("-", "_");
    return `${process.getuid?.() === 0 ? "user root;\n" : ""}worker_processes 1;
pid ${dir}/nginx.pid;
error_log stderr error;
events { worker_connections 256; }
http {
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${dir}/temp-${kind};`).join(" ")} access_log off;
  server {
    listen 127.0.0.1:${port};
    location / {
      auth_request /verify;
      auth_request_set $login $upstream_http_location;
      error_page 401 = @login;
      ${NAMES.map((name) => `auth_request_set $${variable(name)} $upstream_http_x_forwarded_${variable(name)};\n      proxy_set_header X-Forwarded-${name} $${variable(name)};`).join("\n      ")}
      auth_request_set $cookie $upstream_http_cookie;
      proxy_set_header Cookie $cookie;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_pass http://127.0.0.1:${applicationPort};
    }
    location = /verify {
      internal;
      proxy_pass http://127.0.0.1:${gatewayPort};
      proxy_pass_request_body off;
      proxy_http_version 1.1;
      proxy_set_header Content-Length "";
      proxy_set_header X-Original-URL https://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Method "";
      proxy_set_header X-Forwarded-Uri "";
    }
    location @login {
      if ($login) { return 302 $login; }
      return 401;
    }
    location /.sidegate/ {
      proxy_pass http://127.0.0.1:${gatewayPort};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
    }
  }
}
`;
  },
  caddy: (_dir, port, { gatewayPort, applicationPort }) => `{
  admin off
  auto_https off
}
http://:${port} {
  bind 127.0.0.1
  handle /.sidegate/* {
    reverse_proxy 127.0.0.1:${gatewayPort} {
      header_up X-Forwarded-Proto https
    }
  }
  # 'route' keeps the order: Caddy would delete the headers after they were copied.
  route {
    ${NAMES.map((name) => `request_header -X-Forwarded-${name}`).join("\n    ")}
    forward_auth 127.0.0.1:${gatewayPort} {
      uri /verify
      header_up X-Forwarded-Proto https
      header_up -X-Original-URL
      header_up -X-Original-Method
      copy_headers Cookie ${NAMES.map((name) => `X-Forwarded-${name}`).join(" ")}
    }
    reverse_proxy 127.0.0.1:${applicationPort}
  }
}
`,
};
