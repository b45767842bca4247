"""Secrets and personal data out of text: what is taken, what stays, and how long it takes."""

import json
import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.model.transcript import Message, ToolCall, Transcript
from core.redact import RULES, Redactor, secrets_in, values_in, without_values

# Put together here, so that no scanner takes this file for a leak.
A36 = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
HEX32 = "0123456789abcdef" * 2
TOKENS = {
    "AWS access key": "AKIA" + "QWERTYUIOP123456",
    "GitHub token": "ghp_" + A36,
    "GitLab token": "glpat-" + A36[:20],
    "Slack token": "xoxb-" + "123456789012-" + A36,
    "Slack webhook": "https://hooks.slack.com/services/" + "T00000000/B00000000/" + A36[:24],
    "Discord webhook": "https://discord.com/api/webhooks/" + "123456789012345678/" + A36,
    "Discord token": "M" + A36[:23] + "." + "Gx1yZ2" + "." + A36[:27],
    "Telegram token": "123456789:" + "AA" + A36[:33],
    "Anthropic key": "sk-ant-" + "api03-" + A36,
    "OpenRouter key": "sk-or-" + "v1-" + A36,
    "OpenAI key": "sk-proj-" + A36,
    "Groq key": "gsk_" + A36 + A36,
    "xAI key": "xai-" + A36 + A36,
    "Google API key": "AIza" + A36[:35],
    "Google OAuth token": "ya29." + A36,
    "Google OAuth secret": "GOCSPX-" + A36[:28],
    "Stripe key": "sk_live_" + A36[:24],
    "Stripe webhook secret": "whsec_" + A36,
    "npm token": "npm_" + A36,
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" + A36 + A36,
    "Hugging Face token": "hf_" + A36[:34],
    "Docker token": "dckr_pat_" + A36[:27],
    "DigitalOcean token": "dop_v1_" + HEX32 + HEX32,
    "SendGrid key": "SG." + A36[:22] + "." + A36 + A36[:7],
    "Twilio key": "SK" + HEX32,
    "Shopify token": "shpat_" + HEX32,
    "Atlassian token": "ATATT3" + A36 + A36,
    "Databricks token": "dapi" + HEX32,
    "Vault token": "hvs." + A36,
    "Grafana token": "glsa_" + A36,
    "Notion token": "ntn_" + A36 + A36[:10],
    "Linear key": "lin_api_" + A36 + "abcd",
    "age key": "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" + "QPZRY9X8GF2TVDW0S3JN54KHCE",
    "Azure storage key": "AccountKey=" + (A36 * 3)[:86] + "==",
    "JSON web token": "eyJ" + A36 + ".eyJ" + A36 + "." + A36,
}
PRIVATE_KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + f"{A36}{A36}\n" * 4 + "-----END RSA PRIVATE KEY-----"

OTHER_SECRETS = {
    "private key": PRIVATE_KEY,
    "password in an address": "postgres://anna:s3cr3t-word@db.internal/desk",
    "token in an address": f"https://{A36}@git.internal/agent.git",
    "authorization header": f"curl -H 'Authorization: Bearer {A36}'",
    "password": 'password = "hunter2-hunter3"',
    "named secret": f'"client_secret": "{A36}"',
}


@pytest.mark.parametrize(("kind", "token"), TOKENS.items())
def test_a_token_of_a_known_maker_is_taken_out_and_its_prefix_stays(kind: str, token: str) -> None:
    text = f"use {token} please"
    redacted = Redactor().text(text)
    assert redacted.startswith("use ")
    assert redacted.endswith(" please")
    assert "REDACTED" in redacted
    assert token[-12:] not in redacted
    assert token[:2] == redacted[4:6] or kind == "Discord token"
    assert secrets_in(text) == [kind]
    assert secrets_in(redacted) == []


@pytest.mark.parametrize(("kind", "text"), OTHER_SECRETS.items())
def test_other_secrets_are_known_by_where_they_stand(kind: str, text: str) -> None:
    assert kind in secrets_in(text)
    redacted = Redactor().text(text)
    assert redacted != text
    assert secrets_in(redacted) == []


@pytest.mark.parametrize(
    ("text", "gone", "stays"),
    [
        ("postgres://anna:s3cr3t@db/desk", "s3cr3t", "postgres://anna:REDACTED"),
        ("redis://:p@ss@w0rd@db:6379/0", "ss@w0rd", "redis://:REDACTED"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz", "Authorization: Basic REDACTED"),
        ('{"authorization": "tok3nT0k3nt0ken"}', "tok3nT0k3nt0ken", '{"authorization": "REDACTED'),
        ("X-Api-Key: 1234567890abcdef", "1234567890abcdef", "X-Api-Key: REDACTED"),
        ("DB_PASSWORD=correcthorse", "correcthorse", "DB_PASSWORD=REDACTED"),
        (r"{\"password\": \"hunter2\"}", "hunter2", r"{\"password\": \"REDACTED"),
        ("Passwort? password: hunter2!", "hunter2", "password: REDACTED"),
        (f"-----BEGIN PRIVATE KEY-----\\n{A36}\\n{A36}", A36, "-----BEGIN PRIVATE KEY-----REDACTED"),
        ("mail Anna.Berg+x@Example.co.uk now", "Berg", "mail person-"),
        ("<mailto:anna@example.org|anna@example.org>", "anna", "<mailto:person-"),
        ("jürgen@müller.example wrote", "müller", "person-"),
        ("call +49 151 2345 6789.", "2345", "call +999 "),
        ("call +1 (555) 123-4567 now", "4567", "call +999 "),
        ("call (555) 123-4567", "4567", "call +999 "),
        ("call 555-123-4567", "4567", "call +999 "),
        ("Tel. 0151 23456789", "23456789", "Tel. +999 "),
        ("Tel. 0049 151 23456789", "23456789", "Tel. +999 "),
        ("IBAN DE89 3704 0044 0532 0130 00", "3704", "IBAN REDACTED"),
        ("card 4111 1111 1111 1111 ok", "4111", "card 0000-0000-0000-"),
    ],
)
def test_secrets_and_people_are_taken_out_of_what_people_type(text: str, gone: str, stays: str) -> None:
    redacted = Redactor().text(text)
    assert gone not in redacted
    assert stays in redacted


LOOK_ALIKES = [
    "commit 0a443381d8ce1a191775fd5a7dcda5d9fbd73284",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "ticket 1234567890, order #00123456789, ABC-1234567",
    "on 2026-01-05 at 09:30:15+02:00, 05.01.2026, 01/05/2026 and 2026-01-05T09:30:15.123456Z",
    "version 1.20.333.4444, v2.0.0-rc.1, python 3.11",
    "10.0.0.1 and 192.168.100.200:8080, fe80::1ff:fe23:4567:890a",
    "1700000000 1700000000123 3.14159265358979 1,234,567.89",
    "git@github.com:acme/agent.git and logo@2x.png and @types/node@18.1.0 and pkg@1.2.3",
    "max_tokens: 4096, token: ok, secret: yes, the password: required",
    "password: str, api_key: str | None = None, token = get_token()",
    "Authorization: required; bearer authentication-is-required-here-for-everybody",
    "https://example.org:8443/path?user=anna and https://anna@host",
    "postgres://user:${DB_PASSWORD}@host/db and postgres://user:{password}@host/db",
    "sk-this-is-a-very-long-css-class-name",
    "call me maybe: 12-34, 5 of 10, 100 200 3000",
    "model gpt-4o-2024-08-06, temperature 0.7",
    "risk-assessment-of-the-whole-thing-for-everybody-1234567890",
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_stay(text: str) -> None:
    assert Redactor().text(text) == text
    assert secrets_in(text) == []


@pytest.mark.parametrize(
    "line",
    [
        'password = os.environ["DB_PASSWORD_2"]',
        "token = settings.token_v2",
        'headers = {"Authorization": f"Bearer {token}"}',
        "connect(user=user, password=password1)",
        'api_key: str = Field(alias="OPENAI_API_KEY")',
        'raise ValueError("password must have 8 characters")',
        "author = 'anna@example.org'  # call +49 151 2345 6789",
        'PASSWORD="your-password-1234"',
        "Authorization: Bearer <your-token-12345678901234>",
        "TOKEN=${CI_TOKEN_2}",
        "url = 'postgres://user:password@localhost/test'",
        "const h = { authorization: getAuthHeaderV2() }",
    ],
)
def test_code_may_speak_of_secrets_and_of_people(line: str) -> None:
    assert secrets_in(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "DB_PASSWORD=hunter2hunter2",
        "export API_KEY=1234567890abcdef",
        "  'token': 'abcdef1234567890'",
        'pwd: "s3cr3t-s3cr3t"',
    ],
)
def test_code_may_not_hold_a_secret_under_its_name(line: str) -> None:
    assert len(secrets_in(f"x = 1\n{line}\ny = 2\n")) == 1


def test_the_same_value_has_the_same_placeholder_and_another_value_another() -> None:
    redactor = Redactor("slack/acme/help")
    first, again, other = (redactor.text(f"mail {name}@example.org") for name in ("anna", "Anna", "ben"))
    assert first == again != other
    assert Redactor("slack/acme/help").text("mail anna@example.org") == first
    assert Redactor("slack/acme/sales").text("mail anna@example.org") != first


def test_all_texts_of_a_transcript_are_redacted_and_the_rest_of_it_stays() -> None:
    token, mail = TOKENS["GitHub token"], "anna@example.org"
    message = Message(
        role="assistant",
        content=f"I used {token}.",
        id="17.2",
        who=mail,
        tool_calls=(ToolCall(name="mail", arguments=json.dumps({"to": mail}), result=token, error=f"401 {token}"),),
        agent_version="v1",
        error=f"failed with {token}",
    )
    redacted = Redactor().transcript(Transcript(messages=(message,)))
    text = redacted.to_json()
    assert token not in text
    assert mail not in text
    (after,) = redacted.messages
    assert (after.role, after.id, after.agent_version) == ("assistant", "17.2", "v1")
    assert json.loads(after.tool_calls[0].arguments)["to"] == after.who


EVERYTHING = [*TOKENS.values(), *OTHER_SECRETS.values(), *LOOK_ALIKES, "anna@example.org", "+49 151 2345 6789"]


@given(
    st.lists(st.sampled_from(EVERYTHING) | st.text(string.printable, max_size=20), max_size=6),
    st.sampled_from(["", " ", "\n", '"', "=", ":", "@", "-", "/", "password=", "Bearer "]),
)
@settings(max_examples=300, deadline=None)
def test_what_was_redacted_once_stays_as_it_is(parts: list[str], between: str) -> None:
    once = Redactor().text(between.join(parts))
    assert Redactor().text(once) == once


def hostile() -> dict[str, str]:
    """A rule needs thousandths of a second for each, and what is not linear seconds."""
    size = 25_000
    some = random.Random(7)
    pieces = (
        "a", "0", "-", "_", ".", "@", " ", "\n", "=", "a.", "a@", "@a.", "a-a@a.", "+1", "+1 ", "0 ", "00", "01 ", "A1",
        "4 ", "(555) ", "DE89", "4111-", "-----", "----BEGIN ", "eyJ", "-eyJaaaaaaaa", "eyJaaaaaaaa.",
        "eyJaaaaaaaa.eyJ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n" + "A" * 64 + "\n", "a://",
        "a://a:", "a://a:a", "a://a:b@", "password", "password=", "password:", 'password": "', "password_", "token_",
        "secret-", "bearer ", "Authorization: ",
        "authorization", "Bearer a", "pw ", "password is ", "password is", "api key ", "api key, ", "key: ", "curl ",
        "curl -u ", "curl -u a:", "mysql -p", "mysql ", "session=", "session", "?token=", "<password>", "a is ",
        "a1 is my ", "DE12 ", "de12", "06 12", "06 ", "tel:+4", "key-", "0a", "pat", "dp.st.", "export token",
        "token=a\n",
        "password\"]", "| ", "**", "sk-", "sk-a", "xoxb-", "ghp_", "AKIA", "SG.", "1:AA",
        "M" + "a" * 23 + ".", "SG." + "a" * 20 + ".", "12345678:AA", "\\\"", "`", "x" * 64 + "@",
    )  # fmt: skip
    texts = {piece: piece * (size // len(piece)) for piece in pieces}
    texts["printable"] = "".join(some.choices(string.printable, k=size * 4))
    texts["mixed"] = "".join(some.choices(pieces, k=size // 2))[: size * 4]
    return texts


@pytest.mark.parametrize(("name", "text"), hostile().items(), ids=lambda value: repr(value[:20]))
def test_a_text_made_to_be_slow_is_not(name: str, text: str) -> None:
    for rule in RULES:
        began = time.thread_time()
        for _ in rule.pattern.finditer(text):
            pass
        seconds = time.thread_time() - began
        assert seconds < 0.2, f"{rule.kind} {rule.pattern.pattern} took {seconds:.1f} s on {name!r}"


KEYS = {"PIN": "12345", "ONE": "shapeless phrase", "MANY": '{\n "private": "alpha beta",\n "n": 1\n}'}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("12345 is no key", "12345 is no key"),
        ("it is shapeless phrase.", "it is [ONE]."),
        (KEYS["MANY"], "[MANY]"),
        (repr(KEYS["MANY"]), "'[MANY]'"),
        (json.dumps({"text": KEYS["MANY"]}), '{"text": "[MANY]"}'),
        (json.dumps(json.dumps([KEYS["MANY"]])), r'"[\"[MANY]\"]"'),
        ('of it: "private": "alpha beta", and "n": 1', 'of it: [MANY] and "n": 1'),
        (r"\"private\": \"alpha beta\",", "[MANY]"),
    ],
)
def test_a_value_that_is_known_is_found_however_it_is_written(said: str, left: str) -> None:
    assert Redactor("", KEYS).text(said) == without_values(said, KEYS) == left
    assert values_in(said, KEYS) == [name for name in KEYS if f"[{name}]" in left]
