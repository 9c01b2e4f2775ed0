"""The HTTP protocol against clients that break its rules, are slow, or go away.

In process, on a transport without a network and a clock that stands still; `test_http_process` does
the same to a real gateway.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from gateway.app import http
from gateway.app.exchange import MAX_UNSENT, Exchange
from gateway.app.face import GatewayApp
from gateway.refusals import STATUS, Code
from tests.gateway.wire import Line, Said, post, responses, settled

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def run(work: Callable[[], Awaitable[None]]) -> None:
    """One test of the protocol: whatever is unclear, nothing stays counted."""
    asyncio.run(asyncio.wait_for(work(), 30))


async def echo(exchange: Exchange) -> None:
    """Says what it was asked; a request that cannot be taken is told so."""
    if exchange.refused is not None:
        code = exchange.refused.code
        body = json.dumps({"error": {"code": code, "message": exchange.refused.message}})
        exchange.respond(STATUS[code], body.encode())
        return
    exchange.respond(200, exchange.path.encode() + b" " + exchange.body)


class Slow:
    """A handler whose answers wait until a test lets them go, in order."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []

    async def __call__(self, exchange: Exchange) -> None:
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        await echo(exchange)


async def one(data: bytes) -> tuple[Line, Said]:
    """What a server says to these bytes."""
    line = Line(echo)
    await line.send(data)
    (said,) = responses(line.pipe.out)
    return line, said


NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "lower-case method": b"post / HTTP/1.1\r\n\r\n",
    "unknown version": b"GET / HTTP/1.9\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "control character in the URL": b"GET /a\x01b HTTP/1.1\r\n\r\n",
    "NUL in the URL": b"GET /a\x00b HTTP/1.1\r\n\r\n",
    "length and coding": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "a length in two parts": HEAD + b"Content-Length: 1 1\r\n\r\nabc",
    "an empty length": HEAD + b"Content-Length: \r\n\r\nabc",
    "an overflowing length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "folded header": HEAD + b"X-A: a\r\n b\r\n\r\n",
    "folded length": HEAD + b"Content-Length:\r\n 3\r\n\r\nabc",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare line feed in a header": b"GET / HTTP/1.1\r\nHost: x\nContent-Length: 3\r\n\r\nabc",
    "bare carriage return": b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "space before the colon": HEAD + b"Content-Length : 3\r\n\r\nabc",
    "NUL in a value": HEAD + b"X-A: a\x00b\r\n\r\n",
    "NUL in a name": HEAD + b"X\x00A: a\r\n\r\n",
    "no name": HEAD + b": a\r\n\r\n",
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no coding": HEAD + b"Transfer-Encoding: identity\r\n\r\nabc",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "packed": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": HEAD
    + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical tab before the coding": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "chunk size with a space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk size that overflows": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk size ended by LF": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "chunk extension ended by LF": CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"3\r\nabcX\r\n0\r\n\r\n",
    "websocket": b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "h2c with a body": HEAD
    + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabc",
    "CONNECT": b"CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_whatever_is_unclear_about_where_a_request_ends_is_refused(name: str) -> None:
    async def work() -> None:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"
        line, said = await one(NOT_HTTP[name] + smuggled)
        assert (said.status, said.code) == (400, "invalid_request")
        assert said.headers["connection"] == "close"
        assert not any("smuggled" in exchange.path for exchange in line.seen)
        await line.send(smuggled)
        assert len(line.seen) == 1, "nothing is read after a request that is unclear"
        assert line.gate.buffered == 0

    run(work)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_request_that_comes_in_small_pieces_is_refused_all_the_same(size: int) -> None:
    async def work() -> None:
        for name, data in NOT_HTTP.items():
            line = Line(echo)
            for start in range(0, len(data), size):
                await line.send(data[start : start + size])
                if line.pipe.out:
                    break
            if not line.pipe.out:  # it waits for more: the sweep ends that
                await line.after(http.REQUEST_SECONDS + 1)
            assert responses(line.pipe.out)[0].status in (400, 408), name

    run(work)


@pytest.mark.parametrize(
    "header", ["Authorization", "x-api-key", "X-Interlock-Call-Key", "HOST", "content-length"]
)
def test_headers_that_two_readers_could_read_differently_must_not_come_twice(header: str) -> None:
    async def work() -> None:
        value = "0" if header == "content-length" else "SECRET"
        lines = f"{header}: {value}\r\n".encode()
        line, said = await one(b"POST / HTTP/1.1\r\n" + lines + lines.upper() + b"\r\n")
        assert (said.status, said.code) == (400, "invalid_request")
        assert b"SECRET" not in line.pipe.out

    run(work)


def test_a_trailer_does_not_pass_for_a_header() -> None:
    async def work() -> None:
        line, said = await one(CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
        assert said.body.endswith(b" abc")
        assert b"authorization" not in line.seen[0].headers

    run(work)


def test_chunk_extensions_are_skipped_and_endless_ones_refused() -> None:
    async def work() -> None:
        _, said = await one(CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0\r\n\r\n')
        assert said.body.endswith(b" abc")
        for start in (b"3;a=", b"1\r\na\r\n0\r\nx: "):  # an extension, a trailer
            line = Line(echo)
            await line.send(CHUNKED + start)
            for _ in range(200):
                if line.pipe.out:
                    break
                await line.send(b"a" * 1024)
            (refused,) = responses(line.pipe.out)
            assert (refused.status, refused.code) == (413, "too_large")

    run(work)


def test_a_body_in_chunks_of_a_few_bytes_is_taken() -> None:
    async def work() -> None:
        body = b"8\r\nabcdefgh\r\n" * 40_000
        _, said = await one(CHUNKED + body + b"0\r\n\r\n")
        assert said.status == 200
        assert said.body.count(b"abcdefgh") == 40_000

    run(work)


def test_a_head_a_url_and_a_number_of_headers_have_a_limit() -> None:
    async def work() -> None:
        for data in (
            HEAD + b"X-A: " + b"a" * http.MAX_HEAD,
            b"GET /" + b"a" * http.MAX_HEAD,
            b"GET /" + b"a" * 10 * http.MAX_HEAD + b" HTTP/1.1\r\n\r\n",
            HEAD + b"".join(b"x-%d: 1\r\n" % n for n in range(http.MAX_HEADERS)) + b"\r\n",
            HEAD + b"x-same: 1\r\n" * 10_000,
        ):
            _, said = await one(data)
            assert (said.status, said.code) == (413, "too_large"), data[:40]

    run(work)


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async def work() -> None:
        for length in (http.MAX_BODY + 1, 10**11, 10**15):
            line, said = await one(HEAD + b"Content-Length: %d\r\n\r\n" % length)
            assert (said.status, said.code) == (413, "too_large")
            assert line.pipe.ended
            assert not line.pipe.closed, "what is on its way is read, or the client is reset"
            await line.send(b"a" * 100_000)
            await line.after(http.LINGER_SECONDS + 1)
            assert line.pipe.closed

    run(work)


def test_chunks_over_the_limit_are_refused_while_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 100_000)

    async def work() -> None:
        line = Line(echo)
        for _ in range(3):
            await line.send((CHUNKED if not line.pipe.protocol._reading else b"") + b"c350\r\n")
            await line.send(b"a" * 50_000 + b"\r\n")
        (said,) = responses(line.pipe.out)
        assert (said.status, said.code) == (413, "too_large")
        assert line.gate.buffered == 0

    run(work)


def test_all_bodies_together_have_a_limit_whether_they_come_in_wait_or_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "MAX_BUFFERED", 100_000)

    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        await line.send(post("/1", b"a" * 40_000) + post("/2", b"a" * 40_000))
        assert line.gate.buffered == 80_000
        other = line.open()
        await line.send(post("/3", b"a" * 40_000)[:15_000], other)
        assert line.gate.buffered > 80_000
        line.handler = echo
        third = line.open()
        await line.send(post("/4", b"a" * 40_000), third)
        (said,) = responses(third.out)
        assert (said.status, said.code) == (503, "overloaded")
        other.close()
        await settled()
        assert line.gate.buffered == 80_000
        slow.gates[0].set()
        await settled()
        assert line.gate.buffered == 0
        assert len(responses(line.pipe.out)) == 2

    run(work)


def test_slow_heads_and_slow_bodies_are_ended() -> None:
    async def work() -> None:
        for begun in (
            b"POST",
            HEAD,
            HEAD + b"Content-Length: 1000\r\n\r\nabc",
            CHUNKED + b"3\r\na",
        ):
            line = Line(echo)
            await line.send(begun)
            await line.after(http.REQUEST_SECONDS - 1)
            assert line.pipe.out == b"", begun
            await line.after(2)
            (said,) = responses(line.pipe.out)
            assert (said.status, said.code) == (408, "too_slow")
            assert line.gate.buffered == 0
            line.pipe.protocol.eof_received()
            await line.after(http.LINGER_SECONDS + 1)
            assert line.pipe.closed

    run(work)


def test_a_byte_now_and_then_does_not_buy_more_time() -> None:
    async def work() -> None:
        for begun in (HEAD + b"X-A: ", HEAD + b"Content-Length: 100000\r\n\r\n"):
            line = Line(echo)
            await line.send(begun)
            for _ in range(7):
                await line.send(b"a")
                await line.after(5)
            (said,) = responses(line.pipe.out)
            assert said.code == "too_slow"

    run(work)


def test_idle_connections_are_closed_and_busy_ones_are_not() -> None:
    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        idle = line.open()
        await line.send(post("/"))
        await line.after(http.IDLE_SECONDS + 1)
        assert idle.closed
        assert not line.pipe.closed
        slow.gates[0].set()
        await settled()
        await line.after(http.IDLE_SECONDS - 1)
        assert not line.pipe.closed
        await line.after(2)
        assert line.pipe.closed
        assert not line.gate.connections

    run(work)


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        await line.send(b"".join(post(f"/{n}", b"%d" % n) for n in range(40)))
        assert len(line.seen) == 1
        assert not line.pipe.reading, "more than 16 wait: nothing more is read"
        for n in range(40):
            assert len(slow.gates) == n + 1
            slow.gates[n].set()
            await settled()
        assert line.pipe.reading
        assert [said.body for said in responses(line.pipe.out)] == [
            b"/%d %d" % (n, n) for n in range(40)
        ]
        assert line.gate.buffered == 0

    run(work)


def test_a_refusal_comes_after_the_answers_to_what_came_before_it() -> None:
    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        await line.send(post("/1") + post("/2") + b"garbage\r\n\r\n" + post("/3"))
        for n in range(3):
            slow.gates[n].set()
            await settled()
        assert [said.status for said in responses(line.pipe.out)] == [200, 200, 400]

    run(work)


def test_a_client_that_does_not_read_is_not_answered_any_more() -> None:
    async def work() -> None:
        async def large(exchange: Exchange) -> None:
            exchange.respond(200, b"a" * 100_000)

        line = Line(large)
        line.pipe.reads = False
        await line.send(post("/") * 3)
        assert len(line.seen) == 1
        line.pipe.read()
        await settled()
        assert len(line.seen) == 2
        line.pipe.read()
        await settled()
        line.pipe.read()
        assert len(responses(line.pipe.out)) == 3
        assert not line.pipe.closed

    run(work)


def test_a_client_that_reads_nothing_for_too_long_is_dropped() -> None:
    async def work() -> None:
        async def large(exchange: Exchange) -> None:
            exchange.respond(200, b"a" * 100_000)

        line = Line(large)
        line.pipe.reads = False
        await line.send(post("/", b"{}", "Connection: close"))
        await line.after(1)
        line.pipe.waiting -= 10  # it reads a little
        await line.after(http.SEND_SECONDS)
        assert not line.pipe.aborted
        await line.after(http.SEND_SECONDS + 1)
        assert line.pipe.aborted

    run(work)


def test_a_reader_too_far_behind_a_stream_is_dropped_and_the_stream_goes_on() -> None:
    async def work() -> None:
        done = asyncio.Event()

        async def endless(exchange: Exchange) -> None:
            exchange.begin(200, {}, content_type=b"text/event-stream")
            for _ in range(1000):
                exchange.write(b"a" * 100_000)
                await asyncio.sleep(0)
            exchange.end(b"last")
            done.set()

        line = Line(endless)
        line.pipe.reads = False
        line.pipe.protocol.data_received(post("/"))
        await done.wait()
        assert line.pipe.aborted
        assert len(line.pipe.out) < MAX_UNSENT + 200_000
        assert line.seen[0].gone
        assert line.gate.buffered == 0

    run(work)


def test_a_large_answer_given_at_once_is_no_reason_to_drop_anybody() -> None:
    async def work() -> None:
        async def replay(exchange: Exchange) -> None:
            exchange.begin(200, {}, content_type=b"text/event-stream")
            exchange.write(b"a" * 2 * MAX_UNSENT)
            exchange.end(b"last")

        line = Line(replay)
        line.pipe.reads = False
        await line.send(post("/"))
        assert not line.pipe.aborted
        assert responses(line.pipe.out)[0].body.endswith(b"last")

    run(work)


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async def work() -> None:
        head = HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        line = Line(echo)
        await line.send(head)
        assert line.pipe.out == b"HTTP/1.1 100 Continue\r\n\r\n"
        await line.send(b"abc")
        assert [said.status for said in responses(line.pipe.out)] == [100, 200]
        # Never in the middle of another answer, but then.
        slow = Slow()
        line = Line(slow)
        await line.send(post("/1") + head)
        assert line.pipe.out == b""
        slow.gates[0].set()
        await settled()
        assert [said.status for said in responses(line.pipe.out)] == [200, 100]

    run(work)


def test_a_body_that_is_too_large_gets_no_leave() -> None:
    async def work() -> None:
        head = HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (http.MAX_BODY + 1)
        _, said = await one(head)
        assert said.status == 413

    run(work)


def test_head_has_no_body_and_its_length() -> None:
    async def work() -> None:
        line = Line(echo)
        await line.send(b"HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n" + post("/x", b"1"))
        first, second = responses(line.pipe.out, heads=1)
        assert first.headers["content-length"] == "5"
        assert second.body == b"/x 1"

    run(work)


def test_http_1_0_is_answered_without_chunks_and_closed() -> None:
    async def work() -> None:
        async def stream(exchange: Exchange) -> None:
            exchange.begin(200, {}, content_type=b"text/event-stream")
            exchange.write(b"one ")
            exchange.end(b"two")

        for handler, expected in ((echo, b"/ "), (stream, b"one two")):
            for extra in (b"", b"Connection: keep-alive\r\n"):
                line = Line(handler)
                await line.send(b"GET / HTTP/1.0\r\n" + extra + b"\r\n")
                (said,) = responses(line.pipe.out)
                assert said.body == expected
                assert said.headers["connection"] == "close"
                assert "transfer-encoding" not in said.headers
                assert line.pipe.closed

    run(work)


def test_connection_close_is_obeyed_and_what_comes_after_it_ignored() -> None:
    async def work() -> None:
        line = Line(echo)
        await line.send(post("/1", b"a", "Connection: close") + post("/2"))
        (said,) = responses(line.pipe.out)
        assert said.headers["connection"] == "close"
        await line.after(http.LINGER_SECONDS + 1)
        assert line.pipe.closed

    run(work)


def test_a_client_that_has_sent_everything_still_gets_its_answers() -> None:
    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        await line.send(post("/1") + post("/2"))
        assert line.pipe.protocol.eof_received(), "the connection stays open for the answers"
        for n in range(2):
            slow.gates[n].set()
            await settled()
        assert len(responses(line.pipe.out)) == 2
        assert line.pipe.closed
        assert not Line(echo).pipe.protocol.eof_received(), "an idle one is closed"

    run(work)


def test_going_away_in_the_middle_of_a_body_leaves_nothing_behind() -> None:
    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        await line.send(post("/1", b"a" * 10_000) + post("/2", b"a" * 100)[:-50])
        assert line.gate.buffered == 10_050
        line.pipe.abort()
        await settled()
        assert line.gate.buffered == 10_000, "the call goes on, and so does its body"
        assert line.seen[0].gone
        slow.gates[0].set()
        await settled()
        assert line.gate.buffered == 0
        assert not line.gate.connections

    run(work)


def test_a_handler_that_fails_closes_the_connection() -> None:
    async def work() -> None:
        async def broken(_: Exchange) -> None:
            raise RuntimeError("a fault")

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        line = Line(broken)
        await line.send(post("/", b"abc"))
        assert line.pipe.closed
        assert line.gate.buffered == 0

    run(work)


def test_a_header_value_cannot_write_headers_of_its_own() -> None:
    async def work() -> None:
        async def inject(exchange: Exchange) -> None:
            exchange.respond(200, b"", {b"x-interlock-model": b"a\r\nset-cookie: b\r\n\r\n<html>"})

        line = Line(inject)
        await line.send(post("/"))
        (said,) = responses(line.pipe.out)
        assert "set-cookie" not in said.headers

    run(work)


def test_closing_the_gate_lets_answers_end_and_takes_no_more() -> None:
    async def work() -> None:
        slow = Slow()
        line = Line(slow)
        idle = line.open()
        await line.send(post("/1") + post("/2"))
        line.gate.close()
        await settled()
        assert idle.closed
        slow.gates[0].set()
        await settled()
        assert len(responses(line.pipe.out)) == 1
        assert line.pipe.closed
        assert line.gate.buffered == 0

    run(work)


@pytest.mark.parametrize(
    "path, shape",
    [
        ("/v1/chat/completions", {"error"}),
        ("/v1/messages", {"type", "error"}),
        ("/mcp", {"jsonrpc", "id", "error"}),
        ("/nowhere", {"error"}),
    ],
)
def test_a_request_that_cannot_be_taken_is_refused_in_its_dialect(
    path: str, shape: set[str]
) -> None:
    class Quiet:
        """Neither logs nor counts."""

        books: Quiet

        def __getattr__(self, _name: str) -> Callable[..., None]:
            return lambda *_args, **_more: None

    async def work() -> None:
        quiet = Quiet()
        quiet.books = Quiet()
        app = GatewayApp(quiet, quiet, quiet, quiet, lambda: None)  # type: ignore[arg-type]
        start = f"POST {path} HTTP/1.1\r\nAuthorization: Bearer SECRET\r\n".encode()
        for rest, code in (
            (b"Content-Length: 99999999999\r\n\r\n", Code.TOO_LARGE),
            (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Code.INVALID_REQUEST),
            (b"Content-Length: 3\r\n\r\n", Code.TOO_SLOW),
        ):
            line = Line(app)
            await line.send(start + rest)
            if code is Code.TOO_SLOW:
                await line.after(http.REQUEST_SECONDS + 1)
            (said,) = responses(line.pipe.out)
            assert set(said.json()) == shape
            assert (said.status, said.code) == (STATUS[code], code)
            assert b"SECRET" not in said.body

    run(work)
