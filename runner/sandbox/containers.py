"""Sandboxes as Docker containers: create, prove, fill, adopt, remove, reap.

A container's name is its fence: the engine refuses a second one, whoever asks. Containers outlive
the runner on purpose; recovery adopts them, and the reaper removes those whose run is over.
The engine's SDK blocks, so every call of it runs on a small pool of threads of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import docker
import docker.errors
import requests.exceptions
from docker.utils.socket import SocketError

from gateway.values import RunId
from runner.sandbox import hardening
from runner.sandbox.box import Box
from runner.sandbox.contract import (
    Existing,
    OnceResult,
    ProbeFailed,
    SandboxConflict,
    SandboxError,
    SandboxLost,
    SandboxUnavailable,
)
from runner.sandbox.hardening import (
    ENVIRONMENT,
    UID,
    WORKSPACE,
    Shape,
    check_image,
    container_name,
)
from runner.sandbox.inside import command
from runner.sandbox.probe import judge
from runner.sandbox.stream import Stream, own_socket
from runner.spec import SandboxSpec
from runner.workspace import Files, pack

_T = TypeVar("_T")
_LABEL = "interlock."
_START = 60.0
_ENGINE_ERRORS = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    SocketError,
    OSError,
)


def connect(
    *, labels: Mapping[str, str], runtime: str | None = None, threads: int = 8
) -> DockerSandboxes:
    """Sandboxes on the engine that DOCKER_HOST (or the default socket) names.

    Raises SandboxUnavailable when none answers.
    """
    try:
        client = docker.APIClient(
            base_url=os.environ.get("DOCKER_HOST"), version="auto", timeout=120
        )
    except _ENGINE_ERRORS as error:
        raise SandboxUnavailable(
            f"no container engine answers ({error}). Start Docker, or set DOCKER_HOST; "
            "`interlock doctor` tells what is missing"
        ) from error
    return DockerSandboxes(client, labels=labels, runtime=runtime, threads=threads)


class DockerSandboxes:
    """See `Sandboxes`. `labels` go on every container: what tells one installation on this
    machine from another; `owner`, `lease` and `purpose` come with the run."""

    def __init__(
        self,
        client: docker.APIClient,
        *,
        labels: Mapping[str, str],
        runtime: str | None = None,
        threads: int = 8,
    ) -> None:
        self._client = client
        self._labels = dict(labels)
        self._runtime = runtime
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sandbox")
        self._images: dict[str, tuple[str, ...]] = {}
        self._removals: set[asyncio.Task[None]] = set()

    async def open(
        self,
        run: RunId,
        spec: SandboxSpec,
        *,
        files: Files,
        socket_dir: Path | None = None,
        read_only_workspace: bool = False,
        suffix: str = "",
        existing: Existing = Existing.ADOPT,
        labels: Mapping[str, str] | None = None,
    ) -> Box:
        """See `Sandboxes.open`."""
        shape = Shape(
            spec,
            socket_dir=str(socket_dir) if socket_dir else None,
            read_only_workspace=read_only_workspace,
            runtime=self._runtime,
            image_environment=await self._image_environment(spec.image),
        )
        name = container_name(run, suffix)
        try:
            container = await self._create(name, run, shape, labels or {})
        except SandboxConflict:
            if existing is Existing.REFUSE:
                raise
            container, state = await self._ours(name, run)
            if existing is Existing.ADOPT and state == "running":
                stream = await self._take_over(container, shape)
                if stream is not None:
                    return self._box(name, container, shape, stream, adopted=True)
            await self._remove(container)
            container = await self._create(name, run, shape, labels or {})
        try:
            stream = await self._start(container, shape)
            await self._fill(container, shape, stream, files)
        except BaseException:
            await asyncio.shield(self._remove(container))
            raise
        return self._box(name, container, shape, stream, adopted=False)

    async def run_once(
        self,
        run: RunId,
        spec: SandboxSpec,
        command: str,
        *,
        files: Files,
        timeout_ms: int,
        suffix: str,
    ) -> OnceResult:
        """See `Sandboxes.run_once`."""
        names = await self._image_environment(spec.image)
        shape = Shape(spec, runtime=self._runtime, image_environment=names)
        name = container_name(run, suffix)
        try:
            container = await self._create(name, run, shape, {})
        except SandboxConflict:
            # Left over from a runner that died: it has no state worth keeping.
            container, _ = await self._ours(name, run)
            await self._remove(container)
            container = await self._create(name, run, shape, {})
        try:
            stream = await self._start(container, shape)
            try:
                await stream.ask("fill", pack(files), seconds=_START)
                argv = ["/bin/sh", "-c", command]
                await stream.tell("once", argv=argv, cwd=WORKSPACE, env=ENVIRONMENT)
                code: int | None = None
                out_of_memory = False
                try:
                    async with asyncio.timeout(timeout_ms / 1000):
                        await stream.end()
                except TimeoutError:
                    pass
                else:
                    code, out_of_memory = await self._ended(container)
                return OnceResult(code, stream.stdout.text(), stream.stderr.text(), out_of_memory)
            finally:
                await stream.close()
        finally:
            self._remove_soon(container)

    async def reap(self, alive: Callable[[RunId], bool], **labels: str) -> tuple[str, ...]:
        """See `Sandboxes.reap`."""
        removed = []
        for row in await self._list(labels):
            run = RunId(row["Labels"][_LABEL + "run"])
            if not alive(run):
                await self._remove(row["Id"])
                removed.append(row["Names"][0].removeprefix("/"))
        return tuple(sorted(removed))

    async def count(self, **labels: str) -> int:
        """See `Sandboxes.count`."""
        return len(await self._list(labels))

    async def settle(self) -> None:
        """Wait for removals that are under way."""
        await asyncio.gather(*self._removals)

    async def close(self) -> None:
        """Settle and let go of the engine. Containers of runs stay."""
        await self.settle()
        self._threads.shutdown(wait=False)
        self._client.close()

    # -- life of a container

    async def _create(self, name: str, run: RunId, shape: Shape, labels: Mapping[str, str]) -> str:
        def create() -> str:
            client = self._client
            made = client.create_container(
                shape.spec.image,
                command(),
                name=name,
                user=f"{UID}:{UID}",
                working_dir=WORKSPACE,
                stdin_open=True,
                entrypoint=[],
                labels={
                    _LABEL + key: value
                    for key, value in {**self._labels, **labels, "run": run}.items()
                },
                host_config=client.create_host_config(**hardening.host_config(shape)),
            )
            return str(made["Id"])

        try:
            return await self._call(create)
        except SandboxError as error:
            cause = error.__cause__
            if isinstance(cause, docker.errors.APIError) and cause.status_code == 409:
                raise SandboxConflict(
                    f"container {name} exists: another runner works on this run, or one died"
                ) from cause
            raise

    async def _image_environment(self, image: str) -> tuple[str, ...]:
        """Names of the variables an image sets; looked up once, since a pinned image is fixed."""
        if image not in self._images:
            check_image(image)
            try:
                found = await self._call(
                    lambda: self._client.inspect_image(image)  # type: ignore[no-untyped-call]
                )
            except SandboxError as error:
                if isinstance(error.__cause__, docker.errors.NotFound):
                    raise SandboxError(
                        f"image {image} is not on this machine; pull or build it first "
                        "(`interlock doctor`)"
                    ) from error
                raise
            lines = found["Config"].get("Env") or ()
            self._images[image] = tuple(line.partition("=")[0] for line in lines)
        return self._images[image]

    async def _start(self, container: str, shape: Shape) -> Stream:
        """Start the container with us listening, and prove its restrictions."""

        def start() -> socket.socket:
            attached = self._client.attach_socket(
                container, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            )
            connection = own_socket(attached)
            try:
                self._client.start(container)
            except BaseException:
                connection.close()
                raise
            return connection

        stream = await Stream.over(await self._call(start))
        try:
            await self._prove(stream, shape)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _prove(self, stream: Stream, shape: Shape) -> None:
        sockets = _sockets(shape)
        try:
            answer, _ = await stream.ask("hello", seconds=_START, sockets=list(sockets), own=False)
        except SandboxLost as error:
            raise ProbeFailed("first process", str(error), "a report of python3") from error
        judge(answer.get("seen") or {}, shape, sockets=sockets)

    async def _fill(self, container: str, shape: Shape, stream: Stream, files: Files) -> None:
        archive = pack(files)
        if shape.read_only_workspace:
            # As root without a single capability: it owns the folder, and nobody else does.
            root = await self._session(container, user="0:0")
            try:
                await root.ask("fill", archive, seconds=_START)
            finally:
                await root.close()
        else:
            await stream.ask("fill", archive, seconds=_START)
        await stream.ask("mark", seconds=_START)

    async def _take_over(self, container: str, shape: Shape) -> Stream | None:
        """A new conversation with a running container, the old runner fenced off; None when its
        workspace was never filled or it cannot be talked to."""
        try:
            stream = await self._session(container)
            answer, _ = await stream.ask("hello", seconds=_START, sockets=[], own=True)
        except SandboxError:
            return None
        if not answer.get("filled"):
            await stream.close()
            return None
        # Proven when it was made, and the engine does not loosen a running container; what can
        # differ is only that this process is not the first.
        seen = dict(answer.get("seen") or {}, pid=1, sockets=dict.fromkeys(_sockets(shape), "ok"))
        try:
            judge(seen, shape, sockets=_sockets(shape))
        except ProbeFailed:
            await stream.close()
            await self._remove(container)
            raise
        return stream

    async def _session(self, container: str, *, user: str = f"{UID}:{UID}") -> Stream:
        def start() -> socket.socket:
            made = self._client.exec_create(
                container, command(), stdin=True, user=user, workdir=WORKSPACE
            )
            return own_socket(self._client.exec_start(made["Id"], socket=True))

        return await Stream.over(await self._call(start))

    def _box(
        self, name: str, container: str, shape: Shape, stream: Stream, *, adopted: bool
    ) -> Box:
        async def reconnect() -> Stream:
            again = await self._take_over(container, shape)
            if again is None:
                raise SandboxLost(f"{name} is gone; the run goes on from its journal in a new one")
            return again

        async def remove() -> None:
            await self._remove(container)

        return Box(name, stream, adopted=adopted, reconnect=reconnect, remove=remove)

    async def _ours(self, name: str, run: RunId) -> tuple[str, str]:
        try:
            found = await self._call(lambda: self._client.inspect_container(name))
        except SandboxError as error:
            raise SandboxConflict(f"container {name} comes and goes: {error}") from error
        if (found["Config"].get("Labels") or {}).get(_LABEL + "run") != run:
            raise SandboxConflict(
                f"container {name} exists and is not Interlock's; remove or rename it"
            )
        return found["Id"], found["State"]["Status"]

    async def _ended(self, container: str) -> tuple[int, bool]:
        def wait() -> tuple[int, bool]:
            self._client.wait(container, timeout=30)
            state = self._client.inspect_container(container)["State"]
            return int(state["ExitCode"]), bool(state["OOMKilled"])

        return await self._call(wait)

    async def _remove(self, container: str) -> None:
        def remove() -> None:
            try:
                self._client.remove_container(container, force=True, v=True)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                if error.status_code != 409:  # its removal is under way already
                    raise

        await self._call(remove)

    def _remove_soon(self, container: str) -> None:
        task = asyncio.create_task(self._remove(container))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _list(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        wanted = [_LABEL + "run", *(f"{_LABEL}{key}={value}" for key, value in labels.items())]
        return await self._call(
            lambda: self._client.containers(all=True, filters={"label": wanted})
        )

    async def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except docker.errors.APIError as error:
            raise SandboxError(f"container engine: {error.explanation or error}") from error
        except _ENGINE_ERRORS as error:
            raise SandboxUnavailable(f"container engine does not answer: {error}") from error


def _sockets(shape: Shape) -> tuple[str, ...]:
    if shape.socket_dir is None:
        return ()
    return tuple(sorted(p.name for p in Path(shape.socket_dir).iterdir() if p.is_socket()))
