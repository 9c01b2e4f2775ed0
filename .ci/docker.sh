# The Docker engine and the sandbox image. Sourced by .ci/setup.

engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

# Started through the init system where there is one, else detached from this shell.
start_engine() {
  local pid='' try
  if [[ -d /run/systemd/system ]]; then
    as_root systemctl start docker
  else
    # shellcheck disable=SC2016
    as_root setsid sh -c 'PATH=$PATH:/usr/sbin:/sbin
      dockerd >>"$1/dockerd.log" 2>&1 </dev/null & echo $! >"$1/dockerd.pid"' sh "$PWD/.cache"
    pid=$(<.cache/dockerd.pid)
  fi
  # At most a minute: a first start makes its storage and its iptables chains.
  for ((try = 0; try < 200; try++)); do
    if as_root docker info >/dev/null 2>&1; then return; fi
    if [[ -n $pid ]] && ! as_root kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.3
  done
  [[ -z $pid ]] || tail -n 3 .cache/dockerd.log
  echo "the engine does not start here; inside a container without rights of its own, run it on the"
  echo "host and mount its socket: -v /var/run/docker.sock:/var/run/docker.sock"
  return 1
}

setup_docker() {
  local version
  if ! version=$(engine_version); then
    if [[ $(uname -s) != Linux ]]; then
      stop docker "no engine answers. Start Docker Desktop (or colima start), then run this again."
    fi
    if [[ -S /var/run/docker.sock && ! -w /var/run/docker.sock ]]; then
      stop docker "an engine is running, but $(id -un) may not use it. Run:" \
        "sudo usermod -aG docker $(id -un) && newgrp docker"
    fi
    if ! command -v dockerd >/dev/null && [[ ! -x /usr/sbin/dockerd ]]; then
      apt_install docker docker.io iptables
    fi
    # From Debian 13 on the client is a package of its own.
    command -v docker >/dev/null || apt_install docker docker-cli
    if ! version=$(engine_version); then
      may_be_root || stop docker "no engine is running, and starting it needs root. Run:" \
        "sudo systemctl start docker && sudo usermod -aG docker $(id -un) && newgrp docker"
      long docker "starting the engine" start_engine
      version=$(engine_version) || stop docker "the engine runs, but $(id -un) may not use it. Run:" \
        "sudo usermod -aG docker $(id -un) && newgrp docker"
    fi
  fi
  done_line docker "engine $version"
}

setup_image() {
  local build=runner/sandbox/image/build.sh id tag
  tag=$(sed -n 's/^TAG=//p' runner/sandbox/image/image.env)
  # Asked first, so that a second set-up shows one line and not a step.
  if ! "$build" --check >/dev/null 2>&1; then long image "making $tag" "$build"; fi
  id=$("$build" --check) || stop image "$tag is not there after building it; see ${LOG#"$PWD"/}"
  done_line image "$tag ${id:0:19}"
}
