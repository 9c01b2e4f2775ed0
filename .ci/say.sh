# How set-up talks: one aligned line per step, everything else in a log. Sourced, not run.

LOG=${LOG:?the caller names the log}
mkdir -p "$(dirname "$LOG")"

# done_line NAME TEXT
done_line() { printf '  %-12s %s\n' "$1" "$2"; }

# stop NAME TEXT… : what is missing and what to do about it, a line each; exit 3 like the command.
stop() {
  printf '  %-12s %s\n' "$1" "$2" >&2
  shift 2
  local line
  for line in "$@"; do printf '  %-12s   %s\n' '' "$line" >&2; done
  exit 3
}

# long NAME TEXT COMMAND… : runs COMMAND with its output in the log and shows that time passes.
long() {
  local name=$1 text=$2 begun=$SECONDS shown=0 pid status=0 mark
  shift 2
  printf '\n== %s: %s\n' "$name" "$text" >>"$LOG"
  mark=$(wc -l <"$LOG")
  "$@" >>"$LOG" 2>&1 </dev/null &
  pid=$!
  [[ -t 1 ]] || done_line "$name" "$text …"
  while kill -0 "$pid" 2>/dev/null; do
    if [[ -t 1 ]]; then
      printf '\r\033[K  %-12s %s … %d s' "$name" "$text" "$((SECONDS - begun))"
    elif ((SECONDS - begun - shown >= 20)); then
      shown=$((SECONDS - begun))
      done_line "" "… $shown s"
    fi
    sleep 0.2
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
  wait "$pid" || status=$?
  if ((status)); then
    tail -n "+$((mark + 1))" "$LOG" | tail -n 15 | sed 's/^/      | /' >&2
    stop "$name" "$text failed (exit $status); the whole output is in ${LOG#"$PWD"/}"
  fi
  done_line "$name" "$text: $((SECONDS - begun)) s"
}
