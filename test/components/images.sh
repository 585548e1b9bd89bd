#!/bin/sh
# The base images of the Dockerfile: pulled where an image registry answers, otherwise made here under the same names
# from Debian packages and the Node.js of node_modules.   images.sh [--check]
set -eu

image=node:26-bookworm-slim
label=local.sidegate.node # marks an image made here, and with which Node.js
repository=$(cd "$(dirname "$0")/../.." && pwd)
cache=${SIDEGATE_COMPONENTS:-$HOME/.cache/sidegate-components}
base=$cache/debian-bookworm.tar
node=$repository/node_modules/node/bin/node
version=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$repository/node_modules/node/package.json" 2>/dev/null) || version=

# An image that was pulled is fine as it is; one made here must hold the Node.js that package-lock.json names.
is_there() {
  made_with=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$image" 2>/dev/null) || return 1
  [ -z "$made_with" ] || [ "$made_with" = "$version" ]
}

if is_there; then exit 0; fi
if [ "${1:-}" = --check ]; then exit 1; fi

# A registry that cannot be reached must cost seconds; one that answers may take its time.
if timeout 10 docker manifest inspect "$image" >/dev/null 2>&1 && timeout 600 docker pull "$image"; then exit 0; fi

echo "No image registry answers: making $image"
if [ ! -e "$base" ]; then
  mmdebstrap --variant=minbase --include=ca-certificates,libatomic1,libstdc++6 bookworm "$base.part.tar"
  mv "$base.part.tar" "$base"
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$node" "$context/node"
cp -rL "$(dirname "$(readlink -f "$(command -v npm)")")/.." "$context/npm"
# The host's certificates, so that npm inside "docker build" trusts the same registries as npm outside.
cp /etc/ssl/certs/ca-certificates.crt "$context/ca-certificates.crt"
debian=$(docker import "$base")
cat >"$context/Dockerfile" <<END
FROM $debian
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN cd /usr/local/bin && ln -s ../lib/node_modules/npm/bin/npm-cli.js npm && ln -s ../lib/node_modules/npm/bin/npx-cli.js npx
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
LABEL $label=$version
CMD ["node"]
END
DOCKER_BUILDKIT=0 docker build --tag "$image" "$context"
