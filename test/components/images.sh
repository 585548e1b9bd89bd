#!/bin/sh
# The base images of the Dockerfile: pulled where an image registry answers, otherwise made here under the same names
# from Debian packages, the Node.js of node_modules and the tailscaled that setup.sh built.   images.sh [--check]
set -eu

label=local.sidegate.made-from # marks an image made here, and what is in it
repository=$(cd "$(dirname "$0")/../.." && pwd)
cache=${SIDEGATE_COMPONENTS:-$HOME/.cache/sidegate-components}
base=$cache/debian-bookworm.tar
node=$repository/node_modules/node/bin/node
argument() { sed -n "s/^ARG $1=//p" "$repository/Dockerfile"; }
node_image=$(argument NODE_IMAGE)
tailscale_image=$(argument TAILSCALE_IMAGE)
node_version=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$repository/node_modules/node/package.json" 2>/dev/null) || node_version=
tailscale_version=${tailscale_image##*:}

# is_there IMAGE VERSION: one that was pulled is fine as it is; one made here must hold that version.
is_there() {
  made_from=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null) || return 1
  [ -z "$made_from" ] || [ "$made_from" = "$2" ]
}

# A registry that cannot be reached must cost seconds; one that answers may take its time.
pull() { timeout 10 docker manifest inspect "$1" >/dev/null 2>&1 && timeout 600 docker pull "$1"; }

build() { DOCKER_BUILDKIT=0 docker build --tag "$1" "$context"; }

make_node_image() {
  if [ ! -e "$base" ]; then
    mmdebstrap --variant=minbase --include=ca-certificates,libatomic1,libstdc++6 bookworm "$base.part.tar"
    mv "$base.part.tar" "$base"
  fi
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
LABEL $label=$node_version
CMD ["node"]
END
  build "$node_image"
}

make_tailscale_image() {
  cp "$cache/bin/tailscaled" "$cache/bin/tailscale" /etc/ssl/certs/ca-certificates.crt "$context"
  cat >"$context/Dockerfile" <<END
FROM scratch
COPY tailscaled tailscale /usr/local/bin/
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
LABEL $label=$tailscale_version
END
  build "$tailscale_image"
}

# have NAME IMAGE VERSION
have() {
  if is_there "$2" "$3"; then return; fi
  if [ "$mode" = check ]; then exit 1; fi
  if pull "$2"; then return; fi
  echo "No image registry answers: making $2"
  context=$(mktemp -d)
  "make_$1_image"
  rm -rf "$context"
}

mode=${1:-}
mode=${mode#--}
have node "$node_image" "$node_version"
have tailscale "$tailscale_image" "$tailscale_version"
