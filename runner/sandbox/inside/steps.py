"""Carries out requests: files at once, steps beside one another until each ends.

Frames, both ways: two unsigned 32-bit big-endian lengths, a JSON object, a payload. It speaks
only when spoken to (a stream that is still being attached loses nothing). Each step leaves
`<step>.started` (by whom) and `<step>` (its answer) in /run/steps, for a runner that comes later.
"""
# ruff: noqa: PTH104, PTH108, PTH110, PTH116, PTH123, PTH208, SIM105, UP031
# (pathlib and contextlib cost more than the rest of the start; old Pythons are served.)

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import time

from runner.sandbox.inside.facts import observe, text
from runner.sandbox.inside.files import Refused, collect, fill, list_files, read_file, write_file

TYPE_CHECKING = False  # importing typing would cost 5 ms at every start
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

STEPS = "/run/steps"
HALF = 32 * 1024  # of each output stream the first and last 32 KiB are kept
KEEP = 32  # results of finished steps that stay on disk for recovery
CHUNK = 1 << 16


class Kept:
    """The first and last bytes of an output stream of any length."""

    def __init__(self) -> None:
        self.head, self.tail, self.total = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = HALF - len(self.head)
        self.head += data[:room]
        self.tail += data[max(room, 0) :]
        if len(self.tail) > 2 * HALF:
            del self.tail[:-HALF]

    def kept(self) -> tuple[bytes, bool]:
        cut = self.total - len(self.head) - min(len(self.tail), HALF)
        note = b"\n[... %d bytes left out ...]\n" % cut if cut else b""
        return bytes(self.head) + note + bytes(self.tail[-HALF:]), cut > 0


class Step:
    def __init__(self, request: Request, pid: int, pipes: tuple[int, ...]) -> None:
        self.request, self.pid = request, pid
        self.pipes = {pipes[0]: Kept(), pipes[1]: Kept()}
        self.order = pipes
        self.started = time.monotonic()
        self.deadline = self.started + request["timeout_ms"] / 1000
        self.timed_out = False

    def drain(self, pipe: int, most: int) -> bool:
        """Take what is there; returns False at the end of the stream."""
        while most > 0:
            try:
                data = os.read(pipe, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.pipes[pipe].add(data)
            most -= len(data)
        return True


def spawn(request: Request, stdin: bytes, outputs: tuple[int, ...] = ()) -> int:
    """Fork and exec; the child leads its own session, so that all of it can be killed at once."""
    source = os.memfd_create("stdin") if stdin else os.open("/dev/null", os.O_RDONLY)
    if stdin:
        view = memoryview(stdin)
        while view:
            view = view[os.write(source, view) :]
        os.lseek(source, 0, os.SEEK_SET)
    try:
        pid = os.fork()
        if pid:
            return pid
    finally:
        if os.getpid() == SELF:
            os.close(source)
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            # The kernel's choice when memory runs out must never be process 1.
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")
        except OSError:
            pass
        os.dup2(source, 0)
        if outputs:
            os.dup2(outputs[0], 1)
            os.dup2(outputs[1], 2)
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606
    except BaseException as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        os.write(2, ("interlock: cannot start %r: %s\n" % (request["argv"][0], error)).encode())
        os._exit(code)


class Server:
    def __init__(self) -> None:
        self.poll = select.poll()
        self.inbox = bytearray()
        self.steps: dict[int, Step] = {}  # by process
        self.pipes: dict[int, Step] = {}  # by pipe
        self.waiting: list[Request] = []  # adopt requests whose step runs elsewhere
        self.open = True
        self.once: int | None = None  # pid of the command whose end is the container's end
        wake, woken = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        self.wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken)
        self.poll.register(0, select.POLLIN)
        self.poll.register(wake, select.POLLIN)

    # -- the wire

    def send(self, request: Request, payload: bytes = b"", **fields: Any) -> None:
        fields["id"] = request["id"]
        self.write(frame(fields, payload))

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1, view) :]
        except OSError:
            pass  # nobody listens any more; the result stays on disk

    def receive(self) -> None:
        data = os.read(0, 1 << 20)
        if not data:
            self.poll.unregister(0)
            self.open = False
            return
        self.inbox += data
        while len(self.inbox) >= 8:
            head, body = struct.unpack(">II", self.inbox[:8])
            if len(self.inbox) < 8 + head + body:
                return
            request = json.loads(self.inbox[8 : 8 + head].decode())
            payload = bytes(self.inbox[8 + head : 8 + head + body])
            del self.inbox[: 8 + head + body]
            try:
                getattr(self, "do_" + request["op"])(request, payload)
            except Refused as error:
                self.send(request, error=str(error))
            except OSError as error:
                self.send(request, error="%s: %s" % (error.strerror, request.get("path", "")))

    # -- requests

    def do_hello(self, request: Request, payload: bytes) -> None:
        if request["own"]:
            put("owner", str(os.getpid()).encode())
        self.send(
            request,
            seen=observe(request["sockets"]),
            filled=os.path.exists(STEPS + "/filled"),
        )

    def do_fill(self, request: Request, payload: bytes) -> None:
        fill(payload)
        self.send(request)

    def do_mark(self, request: Request, payload: bytes) -> None:
        put("filled", b"")
        self.send(request)

    def do_read(self, request: Request, payload: bytes) -> None:
        self.send(request, read_file(request["path"], request["limit"]))

    def do_write(self, request: Request, payload: bytes) -> None:
        self.mine()
        write_file(request["path"], payload)
        self.send(request)

    def do_list(self, request: Request, payload: bytes) -> None:
        rows, cut = list_files(request["path"], request["limit"])
        self.send(request, json.dumps(rows).encode(), cut=cut)

    def do_collect(self, request: Request, payload: bytes) -> None:
        skipped, archive = collect(request["limits"])
        self.send(request, archive, skipped=skipped)

    def do_once(self, request: Request, payload: bytes) -> None:
        self.once = spawn(request, b"")

    def do_exec(self, request: Request, payload: bytes) -> None:
        self.mine()
        name = request["step"]
        if os.path.exists(STEPS + "/" + name + ".started"):
            raise Refused("this step was started before; ask for its result instead")
        put(name + ".started", str(os.getpid()).encode())
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        reads, writes = (out, err), (out_end, err_end)
        try:
            pid = spawn(request, payload, writes)
        except OSError as error:
            for pipe in reads:
                os.close(pipe)
            note = ("interlock: cannot start a process: %s\n" % error.strerror).encode()
            self.finish(request, 126, [(b"", False), (note, False)], False, 0.0)
            return
        finally:
            for pipe in writes:
                os.close(pipe)
        step = Step(request, pid, reads)
        self.steps[pid] = step
        for pipe in reads:
            os.set_blocking(pipe, False)
            self.pipes[pipe] = step
            self.poll.register(pipe, select.POLLIN)

    def do_adopt(self, request: Request, payload: bytes) -> None:
        self.waiting.append(request)

    def mine(self) -> None:
        owner = text(STEPS + "/owner")
        if owner is not None and owner != str(os.getpid()):
            raise Refused("fenced: another runner has taken this sandbox over")

    # -- life of a step

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if pid == self.once:
                os._exit(code)
            step = self.steps.pop(pid, None)
            if step is None:
                continue  # an orphan that process 1 inherited
            kill_group(pid)
            for pipe in step.order:
                if pipe in self.pipes:
                    step.drain(pipe, 1 << 20)
                    self.close(pipe)
            outputs = [step.pipes[pipe].kept() for pipe in step.order]
            spent = time.monotonic() - step.started
            self.finish(step.request, code, outputs, step.timed_out, spent)

    def finish(
        self,
        request: Request,
        code: int,
        outputs: list[tuple[bytes, bool]],
        timed_out: bool,
        spent: float,
    ) -> None:
        (out, out_cut), (err, err_cut) = outputs
        fields = {
            "id": request["id"],
            "exit": code,
            "timed_out": timed_out,
            "cut": out_cut or err_cut,
            "out": len(out),
            "ms": int(spent * 1000),
        }
        data = frame(fields, out + err)
        try:
            put(request["step"], data)
            prune()
        except OSError:
            pass  # the folder is full: only a recovery would miss it, and says so
        self.write(data)

    def close(self, pipe: int) -> None:
        self.poll.unregister(pipe)
        del self.pipes[pipe]
        os.close(pipe)

    def overdue(self) -> None:
        now = time.monotonic()
        for step in self.steps.values():
            if not step.timed_out and now >= step.deadline:
                step.timed_out = True
                kill_group(step.pid)

    def adopt(self) -> None:
        still = []
        for request in self.waiting:
            path = STEPS + "/" + request["step"]
            # In this order: a step that ends between two looks must not seem lost.
            owner = text(path + ".started")
            alive = owner is not None and os.path.exists("/proc/" + owner)
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError:
                data = None
            if data is not None:
                head, _ = struct.unpack(">II", data[:8])
                fields = json.loads(data[8 : 8 + head].decode())
                fields.update(id=request["id"], found=True)
                self.write(frame(fields, data[8 + head :]))
            elif owner is None:
                self.send(request, found=False)
            elif alive:
                still.append(request)
            else:
                self.send(request, error="lost: the step was started, its result is gone")
        self.waiting = still

    def serve(self) -> None:
        while self.open or self.steps or os.getpid() == 1:
            timeout = None
            if self.waiting:
                timeout = 50
            deadlines = [s.deadline for s in self.steps.values() if not s.timed_out]
            if deadlines:
                left = max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1)
                timeout = left if timeout is None else min(left, timeout)
            for fd, _ in self.poll.poll(timeout):
                if fd == 0:
                    self.receive()
                elif fd == self.wake:
                    os.read(fd, 4096)
                elif fd in self.pipes and not self.pipes[fd].drain(fd, 1 << 20):
                    self.close(fd)
            self.reap()
            self.overdue()
            self.adopt()


def kill_group(pid: int) -> None:
    """Nothing of a step outlives it: what it left in the background would act on its own time."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def frame(fields: dict[str, Any], payload: bytes) -> bytes:
    head = json.dumps(fields).encode()
    return struct.pack(">II", len(head), len(payload)) + head + payload


def put(name: str, data: bytes) -> None:
    """Write a file of the step folder so that it is there whole or not at all."""
    temporary = "%s/.%d" % (STEPS, os.getpid())
    with open(temporary, "wb") as file:
        file.write(data)
    os.rename(temporary, STEPS + "/" + name)


def prune() -> None:
    done = [name for name in os.listdir(STEPS) if os.path.exists(STEPS + "/" + name + ".started")]
    if len(done) > 2 * KEEP:
        done.sort(key=lambda name: os.stat(STEPS + "/" + name).st_mtime)
        for name in done[:-KEEP]:
            # The mark of the start stays: a step is never started twice.
            os.unlink(STEPS + "/" + name)
            put(name + ".started", b"0")  # no such process: who asks later is told it is lost


SELF = os.getpid()


def main() -> None:
    os.umask(0o022)
    sys.stdout = sys.stderr  # the stream carries frames only
    Server().serve()
