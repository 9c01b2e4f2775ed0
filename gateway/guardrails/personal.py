"""Personal data in a text: found by its form, proved by what a number says of itself.

Check digits and structures are those of python-stdnum, phone numbers those of Google's
libphonenumber. What has no form of its own (names, streets, dates of birth) is not found.
"""

from __future__ import annotations

import importlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import regex

from gateway.guardrails.scan import Pattern, Span

Proof = Callable[[str], int]
"""How many characters of a candidate, from its beginning, are the thing; 0 when none are."""

_APART = regex.compile(r"[ \-.]")


def personal(kinds: Sequence[str]) -> tuple[Pattern, ...]:
    """Searches for the kinds named, those of `FORMS`. Raises KeyError for another."""
    return tuple(_search(kind, *form) for kind in dict.fromkeys(kinds) for form in FORMS[kind])


def _search(kind: str, source: str, proof: Proof, quick: str | None) -> Pattern:
    what = WORDS[kind]

    def take(match: regex.Match[str]) -> Span | None:
        length = proof(match.group())
        start = match.start()
        return Span(start, start + length, what, f"[{kind}]") if length else None

    return Pattern(f"(?a){source}", take, quick=quick)


def _cuts(candidate: str) -> Iterator[str]:
    """The candidate, then ever less of it: a pattern takes words and numbers that come after."""
    yield candidate
    for match in reversed(list(_APART.finditer(candidate))):
        yield candidate[: match.start()]


def _email(candidate: str) -> int:
    # The address of a git repository, as in `git@host:owner/name`.
    return 0 if candidate.startswith("git@") else len(candidate)


def _phone(region: str | None) -> Proof:
    def proof(candidate: str) -> int:
        import phonenumbers  # its tables take a while, and few gateways look for phones

        for piece in _cuts(candidate):
            try:
                number = phonenumbers.parse(piece, region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                return len(piece)
        return 0

    return proof


def _credit_card(candidate: str) -> int:
    from stdnum import luhn

    for piece in _cuts(candidate):
        digits = regex.sub(r"[ -]", "", piece)
        if _ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            return len(piece)
    return 0


_ISSUERS = regex.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12,17}"
    r"|6(?:011|4|5)\d{12,16}|35\d{14}|62\d{14,17}|(?:50|5[6-9]|6[0-9])\d{10,17}"
)
"""The ranges of Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay and Maestro."""


def _iban(candidate: str) -> int:
    from stdnum import iban

    return next((len(piece) for piece in _cuts(candidate) if iban.is_valid(piece)), 0)


def _address(candidate: str) -> int:
    try:
        # Private, local and documentation addresses are nobody's.
        return len(candidate) if ipaddress.ip_address(candidate).is_global else 0
    except ValueError:
        return 0


@lru_cache
def _number(name: str) -> Callable[[str], bool]:
    valid: Callable[[str], bool] = importlib.import_module(f"stdnum.{name}").is_valid
    return valid


def _national(candidate: str) -> int:
    # One text may have the form of several countries' numbers.
    proved = any(form.fullmatch(candidate) and _number(name)(candidate) for name, form in _READY)
    return len(candidate) if proved else 0


_CARD = r"\d{12,19}|\d{4}(?:[ -]\d{4}){2,3}(?:[ -]\d{1,3})?|\d{4}[ -]\d{6}[ -]\d{4,5}"
_IPV4 = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
_IPV6 = r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|::)(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])"
NATIONAL: Final = (
    ("us.ssn", r"\d{3}-\d{2}-\d{4}"),
    ("ca.sin", r"\d{3}[ -]\d{3}[ -]\d{3}"),
    ("fr.nir", r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}"),
    ("it.codicefiscale", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]"),
    ("es.dni", r"\d{8}-?[A-Z]"),
    ("es.nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    ("fi.hetu", r"\d{6}[-+A]\d{3}[0-9A-Y]"),
    ("se.personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}"),
    ("dk.cpr", r"\d{6}-\d{4}"),
    ("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    ("ch.ssn", r"756\.\d{4}\.\d{4}\.\d{2}"),
    ("be.nn", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}"),
    ("pl.pesel", r"\d{11}"),
    ("no.fodselsnummer", r"\d{6} ?\d{5}"),
    ("de.idnr", r"\d{11}|\d{2} \d{3} \d{3} \d{3}"),
    ("in_.aadhaar", r"\d{4} \d{4} \d{4}"),
)
"""The numbers of persons that are told apart by a form or by check digits, by python-stdnum's name.
Those of nine plain digits (the Dutch BSN, a SIN without spaces) are left out: one in ten of all
numbers would be one."""

_READY = [(name, regex.compile(form)) for name, form in NATIONAL]
_ANY = "|".join(f"(?:{form})" for _, form in NATIONAL)

WORDS: Final = {
    "email": "an email address",
    "phone": "a phone number",
    "credit_card": "a card number",
    "iban": "an IBAN",
    "ip_address": "an IP address",
    "national_id": "a national id",
}
FORMS: Final[dict[str, tuple[tuple[str, Proof, str | None], ...]]] = {
    "email": (
        (
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,128}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}",
            _email,
            r"[A-Za-z0-9._%+-]{1,128}@[A-Za-z0-9-]",
        ),
    ),
    "phone": (
        (r"(?<![\w+])\+[1-9][\d ().\-/]{6,20}\d", _phone(None), r"\+[1-9][\d ().\-/]{6,20}\d"),
        (
            r"(?<![\w.+-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}(?![\w-])",
            _phone("US"),
            r"(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}",
        ),
    ),
    "credit_card": (
        (
            rf"(?<![\w.-])(?:{_CARD})(?!\w)",
            _credit_card,
            _CARD,
        ),
    ),
    "iban": (
        (
            r"(?<!\w)[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{2,4}){3,8})(?!\w)",
            _iban,
            r"[A-Z]{2}\d{2}[ ]?[A-Z0-9]{2}",
        ),
    ),
    "ip_address": (
        (_IPV4, _address, r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d"),
        (_IPV6, _address, r"(?:[0-9A-Fa-f]{0,4}:){2}[0-9A-Fa-f:]"),
    ),
    "national_id": ((rf"(?<![\w.-])(?:{_ANY})(?![\w-])", _national, _ANY),),
}
"""By kind: pattern, proof, and the pattern for RE2 (see `Pattern`)."""
