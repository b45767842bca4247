"""Secrets and personal data out of text, before it is stored or shown to a coder.

Whatever is taken out leaves a placeholder that keeps the form, so that a transcript still reads and replays:
`ghp_REDACTEDk7q2`, `person-k7q2@redacted.example`. The same value has the same placeholder, and no rule matches one
again. Names and addresses of people have no form to be known by; they stay.

Every pattern is linear in the text: repetitions are bounded or possessive, and no two starts read the same stretch.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.model.transcript import Message, ToolCall, Transcript

_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
_PLACEHOLDER = re.compile(r"REDACTED[2-9a-z]{4}|\+999|0000-0000-0000-|redacted\.example")
_TEMPLATE = re.compile(
    r"[{}<>]|^[$%]|\$[{(]|%[sd(]|\*{3}|\.\.\.|x{4}|^(?:your|example|changeme|dummy|placeholder)"
    r"|^(?:my|the|some|test|fake)[-_. ]|^\d{4}-\d\d-\d\dT",
    re.I,
)
"""What stands in examples and in code where the value will be put."""
_WORDY = re.compile(r"(?:[A-Za-z]?[a-z]*+\d{0,5}+|[A-Z]*+\d{0,5}+|\d{1,4}[a-z]{0,3})(?:[-_/.:]|$)")
"""A part of a name, a path or a version, which words and small numbers make up."""
_PASSES = 5
KEY_CHARS = 6
LINE_CHARS = 8
"""Of one line of a key that has several."""


def _always(_: re.Match[str]) -> bool:
    return True


def _mixed(text: str) -> bool:
    """Letters and digits: words and plain numbers are not secrets."""
    return any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def _named(text: str) -> bool:
    """`refresh_token_v2`, `projects/desk/versions/2`: names hold letters and digits too."""
    at = 0
    while at < len(text):
        part = _WORDY.match(text, at)
        if part is None or part.end() == at:
            return False
        at = part.end()
    return True


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
    needs: tuple[str, ...] = ()
    """One of these must be in the text in small letters, or there is no match: to look for them costs little."""


_LITERAL = re.compile(r"[\w/=-]*")


def _token(kind: str, keep: str, secret: str, end: str = "", needs: tuple[str, ...] = ()) -> Rule:
    """A token that its maker gave a prefix of its own."""
    begins = [_LITERAL.match(each)[0].lower() for each in keep.split("|")]  # type: ignore[index]
    needs = needs or (tuple(begins) if all(begins) else ())
    return Rule(kind, re.compile(rf"(?<![A-Za-z0-9])(?:{keep})(?P<secret>{secret}){end}"), needs=needs)


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
    _token("Discord token", r"[MNO]", rf"{_URLSAFE}{{23,27}}\.{_URLSAFE}{{6}}\.{_URLSAFE}{{27,}}+", needs=(".",)),
    _token("Telegram token", r"\d{8,10}:", rf"AA{_URLSAFE}{{33}}", r"(?![\w-])", (":aa",)),
    _token("Anthropic key", r"sk-ant-", rf"{_URLSAFE}{{20,}}+"),
    _token("OpenRouter key", r"sk-or-", rf"{_URLSAFE}{{20,}}+"),
    Rule(
        "OpenAI key",
        re.compile(rf"(?<![A-Za-z0-9])sk-(?!ant-|or-)(?:proj-|svcacct-|admin-)?(?P<secret>{_URLSAFE}{{20,}}+)"),
        lambda match: _mixed(match["secret"]),
        needs=("sk-",),
    ),
    _token("Groq key", r"gsk_", rf"{_LETTERS}{{40,}}+"),
    _token("xAI key", r"xai-", rf"{_LETTERS}{{40,}}+"),
    _token("Google API key", r"AIza", rf"{_URLSAFE}{{35}}", r"(?![\w-])"),
    _token("Google OAuth token", r"ya29\.|1//0", rf"{_URLSAFE}{{20,}}+"),
    _token("Google OAuth secret", r"GOCSPX-", rf"{_URLSAFE}{{20,}}+"),
    _token("Stripe key", r"[sr]k_(?:live|test)_", rf"{_LETTERS}{{16,}}+", needs=("k_live_", "k_test_")),
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
    _token("Mailgun key", r"key-", r"[a-f0-9]{32}", _WORD_END),
    _token("Mailchimp key", r"", r"[a-f0-9]{32}-us\d{1,2}", _WORD_END, ("-us",)),
    _token("Square token", r"sq0[a-z]{3}-", rf"{_URLSAFE}{{22,}}+"),
    _token("New Relic key", r"NRA[KA]-|NRI[IQ]-|NRSP-", r"[A-Za-z0-9-]{20,}+"),
    _token("Postman key", r"PMAK-", r"[a-f0-9]{24}-[a-f0-9]{34}"),
    _token("Doppler token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.", r"[A-Za-z0-9._-]{30,}+"),
    _token("Terraform token", r"[A-Za-z0-9]{14}\.", rf"atlasv1\.{_URLSAFE}{{40,}}+", needs=("atlasv1",)),
    _token("Sentry token", r"sntry[us]_", r"[A-Za-z0-9_+/=-]{40,}+"),
    _token("Figma token", r"figd_", rf"{_URLSAFE}{{30,}}+"),
    _token("Airtable token", r"pat", rf"{_LETTERS}{{14}}\.[a-f0-9]{{64}}", _WORD_END),
    _token("Supabase token", r"sbp_", r"[a-f0-9]{40}", _WORD_END),
    _token("Replicate token", r"r8_", rf"{_LETTERS}{{30,}}+"),
    _token("PlanetScale token", r"pscale_(?:tkn|pw|oauth)_", rf"{_URLSAFE}{{30,}}+"),
    _token("Fly token", r"fm[12][abr]?_", r"[A-Za-z0-9+/=]{60,}+"),
    _token("Artifactory token", r"AKCp", rf"{_LETTERS}{{60,}}+"),
    _token("Dropbox token", r"sl\.", rf"{_URLSAFE}{{100,}}+"),
    _token("Netlify token", r"nfp_", rf"{_LETTERS}{{36,}}+"),
    _token("Pulumi token", r"pul-", r"[a-f0-9]{40}", _WORD_END),
    _token("Perplexity key", r"pplx-", rf"{_LETTERS}{{40,}}+"),
    _token("RubyGems key", r"rubygems_", r"[a-f0-9]{48}", _WORD_END),
    _token("Azure storage key", r"AccountKey=", r"[A-Za-z0-9+/]{80,}+={0,2}"),
    Rule(
        "JSON web token",
        re.compile(rf"(?<!{_URLSAFE})eyJ(?P<secret>{_URLSAFE}{{8,}}+\.eyJ{_URLSAFE}{{8,}}+(?:\.{_URLSAFE}*+)*+)"),
        needs=("eyj",),
    ),
)

_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}+://"
_QUOTE = r"\\{0,3}[\"'`]"
_KEYS = r"(?:api|access|private|secret|encryption|signing|master|service|auth|account|licen[cs]e|deploy|shared)"
_NAMED = rf"(?:secret|{_KEYS}[ _-]?key|token|credential)s?"
_PASSWORD = (
    r"(?:password|passwd|passphrase|passcode|pwd|(?<![a-z])(?:pw|pass)(?![a-z])"
    r"|passwort|kennwort|mot de passe|contrase[nñ]a|senha|wachtwoord|пароль|密码|パスワード)"
)
_NAMED_NEEDS = ("secret", "key", "token", "credential")
_PASSWORD_NEEDS = (
    "pass", "pwd", "pw", "kennwort", "contrase", "senha", "wachtwoord", "пароль", "密码", "パスワード",
)  # fmt: skip
_SET = rf"[\w-]{{0,20}}+(?:{_QUOTE})?\]?\s{{0,4}}+(?::=|=>|=|:)\s{{0,4}}+"
_VALUE = r"[^\s\"'`\\<>,;()\[\]{}]"
_SAID = (
    rf"(?:{_QUOTE}|,)?(?:\s{{1,3}}(?:which|is|was|are|has|been|now|set|changed|reset|rotated|to|still|ist|war|lautet|wurde"
    rf"|auf|est|es|é|è)(?=[\s:=])){{0,5}}+[\s:=,|*→]{{1,6}}+(?:{_QUOTE})?"
)
"""How people go on after `my password`."""
_COMMANDS = r"(?:mysql(?:dump|admin)?|sshpass|redis-cli|mongosh?|smbclient|ldapsearch)"


def _value_is_real(match: re.Match[str]) -> bool:
    return not _TEMPLATE.search(match["secret"])


def _value_is_random(match: re.Match[str]) -> bool:
    return _mixed(match["secret"]) and not _TEMPLATE.search(match["secret"])


def _key_in_words(match: re.Match[str]) -> bool:
    return _value_is_random(match) and not _named(match["secret"])


def _password_is_real(match: re.Match[str]) -> bool:
    """`password: required` is talk; `password=required` and `password: "required"` are not."""
    bare = match["secret"].isalpha() and not re.search(
        r"[=\"'`]\s*$", match[0][: match.start("secret") - match.start()]
    )
    return not bare and not _is_expression(match) and _value_is_real(match)


def _is_expression(match: re.Match[str]) -> bool:
    """`os.environ[`, `getpass(`: code that will know the password."""
    return (
        match.string[match.end("secret") :][:1] in ("(", "[") and re.fullmatch(r"[\w.]+", match["secret"]) is not None
    )


def _password_in_words(match: re.Match[str]) -> bool:
    secret = match["secret"].rstrip(".!?")
    return _mixed(secret) and not _is_expression(match) and _value_is_real(match)


def _key_is_real(match: re.Match[str]) -> bool:
    return sum(map(str.isalnum, match["secret"])) >= 40


_KEY = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

_SETTINGS = (
    Rule(
        "private key",
        re.compile(rf"{_KEY}(?P<secret>(?:[^-]++|-(?!----))++)(?=-----END )"),
        in_code=False,
        needs=("private key",),
    ),
    Rule(
        "private key",
        re.compile(rf"{_KEY}(?P<secret>(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{{16,}}+)++)"),
        in_code=False,
        needs=("private key",),
    ),
    Rule(
        "private key",
        re.compile(rf"{_KEY}(?P<secret>(?:[^-]++|-(?!----))++)"),
        _key_is_real,
        in_talk=False,
        needs=("private key",),
    ),
    Rule(
        "password in an address",
        re.compile(rf"{_SCHEME}[^\s/:@?#\"'<>]{{0,200}}+:(?P<secret>[^\s/\"'<>]{{1,200}})(?=@)"),
        lambda match: _value_is_real(match) and match["secret"].lower() not in ("password", "pass", "pwd", "secret"),
        needs=("://",),
    ),
    Rule(
        "token in an address",
        re.compile(rf"{_SCHEME}(?P<secret>{_URLSAFE}{{20,}}+)(?=@)"),
        _value_is_random,
        needs=("://",),
    ),
    Rule(
        "authorization header",
        re.compile(
            rf"(?i:authorization(?:{_QUOTE})?\s{{0,4}}+[:=]\s{{0,4}}+(?:{_QUOTE})?"
            r"(?:bearer|basic|token|digest|bot|api-?key)\s{1,4}+)(?P<secret>[A-Za-z0-9._~+/=:-]{8,}+)"
        ),
        _value_is_real,
        in_code=False,
        needs=("authorization",),
    ),
    Rule(
        "authorization header",
        re.compile(
            rf"(?i:authorization(?:{_QUOTE})?\s{{0,4}}+[:=]\s{{0,4}}+(?:{_QUOTE})?)(?P<secret>[A-Za-z0-9._~+/=:-]{{12,}}+)"
        ),
        _value_is_random,
        in_code=False,
        needs=("authorization",),
    ),
    Rule(
        "authorization header",
        re.compile(r"(?i:(?<![A-Za-z0-9])(?:bearer|basic)\s{1,4}+)(?P<secret>[A-Za-z0-9._~+/=-]{20,}+)"),
        _value_is_random,
        needs=("bearer", "basic"),
    ),
    Rule(
        "password",
        re.compile(rf"(?i:{_PASSWORD}{_SET}(?:{_QUOTE})?)(?P<secret>{_VALUE}{{4,}}+)"),
        _password_is_real,
        in_code=False,
        needs=_PASSWORD_NEEDS,
    ),
    Rule(
        "password",
        re.compile(rf"(?i:{_PASSWORD}{_SAID})(?P<secret>{_VALUE}{{5,}}+)"),
        _password_in_words,
        in_code=False,
        needs=_PASSWORD_NEEDS,
    ),
    Rule(
        "password",
        re.compile(
            rf"(?i:(?:password|passwort|kennwort)[^\n:=]{{1,40}}+[:=]\s{{0,4}}+(?:{_QUOTE})?)(?P<secret>(?!//){_VALUE}{{8,}}+)"
        ),
        _password_in_words,
        in_code=False,
        needs=_PASSWORD_NEEDS,
    ),
    Rule(
        "password",
        re.compile(
            rf"(?<!{_VALUE})(?P<secret>{_VALUE}{{8,}}+)"
            rf"(?i:(?=(?:{_QUOTE})?\s{{1,3}}(?:is|was|ist)\s(?:\w{{1,12}}\s){{0,3}}(?:{_PASSWORD}|{_NAMED})))"
        ),
        _key_in_words,
        in_code=False,
        needs=(*_PASSWORD_NEEDS, *_NAMED_NEEDS, "signature"),
    ),
    Rule(
        "password",
        re.compile(rf"(?i:<[\w:.-]{{0,20}}?(?:{_PASSWORD}|{_NAMED})>)(?P<secret>{_VALUE}{{4,}}+)(?=</)"),
        _value_is_random,
        needs=(*_PASSWORD_NEEDS, *_NAMED_NEEDS, "signature"),
    ),
    Rule(
        "password in a command",
        re.compile(
            rf"(?i:(?<![\w-]){_COMMANDS}(?![\w-])[^\n]{{0,100}}?\s-[apw][ =]?(?:{_QUOTE})?)(?P<secret>{_VALUE}{{4,}}+)"
        ),
        _value_is_random,
        needs=(" -",),
    ),
    Rule(
        "password in a command",
        re.compile(
            rf"(?i:(?<![\w-])curl\s[^\n]{{0,100}}?(?<=\s)(?:-u|--user)[ =]?(?:{_QUOTE})?[^\s:\"']{{1,60}}:)"
            rf"(?P<secret>{_VALUE}{{4,}}+)"
        ),
        _value_is_real,
        needs=("curl",),
    ),
    Rule(
        "named secret",
        re.compile(rf"(?i:{_NAMED}{_SET}(?:{_QUOTE})?)(?P<secret>{_VALUE}{{10,}}+)"),
        _key_in_words,
        in_code=False,
        needs=_NAMED_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(rf"(?i:{_NAMED}{_SAID})(?P<secret>{_VALUE}{{16,}}+)"),
        _key_in_words,
        in_code=False,
        needs=_NAMED_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(rf"(?i:{_NAMED}[^\n:=]{{1,40}}+[:=]\s{{0,4}}+(?:{_QUOTE})?)(?P<secret>(?!//){_VALUE}{{20,}}+)"),
        _key_in_words,
        in_code=False,
        needs=_NAMED_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(
            rf"(?i:(?<![a-z-])key(?:{_QUOTE})?\s{{0,4}}+[:=]\s{{0,4}}+(?:{_QUOTE})?)(?P<secret>{_VALUE}{{24,}}+)"
        ),
        _key_in_words,
        in_code=False,
        needs=_NAMED_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(rf"(?i:[?&#][\w-]{{0,20}}?(?:{_NAMED}|{_PASSWORD}|signature)=)(?P<secret>[\w.~%+/-]{{12,}}+)"),
        _key_in_words,
        needs=(*_PASSWORD_NEEDS, *_NAMED_NEEDS, "signature"),
    ),
    Rule(
        "session",
        re.compile(
            r"(?i:(?<![\w-])(?:[\w.-]{0,20}?(?:session|sess|sid|csrf|xsrf|jwt|remember)[\w.-]{0,20}+|auth)=)"
            r"(?P<secret>[\w.~%+/-]{20,}+)"
        ),
        _key_in_words,
        in_code=False,
        needs=("sess", "sid", "csrf", "xsrf", "jwt", "remember", "auth="),
    ),
    Rule(
        "password",
        re.compile(rf"(?i:{_PASSWORD}{_SET}{_QUOTE})(?P<secret>{_VALUE}{{8,}}+)(?={_QUOTE})"),
        _value_is_random,
        in_talk=False,
        needs=_PASSWORD_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(
            rf"(?i:{_NAMED}(?:{_SET}|[\w-]{{0,20}}+{_QUOTE}\s{{0,4}}+,\s{{0,4}}+)[bru]{{0,2}}{_QUOTE})"
            rf"(?P<secret>{_VALUE}{{16,}}+)(?={_QUOTE})"
        ),
        _key_in_words,
        in_talk=False,
        needs=_NAMED_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(
            rf"(?i:^\+?[ \t]{{0,40}}+(?:export )?[\w.-]{{0,40}}?{_NAMED}[\w-]{{0,20}}+[ \t]{{0,4}}+[:=][ \t]{{0,4}}+)"
            r"(?P<secret>[\w+/=-]{20,}+)[ \t]{0,4}$",
            re.M,
        ),
        _key_in_words,
        in_talk=False,
        needs=_NAMED_NEEDS,
    ),
    Rule(
        "named secret",
        re.compile(
            rf"(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY)[A-Z0-9_]{{0,20}}+=(?P<secret>{_VALUE}{{8,}}+)$",
            re.M,
        ),
        _value_is_random,
        in_talk=False,
        needs=(*_PASSWORD_NEEDS, *_NAMED_NEEDS),
    ),
)


def _luhn(match: re.Match[str]) -> bool:
    digits = [int(letter) for letter in match["secret"] if letter.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(digits) in (15, 16) and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


_IBANS = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST",
    26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU",
    31: "MT SC", 32: "LC",
}  # fmt: skip
"""How long a country's are. What follows one in a sentence is no part of it."""
_IBAN = "|".join(rf"(?:{'|'.join(codes.split())})\d{{2}}(?: ?[A-Z0-9]){{{size - 4}}}" for size, codes in _IBANS.items())


def _iban(match: re.Match[str]) -> bool:
    plain = match["secret"].replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


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


_START, _GAP = r"(?:(?<![\w.+:/-])|(?<=[A-Za-z]:))", r"[ .\-/()]{0,2}"

_DIGITS = tuple("0123456789")

_PERSONAL = (
    Rule("IBAN", re.compile(rf"(?<!\w)(?P<secret>(?i:{_IBAN}))(?!\w)", re.A), _iban, needs=_DIGITS),
    Rule(
        "card number", re.compile(r"(?<![\w.+-])(?P<secret>(?:[3-6]\d|2[2-7])\d{2}(?:[ -]?\d){11,12})(?![\w-])"), _luhn
    ),
    Rule(
        "e-mail address",
        re.compile(r"(?<![\w.%+-])(?P<secret>[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w-])"),
        _email_is_real,
        needs=("@",),
    ),
    Rule(
        "phone number",
        re.compile(rf"{_START}(?P<secret>\+[1-9](?:{_GAP}\d){{8,14}})(?![\w-])"),
        _phone_is_real,
        needs=_DIGITS,
    ),
    Rule(
        "phone number",
        re.compile(rf"{_START}(?P<secret>00[1-9]\d{{0,2}}[ .\-/](?:{_GAP}\d){{6,12}})(?![\w-])"),
        _phone_is_real,
        needs=_DIGITS,
    ),
    Rule(
        "phone number",
        re.compile(
            rf"{_START}(?P<secret>(?:\(\d{{3}}\) ?\d{{3}}-|\d{{3}}-\d{{3}}-|\d{{3}}\.\d{{3}}\.)\d{{4}})(?![\w.-])"
        ),
        _phone_is_real,
        needs=_DIGITS,
    ),
    Rule(
        "phone number",
        re.compile(rf"{_START}(?P<secret>0[1-9](?:([ .-])\d\d)(?:\2\d\d){{3}})(?![\w-])"),
        _phone_is_real,
        needs=_DIGITS,
    ),
    Rule(
        "phone number",
        re.compile(rf"{_START}(?P<secret>\(?0[1-9]\d{{1,4}}\)?[ /-]\d{{2,8}}(?:[ -]\d{{2,6}}){{0,3}})(?![\w-])"),
        _phone_is_real,
        needs=_DIGITS,
    ),
)

RULES = (*_TOKENS, *_SETTINGS, *_PERSONAL)
_IN_TALK = tuple(rule for rule in RULES if rule.in_talk)
_OVER_LINES = tuple(rule for rule in _IN_TALK if rule.kind == "private key")
_PIECE_CHARS = 8_000


def _pieces(text: str) -> Iterator[str]:
    """Whole lines, so many that they are about as long as a piece."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + _PIECE_CHARS) + 1
        if not end:
            end = text.find("\n", start + _PIECE_CHARS) + 1 or len(text)
        yield text[start:end]
        start = end


def without_values(text: str, secrets: Mapping[str, str]) -> str:
    """What a program says may hold the keys that it was given; each becomes its own name. A value of a few letters is
    no key, and taking it out would spoil every other word."""
    forms = {form: name for name, value in secrets.items() for form in _forms(value)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, f"[{forms[form]}]")
    return text


def values_in(text: str, secrets: Mapping[str, str]) -> list[str]:
    """The names of those whose values stand in a text."""
    return [name for name, value in secrets.items() if any(form in text for form in _forms(value))]


def _forms(value: str) -> set[str]:
    """A value, and each long line of it: as it is, and as it is written in code or JSON, and in JSON within JSON."""
    forms = {value} if len(value) >= KEY_CHARS else set()
    forms |= {line.strip() for line in value.splitlines() if len(line.strip()) >= LINE_CHARS}
    for _ in range(2):
        written = [(repr(each), json.dumps(each), json.dumps(each, ensure_ascii=False)) for each in forms]
        forms |= {quoted[1:-1] for ways in written for quoted in ways}
    return forms


class Redactor:
    """One per batch. Its salt keeps two batches from being joined by the placeholders in them. `secrets` are known by
    their values, whatever they look like."""

    def __init__(self, salt: str = "", secrets: Mapping[str, str] | None = None) -> None:
        self._salt = salt
        self._secrets = secrets or {}

    def text(self, text: str) -> str:
        """Long texts go line by line, some at once: most rules have nothing to do with most lines."""
        text = without_values(text, self._secrets)
        if len(text) <= _PIECE_CHARS:
            return self._clean(text, _IN_TALK)
        return "".join(self._clean(piece, _IN_TALK) for piece in _pieces(self._clean(text, _OVER_LINES)))

    def _clean(self, text: str, rules: Sequence[Rule]) -> str:
        """Once more after each finding: what was taken out may have hidden what stands beside it."""
        for _ in range(_PASSES):
            before, small = text, text.lower()
            for rule in rules:
                if not rule.needs or any(each in small for each in rule.needs):
                    text = rule.pattern.sub(partial(self._replaced, rule), text)
            if text == before:
                break
        return text

    def file(self, path: Path) -> None:
        """What a program wrote, once it has written it. A file that is not there is left so."""
        with contextlib.suppress(FileNotFoundError):
            text = path.read_bytes().decode("utf-8", "replace")
            clean = self.text(text)
            if clean != text:
                path.write_text(clean, encoding="utf-8")

    def values(self, found: Any) -> Any:
        """JSON with every text in it redacted; the keys stay."""
        match found:
            case str():
                return self.text(found)
            case list():
                return [self.values(each) for each in found]
            case dict():
                return {key: self.values(each) for key, each in found.items()}
            case _:
                return found

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
    small = text.lower()
    found = {
        rule.kind
        for rule in (*_TOKENS, *_SETTINGS)
        if rule.in_code
        and (not rule.needs or any(each in small for each in rule.needs))
        and any(not _PLACEHOLDER.fullmatch(m["secret"]) and rule.real(m) for m in rule.pattern.finditer(text))
    }
    return sorted(found)
