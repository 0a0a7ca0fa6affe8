"""Floor 7, keys: who may ask. A file of hashed API keys, and the rule when none is needed.

A key is 256 random bits, so its plain sha256 is a safe thing to keep; the key itself is shown once and stored nowhere.
Requests from this machine pass without a key by default, but never on behalf of a web page from elsewhere: their Host
and Origin must be this server (DNS rebinding, cross-site requests). Knows nothing of what is asked.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from highrise.core.errors import AgentError, InputError
from highrise.core.files import atomic_write, exclusive
from highrise.core.json_text import decode_json

__all__ = ["Key", "KeyFile", "Refused", "admit"]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key as it is kept: `id` names it to people, `sha256` recognises it."""

    id: str
    name: str
    sha256: str
    created: int


class KeyFile:
    """The keys in `path`; a change of the file by another process is seen at the next look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def keys(self) -> tuple[Key, ...]:
        """Every key that is valid now."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            try:
                self._keys = decode_json(self.path.read_bytes(), tuple[Key, ...])
            except msgspec.MsgspecError as error:
                raise AgentError(
                    f"the key file {self.path} is damaged ({error}); restore it, or remove it and make new keys"
                ) from error
            self._stamp = stamp
        return self._keys

    def create(self, name: str) -> str:
        """A new key under `name`; the only time that it is seen."""
        if not name or len(name) > 100 or not name.isprintable():
            raise InputError("a key needs a name of 1 to 100 printable characters, such as the name of its owner")
        secret = f"hr-{secrets.token_urlsafe(32)}"
        key = Key(id=secret[3:11], name=name, sha256=_hash(secret), created=int(time.time()))
        self._change(lambda keys: (*keys, key))
        return secret

    def revoke(self, wanted: str) -> Key:
        """Remove the key with this id or name."""
        found = [key for key in self.keys() if wanted in (key.id, key.name)]
        if not found:
            raise InputError(f"no key has the id or name '{wanted}'; `highrise agent key list` shows them")
        if len(found) > 1:
            raise InputError(
                f"{len(found)} keys are named '{wanted}'; give the id of one: {', '.join(one.id for one in found)}"
            )
        self._change(lambda keys: tuple(key for key in keys if key.id != found[0].id))
        return found[0]

    def owner(self, secret: str) -> Key | None:
        """The key that `secret` is, or None."""
        digest = _hash(secret)
        return next((key for key in self.keys() if secrets.compare_digest(key.sha256, digest)), None)

    def _change(self, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
        lock = self.path.with_name(f".{self.path.name}.lock")
        with exclusive(lock, busy=f"another process is changing {self.path}; try again"):
            keys = change(self.keys())
            with atomic_write(self.path) as file:
                Path(file.name).chmod(0o600)
                file.write(msgspec.json.format(msgspec.json.encode(keys)))
        self._stamp = None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Refused(msgspec.Struct, frozen=True):
    """Why a request may not pass."""

    status: int
    message: str


def admit(
    headers: Mapping[str, str], client: str | None, keys: KeyFile, rule: Literal["auto", "always", "never"]
) -> Refused | None:
    """None when the request may pass. `headers` have lower-case names; `client` is the address it came from."""
    origin = headers.get("origin")
    host = headers.get("host", "")
    if origin is not None and _split(origin).netloc != host:
        return Refused(403, f"The page {origin} may not use this server.")
    if rule == "never":
        return None
    if rule == "auto" and _is_local(client, headers):
        if not _is_loopback(_split(f"//{host}").hostname or ""):
            return Refused(
                403, f"The host name '{host}' is not this machine's; use localhost, or an API key rule of 'never'."
            )
        return None
    secret = headers.get("authorization", "")
    secret = secret[7:] if secret[:7].lower() == "bearer " else headers.get("api-key", "")
    if not secret:
        hint = "" if keys.keys() else " There is none yet: `highrise agent key create --name NAME` makes one."
        return Refused(401, f"An API key is needed: send it as 'Authorization: Bearer KEY'.{hint}")
    if keys.owner(secret.strip()) is None:
        return Refused(401, "The API key is not valid; it may have been revoked.")
    return None


def _split(address: str) -> SplitResult:
    """The parts of an address; of one that is none (`http://[`), no part is known, so it is nobody's."""
    try:
        return urlsplit(address)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _is_local(client: str | None, headers: Mapping[str, str]) -> bool:
    """From this machine, and not handed on by a proxy for somebody else."""
    proxied = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
    return client is not None and not proxied and _is_loopback(client)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
