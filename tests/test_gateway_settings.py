"""What stands in the environment and in `[gateway]`, and is wrong: a sentence names the variable or the setting, from
`moss doctor` and to a coder; never a key, never a traceback, and nothing is booked that was never sent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from core.coders.coder import Doubtful
from core.gateway.gateway import Gateway
from core.gateway.settings import GatewaySettings
from core.model.errors import BadInput, Unavailable
from tests.support.command import House
from tests.support.upstream import KEY, Upstream, upstream
from tests.support.world import World
from tests.test_gateway import ACCOUNT, CHATS, KEYS, Book, ask


@pytest.fixture
async def api() -> AsyncIterator[Upstream]:
    async with upstream() as there:
        there.says({"data": []})
        yield there


@pytest.mark.parametrize("key", ["sk-se\x01cret", "sk-se cret", "sk-se\ncret", "sk-se\udcffcret", "sk-secr\u00e9t"])
def test_what_cannot_be_a_key_is_named_by_its_variable_and_not_shown(api: Upstream, key: str) -> None:
    with pytest.raises(BadInput, match=r"^OPENAI_API_KEY holds letters that no key has") as refused:
        Gateway(api.settings, {"openai": key})
    assert "cr" not in refused.value.sentence


async def test_blanks_around_a_key_are_none_of_it(api: Upstream) -> None:
    gateway = Gateway(api.settings, {"openai": f" {KEY}\r\n", "gemini": " \n"})
    assert "answers, with the key in OPENAI_API_KEY" in await gateway.ping("openai")
    assert api.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    assert gateway.apis == ("openai",)
    await gateway.close()


async def test_a_request_that_was_never_sent_costs_nothing_and_shows_nothing(
    api: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book()
    async with Gateway(api.settings, KEYS, book).serving() as gateway:
        monkeypatch.setitem(gateway._keys, "openai", f"{KEY}\n")
        async with gateway.open(ACCOUNT, None) as lane:
            answer = await ask(lane, CHATS, user="x" * 4000)
        assert (answer.status_code, lane.spend.tokens, book.lines) == (502, 0, [])
        with pytest.raises(Unavailable) as failed:
            await gateway.ping("openai")
    assert KEY not in answer.text + failed.value.sentence
    assert api.asked == []


WRONG = {
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "HTTPS_PROXY": "foo://me:secret@x",
    "HTTP_PROXY": "http://me:secret@127.0.0.1:99999",
    "NO_PROXY": "http://[::1",
    "SSL_CERT_FILE": "/nonexistent.pem",
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_variable_of_the_machine_is_named(
    api: Upstream, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.lower(), raising=False)
    monkeypatch.setenv(name, WRONG[name])
    book = Book()
    async with Gateway(api.settings, KEYS, book).serving() as gateway, gateway.open(ACCOUNT, None) as lane:
        with pytest.raises(BadInput, match=name) as refused:
            await gateway.ping("openai")
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            url = f"http://127.0.0.1:{lane.port}{CHATS[0]}"
            answer = await http.post(url, json=CHATS[1], headers={"x-api-key": lane.token})
        assert (answer.status_code, answer.json()["error"]["message"]) == (502, refused.value.sentence)
        assert "secret" not in answer.text
        assert (lane.spend.tokens, book.lines) == (0, [])


@pytest.mark.parametrize(
    "url",
    ["http://x:abc", "http://x:99999", "http://x:0", "http://xn--.com", "http://a..b", "http://\x00x", "http://[::1"],
)
def test_an_address_that_leads_nowhere_is_refused_as_a_setting(url: str) -> None:
    with pytest.raises(ValidationError, match=r"openai\.url\n"):
        GatewaySettings.model_validate({"openai": {"url": url}})


@pytest.mark.parametrize("end", ["/v1", "/v1/", "/v1beta", "/openai/v1"])
def test_an_address_that_holds_the_version_is_refused_with_the_mend(end: str) -> None:
    mend = "https://x.example" + end.removesuffix("/").removesuffix("/v1").removesuffix("/v1beta")
    with pytest.raises(ValidationError, match=f"goes up to but without the version; write `{mend}`"):
        GatewaySettings.model_validate({"openai": {"url": f"https://x.example{end}"}})
    for right in ("https://x.example/v10", "https://x.example:8000/openai", "http://[::1]:8000/"):
        assert GatewaySettings.model_validate({"openai": {"url": right}}).openai.url == right.rstrip("/")


ANSWERS = {
    301: "leads elsewhere (301), and is not followed; correct `url` in [gateway.openai]",
    400: "answers with 400; check `url` in [gateway.openai], and OPENAI_API_KEY",
    403: "does not take the key in OPENAI_API_KEY",
}


@pytest.mark.parametrize("status", ANSWERS)
async def test_a_service_that_is_another_one_is_not_fine(api: Upstream, status: int) -> None:
    api.says({"error": {}}, status, location="https://elsewhere.example/")
    gateway = Gateway(api.settings, KEYS)
    with pytest.raises(Unavailable) as failed:
        await gateway.ping("openai")
    assert ANSWERS[status] in failed.value.sentence
    await gateway.close()


@pytest.mark.parametrize("page", [b"<html>hello</html>", b"", b"[]", b'"ok"'])
async def test_a_page_is_no_api(api: Upstream, page: bytes) -> None:
    api.says(page)
    gateway = Gateway(api.settings, KEYS)
    with pytest.raises(Unavailable, match="not as a model's API does"):
        await gateway.ping("gemini")
    await gateway.close()


DOUBTFUL = {
    404: "`url` in [gateway.anthropic] goes up to but without `/v1`, unless the service keeps no list of models",
    429: "is there, but is busy at the moment (429)",
    500: "is there, but fails at the moment (500)",
    529: "is there, but fails at the moment (529)",
}


@pytest.mark.parametrize(("status", "how"), DOUBTFUL.items())
async def test_a_service_that_may_be_the_right_one_is_named_as_what_it_is(api: Upstream, status: int, how: str) -> None:
    api.says({"error": {}}, status)
    gateway = Gateway(api.settings, KEYS)
    said = await gateway.ping("anthropic")
    assert isinstance(said, Doubtful)
    assert how in said
    await gateway.close()


async def test_the_doctor_tells_it(tmp_path: Path, api: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(World.foreign(tmp_path, "process"))
    house.config.write_text(f'{house.config.read_text()}\n[gateway.openai]\nurl = "{api.url}"\n')
    monkeypatch.setenv("OPENAI_API_KEY", "sk-se\x01cret")
    house_says = await doctor(house)
    assert house_says["models"] == (
        "failed",
        "OPENAI_API_KEY holds letters that no key has, such as blanks or line ends within; set it anew.",
    )
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert (await doctor(house))["models openai"][0] == "ok"
    api.says({"error": {}}, 503)
    assert (await doctor(house))["models openai"][0] == "warning"
    monkeypatch.setenv("ALL_PROXY", WRONG["ALL_PROXY"])
    assert (await doctor(house))["models openai"][1].startswith("ALL_PROXY in Moss's environment is no proxy")


async def doctor(house: House) -> dict[str, tuple[str, str]]:
    said = await asyncio.to_thread(house.moss, "doctor", "--json")
    return {finding["name"]: (finding["level"], finding["sentence"]) for finding in said.data}
