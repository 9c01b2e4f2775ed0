"""The reader of YAML: right values, right places, and no input that makes it fall over."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config.positions import MAX_BYTES, decode, parse, split_front_matter
from reconciler.config.secrets import secret_offset


def test_values_are_those_of_yaml_1_2_without_floats() -> None:
    document = parse(
        "a.yaml", b"{a: 400_000, b: 0.10, c: on, d: 12:30, e: 010, f: true, g: null, h: '1'}"
    )
    assert document.data == {
        "a": 400_000,
        "b": Decimal("0.10"),
        "c": "on",
        "d": "12:30",
        "e": "010",
        "f": True,
        "g": None,
        "h": "1",
    }


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse("a", b"on: 1\n2: 3\nnull: 4\n").data == {"on": 1, "2": 3, "null": 4}


def test_every_value_and_key_has_its_place() -> None:
    document = parse("a.yaml", b"a:\n  - b: 1\n    cc: [x, y]\n")
    assert str(document.at(["a", 0, "cc", 1])) == "a.yaml:3:13"
    assert str(document.at(["a", 0, "cc"], key=True)) == "a.yaml:3:5"
    assert document.has(["a", 0, "b"])
    assert not document.has(["a", 1])


def test_aliases_share_the_anchors_value() -> None:
    document = parse("a", b"a: &x {b: [1, 2]}\nc: *x\n")
    assert document.data["c"] == {"b": [1, 2]}
    assert str(document.at(["c", "b", 1])) == "a:1:15"


BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 40)
)

BAD = {
    "malformed": (b"a: [1, 2\nb: 3\n", "2:2 not valid YAML"),
    "mapping in a value": (b"a: b: c\n", "1:5 not valid YAML"),
    "tab": (b"a:\n\tb: 1\n", "2:1 not valid YAML"),
    "latin-1": ("a: 1\nb: caf\u00e9\n".encode("latin-1"), "2:7 byte 0xe9 is not UTF-8"),
    "utf-16": ("a: 1\n".encode("utf-16"), "1:1 byte 0xff is not UTF-8"),
    "control character": (b"a: 1\nb: x\x1b[2J\n", "2:5 character U+001B"),
    "text reordering": ("a: x\u202ey\n".encode(), "1:5 character U+202E"),
    "null byte": (b"a: \x00", "1:4 character U+0000"),
    "duplicate key": (b"a: 1\nb: 2\na: 3\n", '3:1 key "a" is given twice (first at f.yaml:1:1)'),
    "alias bomb": (BOMB, "more than 100,000 values"),
    "alias of itself": (b"a: &a [*a]\n", "1:8 alias *a refers to no anchor"),
    "deep sequence": (b"[" * 200_000, "1:41 nested more than 40 levels"),
    "deep block": (b"- " * 200_000, "nested more than 40 levels"),
    "deep mapping": (b"{a: " * 100_000, "nested more than 40 levels"),
    "ten megabytes": (b"a: x\n" * 2_200_000, "at most 1,048,576 are read"),
    "python tag": (b"a: !!python/object/apply:os.system [id]\n", "1:4 tag"),
    "merge key": (b"a: &x {b: 1}\nc: {<<: *x}\n", "2:5 merge keys"),
    "two documents": (b"a: 1\n---\nb: 2\n", "2:1 a second document"),
    "complex key": (b"? [a, b]\n: 1\n", "1:3 a key must be a name"),
    "empty key": (b'"": 1\n', "1:1 a key must be a name"),
    "unclosed quote": (b"a: 'x\n", "not valid YAML"),
    "surrogate escape": (b'a: "\\ud800"\n', "not valid YAML"),
    "bad directive": (b"%YAML 9.9\n---\na: 1\n", "not valid YAML"),
    "api key": (b"key: sk-ant-" + b"a1B2" * 8 + b"\n", "1:6 this looks like an Anthropic key"),
    "github token": (b"- ghp_" + b"a1B2" * 9 + b"\n", "1:3 this looks like a GitHub token"),
    "private key": (b"k: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n", "a private key"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_finding_with_its_place(name: str) -> None:
    raw, expected = BAD[name]
    began = time.process_time()
    document = parse("f.yaml", raw)
    assert time.process_time() - began < 2.0
    assert expected in "\n".join(str(f) for f in document.findings)


@pytest.mark.parametrize("bait", ["eyJ", "eyJ-", "eyJaaaaaaaaaa.", "-----BEGIN A ", "sk-", "ghp_"])
def test_no_text_makes_the_search_for_keys_slow(bait: str) -> None:
    began = time.process_time()
    secret_offset(bait * (400_000 // len(bait)))
    assert time.process_time() - began < 1.0


def test_tabs_are_named_in_the_fix() -> None:
    assert "spaces, not with tabs" in str(parse("f", b"a:\n\tb: 1\n").findings[0])


@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    document = parse("f.yaml", raw)
    assert all(f.line >= 1 and f.column >= 1 and f.file == "f.yaml" for f in document.findings)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%#@, \n\t?<01._~", max_size=80))
def test_no_yaml_like_text_makes_it_raise(text: str) -> None:
    parse("f.yaml", text.encode())


def test_line_ends_and_byte_order_mark_do_not_matter() -> None:
    assert decode("f", b"\xef\xbb\xbfa\r\nb\rc\n") == "a\nb\nc\n"


def test_a_file_at_the_limit_is_read() -> None:
    assert len(decode("f", b"x" * MAX_BYTES)) == MAX_BYTES


@pytest.mark.parametrize(
    "text, front, body, line",
    [
        ("---\nversion: 2\n---\nText\n", "version: 2\n", "Text\n", 4),
        ("---\nversion: 2\n---", "version: 2\n", "", 4),
        ("Text\n---\n", None, "Text\n---\n", 1),
        ("---\nno end\n", None, "---\nno end\n", 1),
    ],
)
def test_front_matter_is_split_off(text: str, front: str | None, body: str, line: int) -> None:
    assert split_front_matter(text) == (front, body, line)
