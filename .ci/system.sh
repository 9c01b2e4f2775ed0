# What must come from the operating system: Python with venv, git, ssh-keygen. Sourced by .ci/setup.

# Root rights without asking: as root already, or through a sudo that needs no password.
may_be_root() { [[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null; }
as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n -- "$@"; fi; }

# apt_install NAME PACKAGE… : installs, or tells which commands would.
apt_install() {
  local name=$1
  shift
  command -v apt-get >/dev/null ||
    stop "$name" "missing, and this is no Debian or Ubuntu; install the equivalents of:" "$*"
  may_be_root ||
    stop "$name" "missing, and installing needs root. Run:" \
      "sudo apt-get update && sudo apt-get install -y --no-install-recommends $*" \
      "and then again what you ran"
  long "$name" "installing $*" as_root sh -c '
    apt-get update -q &&
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"' sh "$@"
}

is_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The first interpreter that is new enough; 3.11 first, because it is what CI runs.
find_python() {
  local candidate
  for candidate in ${INTERLOCK_PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if is_python "$candidate"; then command -v "$candidate" && return; fi
  done
  return 1
}

setup_packages() {
  local missing=()
  command -v git >/dev/null || missing+=(git)
  command -v ssh-keygen >/dev/null || missing+=(openssh-client)
  command -v make >/dev/null || missing+=(make)
  if ! PYTHON=$(find_python); then
    missing+=(python3 python3-venv)
  elif ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=("python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
  fi
  ((${#missing[@]} == 0)) || apt_install packages "${missing[@]}"
  PYTHON=$(find_python) ||
    stop python "Interlock needs Python 3.11 or newer; this system's packages have an older one." \
      "Install one and name it:  INTERLOCK_PYTHON=/path/to/python3.11 make setup"
  done_line python "$("$PYTHON" --version | cut -d' ' -f2) at $PYTHON"
}
