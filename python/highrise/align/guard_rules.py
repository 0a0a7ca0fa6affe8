"""Floor 5, guard rules: the table behind `guard.check`, one line a rule.

Several rules may bear one name: the name is what a refusal tells. Each has hits and look-alikes in its test. The shapes
of tokens stand in the table of the data floor, which redacts them. Repetitions are bounded, so that no text takes
quadratic time.
"""

from __future__ import annotations

import re

import msgspec

from highrise.data.secrets import RULES as TOKEN_SHAPES

__all__ = ["RULES", "Rule"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern with what it means."""

    name: str
    message: str
    pattern: re.Pattern[str]
    directions: tuple[str, ...] = ("out",)
    unless: re.Pattern[str] | None = None
    """Lets a match pass when this is found inside it (a placeholder, a documented example)."""
    hint: re.Pattern[str] | None = None
    """A cheap pattern that stands in every text that can match; spares the dear one."""
    warned: bool = True
    """Lets a match pass when a word of warning stands before it on its line ("never run ...")."""


_PLACEHOLDER = re.compile(
    r"EXAMPLE|example|placeholder|changeme|change_me|your[-_ ]|<[^>]*>|\$\{?\w+\}?|\{\{?\w*\}?\}|x{4,}|X{4,}|\*{3,}"
    r"|\.{3}|dummy|redacted|REDACTED|(?:os\.)?environ|getenv",
)
_SYSTEM = (
    r"['\"]?(?:/(?:\*|\.)?|~/?\*?|\$\{?HOME\}?/?\*?|"
    r"/(?:bin|boot|dev|etc|home|lib|lib64|opt|root|sbin|sys|usr|var)/?\*?)['\"]?(?=[\s;&|)'\"`]|$)"
)
_DISK = r"/dev/(?:sd[a-z]|hd[a-z]|vd[a-z]|xvd[a-z]|nvme\d|mmcblk\d|disk\d|mapper/)"
_FLAGS = r"(?:-\S{1,40}\s+){0,8}"
_REST = r"[^\n;|&]{0,200}"
_SHELL = r"(?:sudo\s+(?:-\S+\s+){0,4})?(?:/usr)?(?:/bin/)?(?:ba|z|da|k|fi)?sh\b"
_PROGRAM = r"(?:sudo\s+)?(?:python[\d.]*|perl|ruby|node)\b"
_POWERSHELL = r"(?i:\b(?:iex|invoke-expression)\b[^\n]{0,40}(?:iwr|invoke-webrequest|downloadstring)\b)"
_WINDOWS = (
    r"(?i:\b(?:rd|rmdir)\s+/s\s[^\n]{0,20}c:\\(?:[\s\"']|$)|\bformat\s+c:|"
    r"\bdel\s+/[sfq]\s[^\n]{0,20}c:\\\*?(?:[\s\"']|$))"
)
_STATEMENT = (
    r"\s*(?:SELECT\b[^\n;]{1,200}?\bFROM\b(?!\s+(?:the|a|an|this|that|your|all|these)\b)|INSERT\s+INTO\b|"
    r"UPDATE\b[^\n;]{1,80}?\bSET\b|DELETE\s+FROM\b|DROP\s+TABLE\b)"
)
_HOLE = r"\{[^{}\n]{1,100}\}"
_MARKS = r"\{(?:placeholders?|marks|\W*\.join\([^\n]*\?[^\n]*\))\}$"
_PASTED = r"\s*(?:%\s*[\w(]|\.format\s*\(|\+\s*[A-Za-z_$])"
_TRIPLE = r"(?:\"\"\"|''')"
_BODY = rf"(?:(?!{_TRIPLE})[\s\S]){{0,400}}?"
_TAINTED = (
    r"(?:input\s*\(|raw_input\s*\(|sys\.argv|sys\.stdin|request\.|req\.(?:body|query|params)|self\.request\.|params\[|"
    r"user_?(?:input|code|expr\w*)\b|location\.(?:hash|search)|document\.(?:URL|location)|process\.argv|"
    r"\$_(?:GET|POST|REQUEST|COOKIE)|prompt\s*\(|gets\b)"
)
_FORMATTED = r"(?:f?['\"][^'\"\n]{0,100}['\"]\s*(?:\+|%)\s*|f['\"][^'\"\n]{0,100}\{)?"
_RUN_LATER = (
    r"\b(\w{1,40})\s*=\s*(?:str\()?(?:raw_)?input\s*\([^\n]{0,120}\n(?:[^\n]{0,120}\n){0,15}?"
    r"[^\n]{0,120}(?<![\w.])(?:eval|exec)\s*\(\s*\1\s*[,)]"
)


def _secret(pattern: str, *, hint: str) -> Rule:
    return Rule(
        name="secret",
        message="the text holds what looks like a key, token or password; take it out, and revoke it if it was real",
        pattern=re.compile(pattern),
        directions=("in", "out"),
        unless=_PLACEHOLDER,
        hint=re.compile(hint),
        warned=False,
    )


def _shell(pattern: str, *, hint: str) -> Rule:
    return Rule(
        name="dangerous-shell",
        message="the answer holds a shell command that destroys data or runs unseen code from the network",
        pattern=re.compile(pattern, re.MULTILINE),
        hint=re.compile(hint),
    )


def _sql(pattern: str, *, unless: str | None = None) -> Rule:
    return Rule(
        name="sql-injection",
        message="the answer builds SQL by pasting values into the text; pass them as parameters of the query",
        pattern=re.compile(pattern, re.IGNORECASE),
        unless=None if unless is None else re.compile(unless, re.IGNORECASE),
        hint=re.compile(r"SELECT|INSERT|UPDATE|DELETE|DROP", re.IGNORECASE),
    )


def _eval(pattern: str) -> Rule:
    return Rule(
        name="eval-on-input",
        message="the answer runs what a user typed as code; parse it (ast.literal_eval, json) or look it up in a table",
        pattern=re.compile(pattern),
        hint=re.compile(r"eval|exec|Function|system"),
    )


RULES: tuple[Rule, ...] = (
    # secrets, in and out: the shapes of tokens are those that the data floor redacts
    *(
        _secret(pattern.pattern, hint="|".join(map(re.escape, literals)))
        for kind, literals, pattern in TOKEN_SHAPES
        if kind not in ("PASSWORD", "JWT")
    ),
    _secret(r"(?i:aws_?secret_?(?:access_?)?key)['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9/+=]{40}\b", hint="(?i)aws"),
    _secret(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{20}", hint="PRIVATE KEY"),
    _secret(r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{20,}", hint="eyJ"),
    _secret(
        r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"]{1,80}:(?!(?:password|pass|pwd|secret|user)@)[^\s/:@'\"]{6,80}@[\w.-]+",
        hint="://",
    ),
    _secret(
        r"(?i:\b\w{0,30}(?:password|passwd|secret|api_?key|access_?token|auth_?token))['\"]?\s{0,3}[:=]\s{0,3}"
        r"(['\"])(?=[^'\"\n]{0,80}\d)(?=[^'\"\n]{0,80}[A-Za-z])[^\s'\"]{12,80}\1",
        hint="(?i)passw|secret|key|token",
    ),
    # shell commands, out
    _shell(rf"\brm\s+{_FLAGS}-(?:[a-zA-Z]{{0,6}}[rR][a-zA-Z]{{0,6}}|-recursive)\s+{_FLAGS}{_SYSTEM}", hint=r"\brm\s"),
    _shell(rf"\brm\s{_REST}--no-preserve-root", hint=r"\brm\s"),
    _shell(rf"\b(?:curl|wget)\s[^\n;]{{0,300}}?\|\s*{_SHELL}", hint=r"curl|wget"),
    _shell(rf"\b(?:curl|wget)\s[^\n;|]{{0,300}}?\|\s*{_PROGRAM}", hint=r"curl|wget"),
    _shell(rf"{_SHELL}\s+(?:-\w+\s+){{0,4}}(?:-c\s+['\"]?\$\(|<\()\s*(?:curl|wget)\b", hint=r"curl|wget"),
    _shell(_POWERSHELL, hint="(?i)iex|invoke-exp"),
    _shell(rf"\bdd\s{_REST}\bof={_DISK}", hint=r"\bdd\s"),
    _shell(rf"(?<![-=<])>\s{{0,3}}{_DISK}", hint="/dev/"),
    _shell(rf"\b(?:mkfs(?:\.\w+)?|wipefs|shred)\s{_REST}{_DISK}", hint=r"mkfs|wipefs|shred"),
    _shell(r"([\w:]{1,20})\s?\(\)\s{0,3}\{\s{0,3}\1\s{0,3}\|\s{0,3}\1\s{0,3}&\s{0,3}\}\s?;?\s{0,3}\1", hint=r"\(\)"),
    _shell(rf"\bchmod\s+{_FLAGS}(?:0?777|[ugoa]{{0,4}}\+rwx)\s+{_FLAGS}{_SYSTEM}", hint=r"\bchmod\s"),
    _shell(r"\bshutil\.rmtree\(\s*(?:['\"](?:/|~|/home|/etc|/usr|/var)/?['\"]|Path\.home\(\))", hint="rmtree"),
    _shell(_WINDOWS, hint="(?i)c:"),
    # SQL, out
    _sql(rf"\b(?:f|rf|fr){_TRIPLE}{_STATEMENT}{_BODY}{_HOLE}", unless=r"\{(?:placeholders?|marks)\}$"),
    _sql(rf"\b(?:f|rf|fr)\"(?!\"\"){_STATEMENT}[^\"\n]{{0,300}}?{_HOLE}", unless=_MARKS),
    _sql(rf"\b(?:f|rf|fr)'(?!''){_STATEMENT}[^'\n]{{0,300}}?{_HOLE}", unless=_MARKS),
    _sql(rf"\"{_STATEMENT}[^\"\n]{{0,300}}\"{_PASTED}"),
    _sql(rf"'{_STATEMENT}[^'\n]{{0,300}}'(?:{_PASTED}|\s*\.\s*\$)"),
    _sql(rf"{_TRIPLE}{_STATEMENT}{_BODY}{_TRIPLE}\s*(?:%\s*[\w(]|\.format\s*\()"),
    _sql(rf"(?<![\w`])`{_STATEMENT}[^`]{{0,400}}?\${_HOLE}"),
    _sql(rf"\bformat!\(\s*\"{_STATEMENT}[^\"\n]{{0,300}}\{{|\bSprintf\(\s*\"{_STATEMENT}[^\"\n]{{0,300}}%[svdq]"),
    # eval, out
    _eval(rf"(?<![\w.])(?:eval|exec)\s*\(\s*(?:str\s*\(\s*|compile\s*\(\s*|f?['\"]\{{)?{_TAINTED}"),
    _eval(rf"\bnew\s+Function\s*\([^)\n]{{0,200}}?{_TAINTED}"),
    _eval(rf"\bos\.system\s*\(\s*{_FORMATTED}{_TAINTED}"),
    _eval(_RUN_LATER),
)
