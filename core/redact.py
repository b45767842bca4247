"""Secrets and personal data out of text, before it is stored or shown to a coder.

Whatever is taken out leaves a placeholder that keeps the form, so that a transcript still reads and replays:
`ghp_REDACTEDk7q2`, `person-k7q2@redacted.example`. The same value has the same placeholder, and no rule matches one
again. Names and addresses of people have no form to be known by; they stay.

Every pattern is linear in the text: repetitions are bounded or possessive, and no two starts read the same stretch.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from core.model.transcript import Message, ToolCall, Transcript

_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
_PLACEHOLDER = re.compile(r"REDACTED[2-9a-z]{4}|\+999|0000-0000-0000-|redacted\.example")
_TEMPLATE = re.compile(
    r"[{}<>$%*]|\.\.\.|x{4}|^(?:your|my|the|some|example|changeme|dummy|test|fake|placeholder)", re.I
)
"""What stands in examples and in code where the value will be put."""
_PASSES = 5
KEY_CHARS = 6


def _always(_: re.Match[str]) -> bool:
    return True


def _mixed(text: str) -> bool:
    """Letters and digits: words and plain numbers are not secrets."""
    return any(map(str.isdigit, text)) and any(map(str.isalpha, text))


@dataclass(frozen=True, slots=True)
class Rule:
    """The group `secret` of a match is replaced, and the rest of it stays."""

    kind: str
    pattern: re.Pattern[str]
    real: Callable[[re.Match[str]], bool] = _always
    """Tells a match from a look-alike."""
    in_talk: bool = True
    in_code: bool = True
    """Counts in a diff too. What people type is caught more freely than what a program may hold."""


def _token(kind: str, keep: str, secret: str, end: str = "") -> Rule:
    """A token that its maker gave a prefix of its own."""
    return Rule(kind, re.compile(rf"(?<![A-Za-z0-9])(?:{keep})(?P<secret>{secret}){end}"))


_WORD_END = r"(?![A-Za-z0-9])"
_LETTERS = r"[A-Za-z0-9]"
_URLSAFE = r"[A-Za-z0-9_-]"

_TOKENS = (
    _token("AWS access key", r"AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9]", r"[A-Z0-9]{16}", _WORD_END),
    _token("GitHub token", r"gh[pousr]_", rf"{_LETTERS}{{36,}}+"),
    _token("GitHub token", r"github_pat_", r"[A-Za-z0-9_]{22,}+"),
    _token("GitLab token", r"gl(?:pat|dt|rt|ptt|ft|soat)-", rf"{_URLSAFE}{{20,}}+"),
    _token("Slack token", r"xox[abeoprs]-|xoxe\.xox[bp]-\d-|xapp-\d-", r"[A-Za-z0-9-]{14,}+"),
    _token("Slack webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/", r"[A-Za-z0-9/_-]{20,}+"),
    _token("Discord webhook", r"discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{5,25}/", rf"{_URLSAFE}{{30,}}+"),
    _token("Discord token", r"[MNO]", rf"{_URLSAFE}{{23,27}}\.{_URLSAFE}{{6}}\.{_URLSAFE}{{27,}}+"),
    _token("Telegram token", r"\d{8,10}:", rf"AA{_URLSAFE}{{33}}", r"(?![\w-])"),
    _token("Anthropic key", r"sk-ant-", rf"{_URLSAFE}{{20,}}+"),
    _token("OpenRouter key", r"sk-or-", rf"{_URLSAFE}{{20,}}+"),
    Rule(
        "OpenAI key",
        re.compile(rf"(?<![A-Za-z0-9])sk-(?!ant-|or-)(?:proj-|svcacct-|admin-)?(?P<secret>{_URLSAFE}{{20,}}+)"),
        lambda match: _mixed(match["secret"]),
    ),
    _token("Groq key", r"gsk_", rf"{_LETTERS}{{40,}}+"),
    _token("xAI key", r"xai-", rf"{_LETTERS}{{40,}}+"),
    _token("Google API key", r"AIza", rf"{_URLSAFE}{{35}}", r"(?![\w-])"),
    _token("Google OAuth token", r"ya29\.|1//0", rf"{_URLSAFE}{{20,}}+"),
    _token("Google OAuth secret", r"GOCSPX-", rf"{_URLSAFE}{{20,}}+"),
    _token("Stripe key", r"[sr]k_(?:live|test)_", rf"{_LETTERS}{{16,}}+"),
    _token("Stripe webhook secret", r"whsec_", r"[A-Za-z0-9+/=]{20,}+"),
    _token("npm token", r"npm_", rf"{_LETTERS}{{36,}}+"),
    _token("PyPI token", r"pypi-", rf"AgEIcHlwaS5vcmc{_URLSAFE}{{30,}}+"),
    _token("Hugging Face token", r"hf_", rf"{_LETTERS}{{30,}}+"),
    _token("Docker token", r"dckr_(?:pat|oat)_", rf"{_URLSAFE}{{20,}}+"),
    _token("DigitalOcean token", r"do[opr]_v1_", r"[a-f0-9]{64}", _WORD_END),
    _token("SendGrid key", r"SG\.", rf"{_URLSAFE}{{16,32}}\.{_URLSAFE}{{16,}}+"),
    _token("Twilio key", r"SK", r"[0-9a-f]{32}", _WORD_END),
    _token("Shopify token", r"shp(?:at|ca|pa|ss)_", r"[a-fA-F0-9]{32,}+"),
    _token("Atlassian token", r"ATATT3", r"[A-Za-z0-9_=-]{40,}+"),
    _token("Databricks token", r"dapi", r"[a-f0-9]{32}", _WORD_END),
    _token("Vault token", r"hv[sbr]\.", rf"{_URLSAFE}{{24,}}+"),
    _token("Grafana token", r"glsa_|glc_", r"[A-Za-z0-9_+/=]{30,}+"),
    _token("Notion token", r"ntn_", rf"{_LETTERS}{{40,}}+"),
    _token("Linear key", r"lin_api_", rf"{_LETTERS}{{32,}}+"),
    _token("age key", r"AGE-SECRET-KEY-1", r"[A-Z0-9]{50,}+"),
    _token("Azure storage key", r"AccountKey=", r"[A-Za-z0-9+/]{80,}+={0,2}"),
    Rule(
        "JSON web token",
        re.compile(rf"(?<!{_URLSAFE})eyJ(?P<secret>{_URLSAFE}{{8,}}+\.eyJ{_URLSAFE}{{8,}}+(?:\.{_URLSAFE}*+)*+)"),
    ),
)

_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}+://"
_QUOTE = r"\\{0,3}[\"'`]"
_NAMED = r"(?:secret|api[_-]?key|access[_-]?key|private[_-]?key|token|credential)s?"
_PASSWORD = r"(?:password|passwd|passphrase|pwd)"
_SET = rf"[\w-]{{0,20}}+(?:{_QUOTE})?\s{{0,4}}+(?::=|=>|=|:)\s{{0,4}}+"
_VALUE = r"[^\s\"'`\\<>,;()\[\]{}]"


def _value_is_real(match: re.Match[str]) -> bool:
    return not _TEMPLATE.search(match["secret"])


def _value_is_random(match: re.Match[str]) -> bool:
    return _mixed(match["secret"]) and not _TEMPLATE.search(match["secret"])


def _password_is_real(match: re.Match[str]) -> bool:
    """`password: required` is talk; `password=required` and `password: "required"` are not."""
    bare = match["secret"].isalpha() and not re.search(
        r"[=\"'`]\s*$", match[0][: match.start("secret") - match.start()]
    )
    return not bare and _value_is_real(match)


def _key_is_real(match: re.Match[str]) -> bool:
    return sum(map(str.isalnum, match["secret"])) >= 40


_KEY = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

_SETTINGS = (
    Rule("private key", re.compile(rf"{_KEY}(?P<secret>(?:[^-]++|-(?!----))++)(?=-----END )"), in_code=False),
    Rule("private key", re.compile(rf"{_KEY}(?P<secret>(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{{16,}}+)++)"), in_code=False),
    Rule("private key", re.compile(rf"{_KEY}(?P<secret>(?:[^-]++|-(?!----))++)"), _key_is_real, in_talk=False),
    Rule(
        "password in an address",
        re.compile(rf"{_SCHEME}[^\s/:@?#\"'<>]{{0,200}}+:(?P<secret>[^\s/\"'<>]{{1,200}})(?=@)"),
        lambda match: _value_is_real(match) and match["secret"].lower() not in ("password", "pass", "pwd", "secret"),
    ),
    Rule("token in an address", re.compile(rf"{_SCHEME}(?P<secret>{_URLSAFE}{{20,}}+)(?=@)"), _value_is_random),
    Rule(
        "authorization header",
        re.compile(
            rf"(?i:authorization(?:{_QUOTE})?\s{{0,4}}+[:=]\s{{0,4}}+(?:{_QUOTE})?"
            r"(?:bearer|basic|token|digest|bot|api-?key)\s{1,4}+)(?P<secret>[A-Za-z0-9._~+/=:-]{8,}+)"
        ),
        _value_is_real,
        in_code=False,
    ),
    Rule(
        "authorization header",
        re.compile(
            rf"(?i:authorization(?:{_QUOTE})?\s{{0,4}}+[:=]\s{{0,4}}+(?:{_QUOTE})?)(?P<secret>[A-Za-z0-9._~+/=:-]{{12,}}+)"
        ),
        _value_is_random,
        in_code=False,
    ),
    Rule(
        "authorization header",
        re.compile(r"(?i:(?<![A-Za-z0-9])(?:bearer|basic)\s{1,4}+)(?P<secret>[A-Za-z0-9._~+/=-]{20,}+)"),
        _value_is_random,
    ),
    Rule(
        "password",
        re.compile(rf"(?i:{_PASSWORD}{_SET}(?:{_QUOTE})?)(?P<secret>{_VALUE}{{4,}}+)"),
        _password_is_real,
        in_code=False,
    ),
    Rule(
        "named secret",
        re.compile(rf"(?i:{_NAMED}{_SET}(?:{_QUOTE})?)(?P<secret>{_VALUE}{{10,}}+)"),
        _value_is_random,
        in_code=False,
    ),
    Rule(
        "password",
        re.compile(rf"(?i:{_PASSWORD}{_SET}{_QUOTE})(?P<secret>{_VALUE}{{8,}}+)(?={_QUOTE})"),
        _value_is_random,
        in_talk=False,
    ),
    Rule(
        "named secret",
        re.compile(rf"(?i:{_NAMED}{_SET}{_QUOTE})(?P<secret>{_VALUE}{{16,}}+)(?={_QUOTE})"),
        _value_is_random,
        in_talk=False,
    ),
    Rule(
        "named secret",
        re.compile(
            rf"(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY)[A-Z0-9_]{{0,20}}+=(?P<secret>{_VALUE}{{8,}}+)$",
            re.M,
        ),
        _value_is_random,
        in_talk=False,
    ),
)


def _luhn(match: re.Match[str]) -> bool:
    digits = [int(letter) for letter in match["secret"] if letter.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(digits) in (15, 16) and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _iban(match: re.Match[str]) -> bool:
    plain = match["secret"].replace(" ", "")
    number = "".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])
    return 15 <= len(plain) <= 34 and int(number) % 97 == 1


def _email_is_real(match: re.Match[str]) -> bool:
    local, _, domain = match["secret"].lower().partition("@")
    last = domain.rpartition(".")[2]
    return (
        domain != "redacted.example"
        and local != "git"
        and "redacted" not in local
        and last not in ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json", "md", "txt")
    )


def _phone_is_real(match: re.Match[str]) -> bool:
    number = match["secret"]
    return not number.startswith("+999") and 9 <= sum(map(str.isdigit, number)) <= 15


_START, _GAP = r"(?<![\w.+:/-])", r"[ .\-/()]{0,2}"

_PERSONAL = (
    Rule(
        "IBAN", re.compile(r"(?<!\w)(?P<secret>[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?!\w)"), _iban
    ),
    Rule("card number", re.compile(r"(?<![\w.+-])(?P<secret>[3-6]\d{3}(?:[ -]?\d){11,12})(?![\w-])"), _luhn),
    Rule(
        "e-mail address",
        re.compile(r"(?<![\w.%+-])(?P<secret>[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w-])"),
        _email_is_real,
    ),
    Rule("phone number", re.compile(rf"{_START}(?P<secret>\+[1-9](?:{_GAP}\d){{8,14}})(?![\w-])"), _phone_is_real),
    Rule(
        "phone number",
        re.compile(rf"{_START}(?P<secret>00[1-9]\d{{0,2}}[ .\-/](?:{_GAP}\d){{6,12}})(?![\w-])"),
        _phone_is_real,
    ),
    Rule(
        "phone number",
        re.compile(
            rf"{_START}(?P<secret>(?:\(\d{{3}}\) ?\d{{3}}-|\d{{3}}-\d{{3}}-|\d{{3}}\.\d{{3}}\.)\d{{4}})(?![\w.-])"
        ),
        _phone_is_real,
    ),
    Rule(
        "phone number",
        re.compile(rf"{_START}(?P<secret>\(?0[1-9]\d{{1,4}}\)?[ /-]\d{{2,8}}(?:[ -]\d{{2,6}}){{0,3}})(?![\w-])"),
        _phone_is_real,
    ),
)

RULES = (*_TOKENS, *_SETTINGS, *_PERSONAL)


def without_values(text: str, secrets: Mapping[str, str]) -> str:
    """What a program says may hold the keys that it was given; each becomes its own name. A value of a few letters is
    no key, and taking it out would spoil every other word."""
    for name, value in secrets.items():
        if len(value) >= KEY_CHARS:
            text = text.replace(value, f"[{name}]")
    return text


class Redactor:
    """One per batch. Its salt keeps two batches from being joined by the placeholders in them."""

    def __init__(self, salt: str = "") -> None:
        self._salt = salt

    def text(self, text: str) -> str:
        """Once more after each finding: what was taken out may have hidden what stands beside it."""
        for _ in range(_PASSES):
            before = text
            for rule in RULES:
                if rule.in_talk:
                    text = rule.pattern.sub(partial(self._replaced, rule), text)
            if text == before:
                break
        return text

    def transcript(self, transcript: Transcript) -> Transcript:
        return Transcript(messages=tuple(self.message(message) for message in transcript.messages))

    def message(self, message: Message) -> Message:
        return message.model_copy(
            update={
                "content": self.text(message.content),
                "who": self._maybe(message.who),
                "error": self._maybe(message.error),
                "tool_calls": tuple(self._call(call) for call in message.tool_calls),
            }
        )

    def _call(self, call: ToolCall) -> ToolCall:
        return ToolCall(
            name=self.text(call.name),
            arguments=self.text(call.arguments),
            result=self.text(call.result),
            error=self._maybe(call.error),
        )

    def _maybe(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def _replaced(self, rule: Rule, match: re.Match[str]) -> str:
        secret = match["secret"]
        if _PLACEHOLDER.search(secret) or not rule.real(match):
            return match[0]
        start, end = match.start("secret") - match.start(), match.end("secret") - match.start()
        return match[0][:start] + self._placeholder(rule.kind, secret) + match[0][end:]

    def _placeholder(self, kind: str, value: str) -> str:
        digest = hashlib.sha256(f"{self._salt}\0{value.casefold() if '@' in value else value}".encode(errors="replace"))
        number = int.from_bytes(digest.digest()[:8])
        if kind == "phone number":
            return f"+999 {number % 10**7:07d}"
        if kind == "card number":
            return f"0000-0000-0000-{number % 10**4:04d}"
        tag = ""
        for _ in range(4):
            number, letter = divmod(number, len(_ALPHABET))
            tag += _ALPHABET[letter]
        if kind == "e-mail address":
            return f"person-{tag}@redacted.example"
        return f"REDACTED{tag}"


def secrets_in(text: str) -> list[str]:
    """The kinds of secrets in a text, never the secrets. Personal data do not count: code may name its author."""
    found = {
        rule.kind
        for rule in (*_TOKENS, *_SETTINGS)
        if rule.in_code
        and any(not _PLACEHOLDER.fullmatch(m["secret"]) and rule.real(m) for m in rule.pattern.finditer(text))
    }
    return sorted(found)
