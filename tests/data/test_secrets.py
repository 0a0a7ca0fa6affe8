"""Secrets that must go, look-alikes that must stay, and the syntax that must survive. No value here was ever a key."""

from __future__ import annotations

import ast
import base64
import json
import random
import string
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.data.secrets import redact


def made_up(count: int, alphabet: str, seed: int = 1) -> str:
    """Random characters, so that no scanner of this repository finds a literal key in it."""
    return "".join(random.Random(seed).choices(alphabet, k=count))


ALNUM = string.ascii_letters + string.digits
AWS = "AK" + "IA" + made_up(16, string.ascii_uppercase + "23456789")
GITHUB = "ghp" + "_" + made_up(36, ALNUM)
FINE = "github" + "_pat_" + made_up(82, ALNUM)
SLACK = "xox" + "b-" + made_up(24, string.digits) + "-" + made_up(24, ALNUM)
STRIPE = "sk" + "_live_" + made_up(24, ALNUM)
GOOGLE = "AI" + "za" + made_up(35, ALNUM)
_PARTS = ({"alg": "HS256"}, {"sub": "u1", "n": 7})
JWT = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in _PARTS)
JWT += "." + made_up(43, ALNUM)
RANDOM40 = made_up(40, ALNUM, 5)
HEX = made_up(40, "0123456789abcdef", 6)
_BODY = "\n".join(made_up(64, ALNUM + "+/", n) for n in range(4))
PEM = f"-----BEGIN RSA PRIVATE {'KEY'}-----\n{_BODY}\n-----END RSA PRIVATE {'KEY'}-----"

PLANTED = [
    (f'aws_access_key_id = "{AWS}"', AWS, "AWS_KEY_ID"),
    (f"token = '{GITHUB}'", GITHUB, "GITHUB_TOKEN"),
    (f"# use {FINE} here", FINE, "GITHUB_TOKEN"),
    (f'SLACK = "{SLACK}"', SLACK, "SLACK_TOKEN"),
    (f'stripe.api_key = "{STRIPE}"', STRIPE, "STRIPE_KEY"),
    (f'x = "{GOOGLE}"', GOOGLE, "GOOGLE_API_KEY"),
    (f'auth("{JWT}")', JWT, "JWT"),
    ('url = "postgres://app:h7Gq2x-Lp@db.internal:5432/main"', "h7Gq2x-Lp", "PASSWORD"),
    (f'aws_secret_access_key = "{RANDOM40}"', RANDOM40, "SECRET"),
    (f'{{"client_secret": "{RANDOM40}"}}', RANDOM40, "SECRET"),
    (f'config["api_key"] = "{HEX}"', HEX, "SECRET"),
    (f"API_TOKEN={RANDOM40}", RANDOM40, "SECRET"),
    (f"password: '{RANDOM40[:18]}'", RANDOM40[:18], "SECRET"),
    (f'KEY = """{PEM}"""', PEM.split("\n")[1], "PRIVATE_KEY"),
]


@pytest.mark.parametrize(
    ("text", "secret", "kind"), PLANTED, ids=[f"{kind}-{i}" for i, (_, _, kind) in enumerate(PLANTED)]
)
def test_planted_secrets_go(text: str, secret: str, kind: str) -> None:
    clean, found = redact(text)
    assert secret not in clean
    assert found == {kind: 1}
    assert f"REDACTED_{kind}" in clean
    assert clean.count("\n") == text.count("\n")
    assert redact(clean) == (clean, {})


LOOK_ALIKES = [
    'password = "password"',
    'token = "your-token-goes-here-123"',
    'API_KEY = os.environ["API_KEY"]',
    'api_key = "<YOUR_API_KEY_1234567890>"',
    'secret = get_secret("database/production/password")',
    'tokenizer = "bert-base-uncased-v2-finetuned"',
    'token_type = "urn:ietf:params:oauth:token-type:access_token"',
    'private_key_file = "/etc/ssl/private/server1.example.com.pem"',
    'cache_key = "users.profile.settings.v2"',
    'PASSWORD_HASHERS = "django.contrib.auth.hashers.PBKDF2PasswordHasher"',
    "url = 'https://user:password@example.org/'",
    "url = f'https://{user}:{password}@host/'",
    "postgres://$USER:$PASSWORD@localhost/db",
    'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    'commit = "da39a3ee5e6b4b0d3255bfef95601890afd80709"',
    'integrity = "sha512-q2p0n3e9c0v8b7n6m5l4k3j2h1g0f9d8s7a6"',
    "AKIAIOSFODNN7EXAMPLE",
    'AWS = "AKIAXXXXXXXXXXXXXXXX"',
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ\n-----END CERTIFICATE-----",
    'uuid_token = "123e4567-e89b-12d3-a456-426614174000"',
    "def test_password_reset_token_is_invalid_after_2_hours():",
    'error = "Password must be between 8 and 64 characters"',
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_stay(text: str) -> None:
    assert redact(text) == (text, {})


@pytest.mark.parametrize(("text", "secret", "kind"), PLANTED)
def test_python_still_parses(text: str, secret: str, kind: str) -> None:
    try:
        ast.parse(text)
    except SyntaxError:
        return
    ast.parse(redact(text)[0])


def test_the_standard_library_has_no_secrets() -> None:
    """Thirteen thousand functions of real code: every alarm would be a false one."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    alarms = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text("utf-8", "replace")
        clean, found = redact(text)
        if clean != text:
            alarms[path.name] = found
    assert alarms == {}


@given(st.text(max_size=300))
def test_any_text_keeps_its_lines_and_settles(text: str) -> None:
    clean, found = redact(text)
    assert clean.count("\n") == text.count("\n")
    assert bool(found) == (clean != text)
    assert redact(clean)[0] == clean
