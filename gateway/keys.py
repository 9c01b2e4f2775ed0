"""Provider and tool-server keys: found here, bound to hosts here, scrubbed here.

A key exists in this process only. It is read from the process's environment or a file at the
moment it is used, is sent to a host on the operator's list and nowhere else, and is cut out of
whatever a server sends back, so that a server that echoes headers cannot put it into the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gateway.policy import SecretRef
from gateway.refusals import Code, Refusal

REDACTED = "[redacted]"


class NoKey(Refusal):
    """There is no key, or it may not go there: nothing was sent, and nothing will be."""


class Keyring:
    """Resolves secret references against one environment mapping and the file system."""

    def __init__(
        self, environment: Mapping[str, str], found: Callable[[str], None] = lambda _secret: None
    ) -> None:
        """`found` is told every secret that is used, once: whoever writes texts must know them."""
        self._environment = environment
        self._found = found
        self._known: set[str] = set()

    def find(self, reference: SecretRef | None, *, url: str, hosts: tuple[str, ...]) -> str | None:
        """The secret for a request to `url`, or None when none is configured.

        `hosts` is where it may go: `name` (any port) or `name:port`. Raises Refusal
        (provider_error) when the host is not on the list or the secret is not there; the message
        names the reference, never the value.
        """
        if reference is None:
            return None
        bound_to(url, hosts)
        return self.read(reference)

    def read(self, reference: SecretRef) -> str:
        """The secret itself. Raises Refusal (provider_error) when it is not there; the message
        names the reference, never the value."""
        if reference.env is not None:
            value = self._environment.get(reference.env, "")
            where = f"environment variable {reference.env}"
        else:
            path = Path(reference.file or "")
            value = path.read_text().strip() if path.is_file() else ""
            where = f"file {path}"
        if not value:
            raise NoKey(
                Code.PROVIDER_ERROR,
                f"no key: {where} is empty or missing in the gateway's process. Set it and "
                "start the gateway again.",
            )
        self.learn(value)
        return value

    def learn(self, secret: str) -> None:
        """Make a secret known that was not found here, such as a token that was asked for."""
        if secret not in self._known:
            self._known.add(secret)
            self._found(secret)


def bound_to(url: str, hosts: tuple[str, ...]) -> None:
    """Raises Refusal (provider_error) unless a key may be sent to `url`: `hosts` is where it may
    go, `name` (any port) or `name:port`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if host not in hosts and f"{host}:{port}" not in hosts:
        raise NoKey(
            Code.PROVIDER_ERROR,
            f"the key for {host} is not sent: the policy allows it for "
            f"{', '.join(hosts) or 'no host'} only. Add the host to `hosts`, or correct the "
            "address.",
        )


def allowed_hosts(hosts: tuple[str, ...], base_url: str) -> tuple[str, ...]:
    """The operator's list; where there is none, the host (and port) of the configured address."""
    if hosts:
        return hosts
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (f"{parts.hostname}:{port}",)


def scrub(text: str, secret: str | None) -> str:
    """`text` without the secret."""
    return text.replace(secret, REDACTED) if secret and secret in text else text
