# Sidegate as an image: Node.js, the libraries it is linked with, tailscaled, and the sources, which Node.js runs as they are.
#   docker build --tag sidegate .
# Plain instructions only, so that the classic builder and BuildKit both take it; nothing here names an architecture.
ARG NODE_IMAGE=node:26-bookworm-slim
ARG TAILSCALE_IMAGE=tailscale/tailscale:v1.102.5

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# No dependency needs to run anything when it is installed, so none may.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.md' \) -delete

FROM ${NODE_IMAGE} AS app
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY schema schema
COPY examples examples
COPY src src
# Types are stripped and code is compiled once, here: a health check, every ten seconds, then takes 85 ms and not 200. The
# cache is valid for one Node.js, architecture and user; where it is not, it is ignored.
RUN mkdir /var/cache/sidegate && chown 65532:65532 /var/cache/sidegate
USER 65532:65532
ENV NODE_COMPILE_CACHE=/var/cache/sidegate
RUN node --input-type=module --eval "import { globSync } from 'node:fs'; for (const file of globSync('/app/src/**/*.ts', { exclude: ['**/main.ts'] })) await import(file)" \
 && node src/main.ts --help > /dev/null \
 && chmod -R a+rX /var/cache/sidegate

FROM ${NODE_IMAGE} AS root
# The command "sidegate" is for "docker exec <container> sidegate status".
RUN mkdir -p /root-fs/etc/sidegate /root-fs/tmp /root-fs/var/lib /state/sidegate \
 && chmod 1777 /root-fs/tmp && chmod 700 /state/sidegate \
 && echo 'sidegate:x:65532:65532:sidegate:/var/lib/sidegate:/sbin/nologin' > /root-fs/etc/passwd \
 && echo 'sidegate:x:65532:' > /root-fs/etc/group \
 && mkdir -p /root-fs/usr/local/bin \
 && printf '#!/usr/local/bin/node\nimport "/app/src/main.ts";\n' > /root-fs/usr/local/bin/sidegate \
 && chmod 755 /root-fs/usr/local/bin/sidegate \
 && cp --parents --dereference /usr/local/bin/node $(ldd /usr/local/bin/node | grep -o '/[^ ]*') /root-fs

# tailscaled for "tailnet:" listeners, and the CLI for "sidegate tailnet netcheck". Both are static.
FROM ${TAILSCALE_IMAGE} AS tailscale

# No shell and no package manager: whoever gets in finds nothing to work with, and there is nothing else to keep patched.
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Sidegate" \
      org.opencontainers.image.description="A sidecar gateway for a service that listens only on localhost" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=root /root-fs/ /
COPY --from=tailscale /usr/local/bin/tailscaled /usr/local/bin/tailscale /usr/local/bin/
# Programs in Go have no CAs of their own.
COPY --from=tailscale /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=root --chown=65532:65532 /state /var/lib
COPY --from=app --chown=0:0 /var/cache/sidegate /var/cache/sidegate
COPY --from=app --chown=0:0 /app /app
WORKDIR /app

ENV NODE_ENV=production \
    NODE_COMPILE_CACHE=/var/cache/sidegate \
    PATH=/usr/local/bin \
    SIDEGATE_CONFIG=/etc/sidegate/sidegate.yaml

# Where the starter file of "sidegate init mcp" keeps its local CA: beside itself it could not, as /etc/sidegate is mounted read-only.
ENV SIDEGATE_STATE_DIR=/var/lib/sidegate
# So that --read-only needs no further flag. A new volume, anonymous or named, takes over the directory's owner and mode (65532, 700).
VOLUME /var/lib/sidegate

# Not root. Docker sets net.ipv4.ip_unprivileged_port_start=0 in a container's own network, so ":443" works all the same;
# with network_mode: host that setting is the host's.
USER 65532:65532

# Node.js is process 1 and handles SIGTERM (drain, then stop) itself.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["node", "/app/src/main.ts", "health"]
ENTRYPOINT ["node", "/app/src/main.ts"]
CMD ["run"]
