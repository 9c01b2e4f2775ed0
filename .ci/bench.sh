#!/usr/bin/env bash
# The gateways that `make bench-gateway` measures beside ours, each in an environment of its own
# below .cache/bench. One that cannot be installed does not stop the others: what went wrong is left
# in .cache/bench/NAME.missing, and the benchmark's table says it.
#
#   .ci/bench.sh NAME…     of nginx, litellm, portkey; idempotent, and quick the second time
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

LITELLM=1.106.12
PORTKEY=1.15.2
# The newest with which this Portkey can stream: from 1.11.1 on, its streams end in `TypeError:
# immutable` (Portkey-AI/gateway#1389).
HONO_SERVER=1.11.0

BENCH=.cache/bench
LOG=$PWD/.cache/bench.log
# shellcheck source=.ci/say.sh
. .ci/say.sh
# shellcheck source=.ci/system.sh
. .ci/system.sh

install_nginx() {
  PATH=$PATH:/usr/sbin command -v nginx >/dev/null || apt_install nginx nginx-light
}

install_litellm() {
  local stamp=$BENCH/litellm/stamp
  if [[ -f $stamp && $(<"$stamp") == "$LITELLM" ]]; then return; fi
  rm -rf "$BENCH/litellm"
  long litellm "making its environment" "$(find_python)" -m venv "$BENCH/litellm"
  long litellm "installing LiteLLM $LITELLM" "$BENCH/litellm/bin/python" -m pip \
    --disable-pip-version-check install --only-binary=:all: "litellm[proxy]==$LITELLM"
  echo "$LITELLM" >"$stamp"
}

install_portkey() {
  local stamp=$BENCH/portkey/stamp version="$PORTKEY with @hono/node-server $HONO_SERVER"
  if [[ -f $stamp && $(<"$stamp") == "$version" ]]; then return; fi
  rm -rf "$BENCH/portkey"
  command -v npm >/dev/null || apt_install portkey nodejs npm
  long portkey "installing Portkey $PORTKEY" npm install --prefix "$BENCH/portkey" \
    --no-audit --no-fund --legacy-peer-deps \
    "@portkey-ai/gateway@$PORTKEY" "@hono/node-server@$HONO_SERVER"
  echo "$version" >"$stamp"
}

mkdir -p "$BENCH"
for name in "$@"; do
  declare -F "install_$name" >/dev/null || stop bench "no such gateway: $name"
  # In a shell of its own, because a step that fails ends its shell.
  if (set -e && "install_$name"); then
    rm -f "$BENCH/$name.missing"
  else
    echo "could not be installed; see ${LOG#"$PWD"/}" >"$BENCH/$name.missing"
  fi
done
