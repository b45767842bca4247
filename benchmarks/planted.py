"""Secrets and personal data as people paste them into a chat or write them into code, and what only looks like them.

None of them is real: a seeded generator makes the values, and they stand in contexts written by hand. Nothing here is
whole before it runs, so that no scanner takes this file for a leak.
"""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
LETTERS = LOWER + UPPER + DIGITS
URLSAFE = LETTERS + "-_"
HEX = DIGITS + "abcdef"


@dataclass(frozen=True, slots=True)
class Planted:
    """A text, and what of it must go: nothing, where it only looks like a secret."""

    kind: str
    text: str
    secret: str = ""


class Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, letters: str, count: int) -> str:
        """Random letters; where digits and letters are allowed there is always one of each."""
        while True:
            made = "".join(self.random.choices(letters, k=count))
            mixed = any(map(str.isdigit, made)) and any(map(str.isalpha, made))
            if mixed or not (set(letters) & set(DIGITS) and set(letters) & set(LOWER + UPPER)):
                return made

    def one(self, *choices: str) -> str:
        return self.random.choice(choices)

    def word(self) -> str:
        return self.one(
            "harbour", "lantern", "Pickle", "otter", "Velvet", "cobalt", "maple", "Saturn", "thimble", "Quartz"
        )

    def password(self) -> str:
        """As people choose them."""
        n = self.some(DIGITS, self.random.randint(2, 4))
        return self.one(
            f"{self.word()}{n}!",
            f"{self.word()}-{self.word()}-{n}",
            f"{self.some(LETTERS, 8)}#{n}",
            f"{self.word()}_{n}",
            f"{self.word().capitalize()}${n}{self.some(LOWER, 2)}",
        )

    def name(self) -> str:
        return self.one("anna", "ben", "carla", "dmitri", "eve", "farid", "gwen", "hiro")

    def token(self, kind: str) -> tuple[str, str]:
        """What stands in the text, and the part of it that is secret."""
        before, secret = TOKENS[kind](self)
        return before + secret, secret

    def card(self) -> str:
        body = self.one("4", "51", "55", "2221", "6011", "37")
        size = 15 if body == "37" else 16
        body += self.some(DIGITS, size - 1 - len(body))
        doubled = [int(d) * 2 - 9 * (int(d) > 4) for d in body[::-2]]
        check = str(-(sum(doubled) + sum(map(int, body[-2::-2]))) % 10)
        number = body + check
        if size == 15:
            return self.one(number, f"{number[:4]} {number[4:10]} {number[10:]}")
        mark = self.one("", " ", "-")
        return mark.join(number[at : at + 4] for at in range(0, 16, 4))

    def iban(self) -> str:
        country, body = self.random.choice(
            [
                ("DE", self.some(DIGITS, 18)),
                ("FR", self.some(DIGITS, 20) + self.one("A", "M", "1") + self.some(DIGITS, 2)),
                ("NL", "INGB" + self.some(DIGITS, 10)),
                ("GB", "NWBK" + self.some(DIGITS, 14)),
                ("ES", self.some(DIGITS, 20)),
            ]
        )
        number = "".join(str(int(letter, 36)) for letter in body + country + "00")
        whole = f"{country}{98 - int(number) % 97:02d}{body}"
        spaced = " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))
        return self.one(whole, spaced, spaced, spaced.lower() if country == "DE" else spaced)

    def phone(self) -> str:
        d = lambda count: self.some(DIGITS, count)  # noqa: E731
        return self.one(
            f"+49 151 {d(8)}",
            f"+1 ({self.one('415', '212', '646')}) 555-{d(4)}",
            f"+44 7{d(3)} {d(6)}",
            f"+33 6 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"{self.one('415', '212', '646')}-555-{d(4)}",
            f"({self.one('415', '212')}) 555-{d(4)}",
            f"0151 {d(8)}",
            f"030/{d(7)}",
            f"0049 171 {d(7)}",
            f"+4915{d(9)}",
            f"07{d(3)} {d(6)}",
            f"06 {d(2)} {d(2)} {d(2)} {d(2)}",
        )

    def email(self) -> str:
        host = self.one("example.org", "mail.example.com", "acme.example", "example.co.uk", "example.museum")
        name = self.name()
        return self.one(
            f"{name}@{host}", f"{name}.berg+{self.word()}@{host}", f"{name.upper()}_{self.some(DIGITS, 2)}@{host}"
        )


def _made(before: str, letters: str, count: int) -> Callable[[Maker], tuple[str, str]]:
    return lambda make: (before, make.some(letters, count))


TOKENS: dict[str, Callable[[Maker], tuple[str, str]]] = {
    "AWS access key": _made("AK" + "IA", UPPER + "234567", 16),
    "GitHub token": lambda m: (m.one("gh" + "p_", "gh" + "o_", "gh" + "s_"), m.some(LETTERS, 36)),
    "GitHub fine-grained token": lambda m: ("github" + "_pat_", m.some(LETTERS, 22) + "_" + m.some(LETTERS, 59)),
    "GitLab token": _made("gl" + "pat-", URLSAFE, 20),
    "Slack token": lambda m: (
        m.one("xo" + "xb-", "xo" + "xp-"),
        f"{m.some(DIGITS, 12)}-{m.some(DIGITS, 13)}-{m.some(LETTERS, 24)}",
    ),
    "Slack app token": lambda m: (
        "xa" + "pp-1-",
        f"A{m.some(UPPER + DIGITS, 10)}-{m.some(DIGITS, 13)}-{m.some(HEX, 64)}",
    ),
    "Slack webhook": lambda m: (
        "https://hooks.slack." + "com/services/",
        f"T{m.some(UPPER + DIGITS, 8)}/B{m.some(UPPER + DIGITS, 8)}/{m.some(LETTERS, 24)}",
    ),
    "Discord webhook": lambda m: ("https://discord.com/api/web" + f"hooks/{m.some(DIGITS, 18)}/", m.some(URLSAFE, 68)),
    "Discord bot token": lambda m: (
        m.one("M", "N", "O"),
        f"{m.some(LETTERS, 25)}.{m.some(LETTERS, 6)}.{m.some(URLSAFE, 38)}",
    ),
    "Telegram token": lambda m: (f"{m.some('123456789', 10)}:", "AA" + m.some(URLSAFE, 33)),
    "Anthropic key": lambda m: ("sk-" + "ant-", "api03-" + m.some(URLSAFE, 93) + "AA"),
    "OpenAI key": lambda m: ("sk-" + "proj-", m.some(URLSAFE, 74) + "T3Blb" + "kFJ" + m.some(URLSAFE, 74)),
    "older OpenAI key": lambda m: ("sk" + "-", m.some(LETTERS, 20) + "T3Blb" + "kFJ" + m.some(LETTERS, 20)),
    "Google API key": _made("AI" + "za", URLSAFE, 35),
    "Google OAuth secret": _made("GOC" + "SPX-", URLSAFE, 28),
    "Stripe key": lambda m: (
        m.one("sk_" + "live_", "rk_" + "live_", "sk_" + "test_"),
        m.some(LETTERS, m.random.choice((24, 99))),
    ),
    "npm token": _made("np" + "m_", LETTERS, 36),
    "PyPI token": lambda m: ("py" + "pi-", "AgEIcHlwaS5vcmc" + m.some(URLSAFE, 140)),
    "Hugging Face token": _made("h" + "f_", LETTERS, 34),
    "SendGrid key": lambda m: ("S" + "G.", f"{m.some(URLSAFE, 22)}.{m.some(URLSAFE, 43)}"),
    "Twilio key": _made("S" + "K", HEX, 32),
    "Mailgun key": _made("ke" + "y-", HEX, 32),
    "Mailchimp key": lambda m: ("", f"{m.some(HEX, 32)}-us{m.some('123456789', 1)}"),
    "Square token": lambda m: (m.one("sq0" + "atp-", "sq0" + "csp-"), m.some(URLSAFE, 22)),
    "New Relic key": _made("NR" + "AK-", UPPER + DIGITS, 27),
    "Postman key": lambda m: ("PM" + "AK-", f"{m.some(HEX, 24)}-{m.some(HEX, 34)}"),
    "Doppler token": _made("dp." + "st.prd.", LETTERS, 43),
    "Terraform token": lambda m: (m.some(LETTERS, 14), ".atlas" + "v1." + m.some(URLSAFE, 67)),
    "Sentry token": _made("sntry" + "u_", HEX, 64),
    "Figma token": _made("fig" + "d_", URLSAFE, 40),
    "Airtable token": lambda m: ("pa" + "t", f"{m.some(LETTERS, 14)}.{m.some(HEX, 64)}"),
    "Supabase token": _made("sb" + "p_", HEX, 40),
    "Replicate token": _made("r" + "8_", LETTERS, 37),
    "PlanetScale token": _made("pscale" + "_tkn_", URLSAFE, 43),
    "Fly token": lambda m: ("fm2" + "_", base64.b64encode(m.random.randbytes(90)).decode()),
    "Artifactory token": lambda m: ("AK" + "Cp", m.some(LETTERS, 69)),
    "Dropbox token": _made("sl" + ".", URLSAFE, 136),
    "Notion token": _made("nt" + "n_", LETTERS, 46),
    "Linear key": _made("lin" + "_api_", LETTERS, 40),
    "DigitalOcean token": _made("dop" + "_v1_", HEX, 64),
    "Databricks token": _made("da" + "pi", HEX, 32),
    "Shopify token": _made("shp" + "at_", HEX, 32),
    "JSON web token": lambda m: (
        "ey" + "J",
        f"{m.some(URLSAFE, 33)}.ey" + f"J{m.some(URLSAFE, 80)}.{m.some(URLSAFE, 43)}",
    ),
}
"""Those of a maker who gave them a form of their own."""

TALK = (
    "here you go: {}",
    "try it with {} and tell me if it works",
    "the old one was revoked, use {} from now on.",
    "curl says 401 with {}, any idea?",
    "({}) - please do not share",
    "> {}\nis that still valid?",
    "DEPLOY_KEY={}",
    "`{}`",
    '{{"key": "{}", "region": "eu"}}',
    "Hi team,\nI rotated it this morning.\n{}\nThanks!",
    "config:\n  credentials: {}\n  region: eu-central-1",
    "why does the bot answer 'bad key' to <{}>?",
)

GENERIC: dict[str, tuple[tuple[str, ...], Callable[[Maker], str]]] = {
    "password in words": (
        (
            "my password is {}",
            "the password is {} btw",
            "pw: {}",
            "pwd is {}",
            "Passwort: {}",
            "mein Passwort ist {}",
            "mot de passe : {}",
            "contraseña: {}",
            "login is anna, password {}",
            "user anna / pass {}",
            "wifi password = {}",
            "Kennwort lautet {}",
            "password for the staging box: {}",
            "pass: {}",
            "PIN and password: 0000 / {}",
            "the root password was changed to {}",
            "creds are anna:{}",
            "username/password anna/{}",
            "user=anna pw={}",
            "temp password → {}",
            "password (new): {}",
            "you can log in with anna and {}",
            "our admin pwd hasn't changed: {}",
            "**Password:** {}",
            "`password` is `{}`",
            "login: anna {}",
            "Password\n\n{}",
            "| password | {} |",
            "she says her password, which is {}, does not work",
        ),
        Maker.password,
    ),
    "password in settings": (
        (
            "DB_PASSWORD={}",
            'password = "{}"',
            "spring.datasource.password: {}",
            '{{"user": "anna", "password": "{}"}}',
            "Server=db;Database=desk;User Id=sa;Password={};Encrypt=True",
            "--password {} --host db",
            "--password={}",
            "mysql -u root -p'{}' desk",
            "export PGPASSWORD='{}'",
            "<password>{}</password>",
            "sshpass -p '{}' ssh root@box",
            "redis-cli -a {} ping",
            "machine git.example login anna password {}",
        ),
        Maker.password,
    ),
    "password in an address": (
        (
            "postgres://anna:{}@db.internal:5432/desk",
            "try https://anna:{}@git.internal/agent.git",
            "redis://:{}@cache:6379/0 does not answer",
            "mongodb+srv://desk:{}@cluster0.example.net/?retryWrites=true",
            "amqp://guest:{}@mq/",
            "curl -u anna:{} https://api.internal/me",
        ),
        lambda m: m.some(LETTERS, m.random.randint(8, 20)),
    ),
    "AWS secret key": (
        (
            "aws_secret_access_key = {}",
            "AWS_SECRET_ACCESS_KEY={}",
            'secretAccessKey: "{}"',
            "the secret access key is {}",
            "Secret Access Key\n{}",
        ),
        lambda m: m.some(LETTERS + "+/", 40),
    ),
    "key in settings": (
        (
            "API_KEY={}",
            'api_key: "{}"',
            "X-Api-Key: {}",
            "client_secret={}",
            "SECRET_KEY_BASE={}",
            '"accessToken": "{}",',
            "TWILIO_AUTH_TOKEN={}",
            "DD_API_KEY={}",
            "CLOUDFLARE_API_TOKEN={}",
            "token: {}",
            "the api key is {}",
            "heroku auth token {}",
            "here is the token: {}",
            "https://api.example/v1/me?api_key={}&page=2",
            "https://api.example/cb#access_token={}&expires_in=3600",
            "signing secret: {}",
            "webhook secret is {}",
            "export OPENAI_KEY={}",
            "my key: {}",
            "bearer token: {}",
            "JWT_SECRET: {}",
            "app secret {}",
            "consumer_secret='{}'",
            "{} is our api key",
            "x-auth-token: {}",
            "-H 'PRIVATE-TOKEN: {}'",
            "vault kv put secret/desk value={}",
            "the new token, valid until Friday: {}",
            "| API key | {} |",
            "encryption_key = '{}'",
            "Cookie: session={}; theme=dark",
            "Set-Cookie: sessionid={}; HttpOnly",
        ),
        lambda m: m.one(m.some(HEX, 32), m.some(HEX, 40), m.some(LETTERS, 24), m.some(URLSAFE, 43)),
    ),
    "authorization": (
        (
            "Authorization: Bearer {}",
            "curl -H 'Authorization: Bearer {}' https://api.example",
            '"Authorization": "Basic {}"',
            "authorization: token {}",
            "Proxy-Authorization: Basic {}",
            "it sends Bearer {} and gets a 403",
        ),
        lambda m: m.one(
            m.some(LETTERS, 40),
            base64.b64encode(f"{m.name()}:{m.password()}{m.password()}".encode()).decode(),
        ),
    ),
}

KEY_KINDS = ("RSA ", "EC ", "OPENSSH ", "", "PGP ")


def private_key(make: Maker) -> str:
    kind = make.one(*KEY_KINDS)
    block = " BLOCK" if kind == "PGP " else ""
    body = base64.b64encode(make.random.randbytes(288)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    begin, end = (f"-----{word} {kind}PRIVATE" + f" KEY{block}-----" for word in ("BEGIN", "END"))
    text = f"{begin}\n{lines}\n" + make.one(end + "\n", "", end)
    return make.one(text, json.dumps({"key": text}))


PERSONAL: dict[str, tuple[tuple[str, ...], Callable[[Maker], str]]] = {
    "e-mail address": (
        (
            "write to {} please",
            "<{}> wrote:",
            "cc {}, thanks",
            "mailto:{}",
            "customer ({}) is angry",
            "Email:{}",
            "is {}'s order paid?",
            "login={}&next=/",
            "https://shop.example/reset?mail={}",
        ),
        Maker.email,
    ),
    "phone number": (
        (
            "call me at {}",
            "Tel. {}",
            "phone: {}, ask for Anna",
            "my number is {}.",
            "tel:{}",
            "WhatsApp {} works too",
            "{} is her mobile",
            "reach us on {} or by mail",
        ),
        Maker.phone,
    ),
    "IBAN": (
        ("IBAN {}", "please pay to {} until Friday", "iban: {}.", "refund to {}, Anna Berg", "Konto {}"),
        Maker.iban,
    ),
    "card number": (
        ("card {}", "my card is {} exp 04/29", "charge {} please", "{} was declined", "CC: {}, cvv 123"),
        Maker.card,
    ),
}

EACH = {"token": 5, "generic": 2, "personal": 20, "private key": 10}


def secrets_in_chat(seed: int = 1) -> list[Planted]:
    make, found = Maker(seed), []
    for kind in TOKENS:
        for _ in range(EACH["token"]):
            whole, secret = make.token(kind)
            found.append(Planted(kind, make.one(*TALK).format(whole), secret))
    found += _in_contexts(make, GENERIC, lambda contexts: [each for each in contexts for _ in range(EACH["generic"])])
    found += _in_contexts(make, PERSONAL, lambda contexts: make.random.choices(contexts, k=EACH["personal"]))
    for _ in range(EACH["private key"]):
        text = private_key(make)
        secret = max(text.replace("\\n", "\n").split("\n"), key=lambda line: len(line) * ("-----" not in line))
        found.append(Planted("private key", make.one("{}", "is this key ok?\n{}\n").replace("{}", text), secret))
    return found


def _in_contexts(
    make: Maker,
    kinds: dict[str, tuple[tuple[str, ...], Callable[[Maker], str]]],
    choose: Callable[[tuple[str, ...]], list[str]],
) -> Iterator[Planted]:
    for kind, (contexts, value) in kinds.items():
        for context in choose(contexts):
            secret = value(make)
            yield Planted(kind, context.format(secret), secret)


HARMLESS: dict[str, tuple[str, ...] | Callable[[Maker], str]] = {
    "commit": lambda m: m.one("fixed in {}", "revert {} please", "git show {}", "index {}..0000000").format(
        m.some(HEX, m.random.choice((7, 12, 40)))
    ),
    "digest": lambda m: m.one("sha256:{}", "the checksum is {}", 'etag "{}"', "image desk@sha256:{}").format(
        m.some(HEX, 64)
    ),
    "md5": lambda m: m.one("md5 {}", "{}  agent.tar.gz", "cache/{}.bin").format(m.some(HEX, 32)),
    "integrity": lambda m: '"integrity": "sha512-' + base64.b64encode(m.random.randbytes(64)).decode() + '"',
    "uuid": lambda m: m.one("request {}", "trace id {} is missing", "/orders/{}/items").format(
        "-".join(m.some(HEX, n) for n in (8, 4, 4, 4, 12))
    ),
    "order number": lambda m: m.one("order #{}", "ticket {} is open", "parcel 00{} is late", "customer no. {}").format(
        m.some("123456789", m.random.choice((6, 8, 10, 12)))
    ),
    "snowflake": lambda m: m.one("message {}", "https://discord.com/channels/{0}/{0}").format(m.some("123456789", 18)),
    "time": lambda m: m.one(
        "at 2026-0{0}-1{1}T0{0}:30:15.{2}Z",
        "1{2}{2}{1}{0}",
        "on 1{1}.0{0}.2026 at 0{0}:45",
        "0{0}/1{1}/2026",
        "took 00:0{0}:1{1}.{2}",
    ).format(m.some("123456789", 1), m.some(DIGITS, 1), m.some(DIGITS, 3)),
    "version": lambda m: m.one("python 3.11.{0}", "v{0}.{1}.0-rc.1", "numpy=={0}.{1}.{0}", "1.20.333.44{0}{1}").format(
        m.some("123456789", 1), m.some(DIGITS, 2)
    ),
    "address of a machine": lambda m: m.one(
        "10.0.{0}.{1} does not answer",
        "192.168.1{0}.{1}:8080",
        "fe80::1ff:fe23:4567:8{0}{1}",
        "mac 00:1a:2b:3c:4d:{0}{1}",
    ).format(m.some("12345", 1), m.some("123456789", 1)),
    "amount": lambda m: m.one(
        "1,{0},{1}.89 EUR", "EUR {0}.{1},00", "3.1415926535{0}{1}", "{0} {1} units", "between {0} and {1}"
    ).format(m.some("123456789", 3), m.some("123456789", 3)),
    "pod": lambda m: f"pod api-{m.some(HEX, 10)}-{m.some(LOWER + DIGITS, 5)} was evicted",
    "slug": lambda m: (
        f"https://blog.example/2026/01/{m.word()}-{m.word()}-and-the-{m.word()}-of-everything-else-{m.some(DIGITS, 4)}"
    ),
    "video": lambda m: f"https://video.example/watch?v={m.some(URLSAFE, 11)}&t=42",
    "arn": lambda m: f"arn:aws:iam::{m.some(DIGITS, 12)}:role/desk-{m.word()}",
    "bad card": lambda m: f"tracking {m.one('4', '5')}{m.some(DIGITS, 14)}" + m.some(DIGITS, 4),
    "isbn": lambda m: f"ISBN 978-{m.some(DIGITS, 1)}-{m.some(DIGITS, 2)}-{m.some(DIGITS, 6)}-{m.some(DIGITS, 1)}",
    "picture": lambda m: f"{m.word()}@2x.png and icon@3x.svg, {m.some(DIGITS, 2)} KB",
    "package": lambda m: m.one(
        "@types/node@18.1.{}", "left-pad@1.2.{}", "git@github.com:acme/agent.git#{}", "user@host-{}"
    ).format(m.some(DIGITS, 2)),
    "hex dump": lambda m: " ".join(m.some(HEX, 4) for _ in range(8)),
    "colour": lambda m: f"#{m.some(HEX, 6)} and rgba(12, 34, 56, 0.{m.some(DIGITS, 1)})",
    "base64 of words": lambda m: "it prints " + base64.b64encode(f"{m.word()} {m.word()}".encode()).decode(),
    "code": lambda m: m.one(
        "token = settings.token_v{}",
        "headers = {{'Authorization': f'Bearer {{token{}}}'}}",
        "password = os.environ['DB_PASSWORD_{}']",
        "api_key: str | None = None  # {}",
        "secret_name = 'desk-{}'",
        "if token == expected_{}:",
        "const apiKey = process.env.API_KEY_{};",
        "max_tokens={}",
        "password = getpass('Password {}: ')",
        "secrets.token_hex({})",
    ).format(m.some("123456789", 2)),
    "placeholder": lambda m: m.one(
        "sk-ant-...",
        "Authorization: Bearer <token>",
        "API_KEY=your-api-key-here-{}",
        "password: ********",
        "TOKEN=${{CI_TOKEN_{}}}",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "postgres://user:password@localhost/desk{}",
        "https://user:${{PASSWORD_{}}}@host/",
        "password={{{{ vault.db_{} }}}}",
        "secret: <redacted {}>",
        "token=$TOKEN_{}",
        "api_key=changeme{}",
    ).format(m.some("123456789", 1)),
    "talk": (
        "I forgot my password, can you reset it?",
        "the password must have 12 characters, password: required",
        "password reset does not work for anybody",
        "the secret is to stir slowly",
        "token limit: 4096 tokens, so the secret: shorter prompts",
        "the key is under the doormat",
        "the password is wrong, it says",
        "my password is not accepted any more",
        "password is required and secret is optional",
        "pass: yes, fail: no",
        "he could not pass the ball",
        "does anyone know who passed test 12b?",
        "the bearer of good news, authentication-is-required-here",
        "basic authentication is off, bearer tokens are on",
        "Authorization: required for everybody",
        "the api key is missing",
        "api key: see the vault, entry 12",
        "the token is expired since 2026-01-05",
        "token: invalid",
        "is the access token still valid?",
        "private key authentication failed",
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
        "call me maybe: 12-34, 5 of 10, 100 200 3000",
        "room 0815, seats 12-14, row 3",
        "it costs 0.99, not 1.00",
        "the model is gpt-4o-2024-08-06, temperature 0.7",
        "sk-this-is-a-very-long-css-class-name",
        "IBAN is missing on the invoice",
        "DE is the country code, 89 the check",
        "visa or mastercard, 16 digits",
        "mailto links are broken",
        "@anna and @ben, please look",
        "see RFC 7519, section 4.1.4",
        "pip install detect-secrets==1.5.0",
        "Das Passwort ist falsch",
        "Passwort vergessen? Kennwort zurücksetzen!",
        "le mot de passe est obligatoire",
        "cookie: accept all, session: expired",
        "client_secret is not set",
        "the PIN was wrong three times",
        "use a password manager such as 1Password7",
        "passwordless login v2.0 is out",
        "the token bucket has 4096 slots, 128 per second",
        "session=expired, please log in",
        "the password field has the id user_password2",
        "error 401: token_expired_at_2026",
        "secret santa: room 12b-2026",
        "api key rotation: 2026-01-05T10:00:00Z",
        "password length: 12-64",
        "pass 3/5: compile_v2",
        "key=value2 pairs only",
        "token count: 1024k",
        "the password policy is at https://wiki.example/policy-v2",
        "the password is 12 characters long",
        "password for the wiki: ask anna",
        "my password was changed on 2026-01-05",
        "token usage: 12.5k in, 3.2k out",
        "credentials: see ticket DESK-1234",
        "secret: ok, api_key: ok, db: ok",
        "auth=none, tls=1.3",
        "the access token is of type JWT (RFC7519)",
        "password reset link: https://shop.example/reset",
        "his pass to gate B12 was perfect",
        "the api key is 32 characters of hex",
    ),
}


def look_alikes(seed: int = 1) -> list[Planted]:
    make, found = Maker(seed), []
    for kind, given in HARMLESS.items():
        texts = given if isinstance(given, tuple) else [given(make) for _ in range(8)]
        found += [Planted(kind, text) for text in texts]
    return found


CODE = (
    'KEY = "{}"',
    "const key = '{}';",
    "  token: {}",
    "export SERVICE_TOKEN={}",
    "client = Client(`{}`)",
    "# was {} before the rotation",
    'return {{"key": "{}"}}',
)
CODE_GENERIC: dict[str, tuple[tuple[str, ...], Callable[[Maker], str]]] = {
    "password": (
        (
            'DB_PASSWORD = "{}"',
            "password: '{}'",
            "DB_PASSWORD={}",
            'conn = connect(user="anna", password="{}")',
            '"password": "{}",',
            'os.environ["DB_PASSWORD"] = "{}"',
            "<password>{}</password>",
            'auth = ("anna", "{}")  # password',
            'PASSWD := "{}"',
        ),
        Maker.password,
    ),
    "key": (
        (
            'API_KEY = "{}"',
            "api_key='{}'",
            'headers = {{"Authorization": "Bearer {}"}}',
            'headers = {{"X-Api-Key": "{}"}}',
            'SECRET_KEY = "{}"',
            "client_secret: '{}'",
            'ENCRYPTION_KEY = "{}"',
            'os.environ.setdefault("API_TOKEN", "{}")',
            'url = "https://api.example/me?api_key={}"',
            'signing_secret = b"{}"',
        ),
        lambda m: m.one(m.some(HEX, 32), m.some(HEX, 40), m.some(LETTERS, 24), m.some(URLSAFE, 43)),
    ),
    "password in an address": (
        ('DSN = "postgres://anna:{}@db/desk"', "url: https://bot:{}@git.internal/x.git"),
        lambda m: m.some(LETTERS, 14),
    ),
    "AWS secret key": (
        ('AWS_SECRET_ACCESS_KEY = "{}"', "aws_secret_access_key = {}", 'secret_key="{}"'),
        lambda m: m.some(LETTERS + "+/", 40),
    ),
}
HARMLESS_CODE = (
    'password = os.environ["DB_PASSWORD_2"]',
    "token = settings.token_v2",
    'headers = {"Authorization": f"Bearer {token}"}',
    "connect(user=user, password=password1)",
    'api_key: str = Field(alias="OPENAI_API_KEY")',
    'raise ValueError("password must have 8 characters")',
    "author = 'anna@example.org'  # call +49 151 2345 6789",
    'PASSWORD = "your-password-1234"',
    "Authorization: Bearer <your-token-12345678901234>",
    "TOKEN=${CI_TOKEN_2}",
    "url = 'postgres://user:password@localhost/test'",
    "const h = { authorization: getAuthHeaderV2() }",
    'ROUTES = {"/v1/password-reset": reset_password, "/v1/token": issue_token}',
    'assert answer("password") == "Please use the form."',
    'token_url = "https://login.example/oauth2/v2.0/token"',
    'secret_name = "projects/desk/secrets/db-password/versions/2"',
    'SECRET_PATTERN = re.compile(r"[A-Za-z0-9]{20,40}")',
    'KEYWORDS = ["password1", "passwd2", "token3"]',
    'key = f"session:{user_id}:{n}"',
    'cache_key = "prices-v2-2026-01-05"',
    'password_field = driver.find_element("id", "password-input-2")',
    'API_KEY_HEADER = "X-Api-Key-V2"',
    'token_type = "refresh_token_v2"',
    'checksum = "0a443381d8ce1a191775fd5a7dcda5d9fbd73284"',
    'IMAGE = "desk@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    'REQUEST = "123e4567-e89b-12d3-a456-426614174000"',
    'ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"',
    'BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"',
    'api_key = config["services"]["maps"]["api_key_2"]',
    'password = request.form["password2"]',
    "def test_password_2_is_refused(self): ...",
    'help="the API key, as in --api-key KEY1234"',
    'TOKEN_LIMIT = "128k-tokens-at-most-in-2026"',
    'label = "Password (8 to 64 characters)"',
    'monkeypatch.setenv("API_KEY", "test-key-0000")',
    'secret = "fake-secret-for-tests-1"',
    'credentials = load("credentials-v2.json")',
    'key = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"',
    'pwd: \'{{ lookup("env", "DB_PASSWORD2") }}\'',
    'private_key_path = "/run/secrets/id_ed25519"',
)


def secrets_in_code(seed: int = 1) -> list[Planted]:
    make, found = Maker(seed), []
    for kind in TOKENS:
        for _ in range(2):
            whole, secret = make.token(kind)
            found.append(Planted(kind, make.one(*CODE).format(whole), secret))
    found += _in_contexts(make, CODE_GENERIC, lambda contexts: [each for each in contexts for _ in range(3)])
    found += [Planted("private key", f'KEY = """{private_key(make)}"""', "-") for _ in range(6)]
    return found


def look_alikes_in_code(seed: int = 1) -> list[Planted]:
    """And whatever only looks like a secret in a chat may stand in code as well."""
    written = [Planted("code", text) for text in HARMLESS_CODE]
    return written + [Planted(each.kind, f"# {each.text}") for each in look_alikes(seed) if "\n" not in each.text]
