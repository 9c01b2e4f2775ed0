#!/usr/bin/env bash
# Makes the default sandbox image: a small Python root in which agents' tools and graders run.
#
#   build.sh            use what is there, else pull by digest, else build with debootstrap
#   build.sh --local    do not ask a registry
#   build.sh --check    only look: exit 1 when the image is missing or made from another recipe
#
# Progress goes to stderr; the last line on stdout is the image's id. Running it again costs one
# `docker image inspect`. Exit 3: the machine lacks something, and the message says what to do.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=runner/sandbox/image/image.env
. "$here/image.env"
LABEL=io.interlock.sandbox.recipe
REGISTRY_WAIT=${INTERLOCK_REGISTRY_WAIT:-5} # seconds until a registry must have answered

say() { printf '%s\n' "$*" >&2; }
lack() { say "$@"; exit 3; }

# The recipe's identity: what image.env says and what `build` does, comments aside. An image made
# from another recipe is made again.
recipe() { { grep -v '^#' "$here/image.env"; declare -f build; } | sha256sum | cut -c1-16; }

image_id() { docker image inspect --format '{{.Id}}' "$TAG" 2>/dev/null; }

# Pulled images prove themselves by the registry's digest, local ones by the recipe's label.
is_current() {
  local seen
  seen=$(docker image inspect --format \
    "{{range .RepoDigests}}{{.}} {{end}}|{{with .Config.Labels}}{{index . \"$LABEL\"}}{{end}}" \
    "$TAG" 2>/dev/null) || return 1
  [[ $seen == *"@${BASE##*@}"* || ${seen##*|} == "$(recipe)" ]]
}

# A registry that cannot be reached must not cost minutes: docker itself has no time limit for the
# first answer, so the first line of output is what is waited for.
pull() {
  local line pid reply
  exec {reply}< <(exec docker pull "$BASE" 2>&1)
  pid=$!
  if ! IFS= read -r -t "$REGISTRY_WAIT" -u "$reply" line || [[ $line == *[Ee]rror* ]]; then
    kill "$pid" 2>/dev/null || true
    exec {reply}<&-
    line=${line##*: }
    say "no image registry answered (${line:-nothing within $REGISTRY_WAIT s})"
    return 1
  fi
  say "pulling ${BASE%%@*}"
  cat <&"$reply" >&2
  exec {reply}<&-
  wait "$pid" && docker tag "$BASE" "$TAG"
}

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n -- "$@"; fi
}

# The mirror this machine's apt is set to, so that a local build needs no other network than apt.
# shellcheck disable=SC2016
apt_mirror() {
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null |
    awk -v suite="$SUITE" '$2 == suite && $3 == "main" && $1 ~ /^(http|file)/ {print $1; exit}'
}

apt_proxy() {
  local proxy=''
  eval "$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null)"
  printf '%s' "$proxy"
}

build() {
  local root proxy
  command -v apt-get >/dev/null || lack "The sandbox image can be built only on Debian or Ubuntu." \
    "Make an image registry reachable, or load an image:  docker load < image.tar"
  as_root true 2>/dev/null || lack "Building the sandbox image needs root once. Run:" \
    "  sudo $here/build.sh --local"
  if ! command -v debootstrap >/dev/null && [[ ! -x /usr/sbin/debootstrap ]]; then
    say "installing debootstrap"
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends debootstrap >&2
  fi

  # /var/tmp: /tmp is often mounted nodev, where device nodes cannot be made.
  root=$(as_root mktemp -d /var/tmp/interlock-rootfs.XXXXXX)
  # A killed debootstrap leaves proc and sys mounted inside: never delete across a mount.
  # shellcheck disable=SC2064
  trap "as_root umount -l '$root/proc' '$root/sys' 2>/dev/null || true
        as_root rm -rf --one-file-system '$root'" EXIT
  proxy=${http_proxy:-$(apt_proxy)}
  say "building $TAG from Debian $SUITE (about 40 s)"
  # shellcheck disable=SC2046
  as_root env ${proxy:+http_proxy="$proxy"} PATH="$PATH:/usr/sbin:/sbin" \
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" $(apt_mirror) >&2

  # Mount points of the workspace and of the gateway's socket: the root is read-only at run time.
  as_root mkdir -p "$root/workspace" "$root/run/interlock"
  say "importing $TAG"
  # Left out: package archives, and what debootstrap copies from this host.
  as_root tar -C "$root" --one-file-system --numeric-owner --sort=name \
    --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' \
    --exclude='./etc/apt/sources.list' --exclude='./etc/resolv.conf' --exclude='./etc/hostname' \
    --exclude='./proc/*' --exclude='./sys/*' -c . |
    docker import \
      --change "LABEL $LABEL=$(recipe)" \
      --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8' \
      --change 'WORKDIR /workspace' \
      --change 'CMD ["python3"]' \
      - "$TAG" >&2
}

# An image that cannot run the least of what runs need must not be found out in a run.
try_out() {
  docker run --rm --network none --read-only --cap-drop ALL --user 65534:65534 \
    --security-opt no-new-privileges --tmpfs /workspace --tmpfs /run/interlock \
    "$TAG" python3 -c 'import unittest, json, subprocess, socket' >&2
}

docker info >/dev/null 2>&1 || lack "No Docker engine answers. Run:  make setup"
if ! is_current; then
  [[ ${1:-} != --check ]] || exit 1
  { [[ ${1:-} != --local ]] && pull; } || build
  if ! try_out; then
    docker image rm "$TAG" >&2 || true # or the next set-up would take it for good
    lack "The image $TAG was made but does not run; the message above says why."
  fi
fi
image_id
