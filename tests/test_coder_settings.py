"""From `[coder]` to the program of each role: defaults, what is different for a role, and mistakes by name."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.coders.catalogue import Coders, CoderSettings, coders
from core.coders.claude import Claude
from core.coders.coder import Doubtful
from core.coders.codex import Codex
from core.coders.command import Command
from core.coders.gemini import Gemini
from core.coders.program import Program
from core.model.errors import Unavailable
from core.model.replies import Role
from tests.support.coding_agents import StubLanes
from tests.support.model_stub import ModelStub, steps


def of(made: Coders, role: Role) -> Program:
    coder = made.of(role)
    assert isinstance(coder, Program)
    return coder


def made(**settings: object) -> Coders:
    return coders(CoderSettings.model_validate(settings))


def test_a_provider_alone_is_enough() -> None:
    claude = of(made(provider="claude"), Role.plan)
    assert claude == Program("claude", ("claude",), Claude("sonnet"), ("ANTHROPIC_API_KEY",))
    codex = of(made(provider="codex"), Role.plan)
    assert codex == Program("codex", ("codex",), Codex("gpt-5.5"), ("OPENAI_API_KEY",))
    gemini = of(made(provider="gemini"), Role.plan)
    assert gemini == Program("gemini", ("gemini",), Gemini("gemini-2.5-pro"), ("GEMINI_API_KEY",))
    opencode = of(made(provider="opencode", model="anthropic/sonnet"), Role.plan)
    assert (opencode.env_from, opencode.provider.api) == (("ANTHROPIC_API_KEY",), "anthropic")
    assert made(provider="claude").distinct() == (claude,)


def test_each_role_may_have_another() -> None:
    chosen = made(
        provider="claude",
        model="opus",
        argv=["/opt/claude", "--betas", "x"],
        timeout_s=60,
        roles={
            "plan": {"model": "haiku"},
            "implement": {"provider": "codex", "base_url": "https://models.example/v1", "env_from": ["MY_KEY"]},
            "verdict": {"provider": "command", "argv": ["judge"], "timeout_s": 5},
        },
    )
    assert of(chosen, Role.locate).provider == Claude("opus")
    plan = of(chosen, Role.plan)
    assert (plan.argv, plan.provider) == (("/opt/claude", "--betas", "x"), Claude("haiku"))
    implement = of(chosen, Role.implement)
    assert (implement.name, implement.argv, implement.env_from) == ("codex", ("codex",), ("MY_KEY",))
    assert implement.provider == Codex("gpt-5.5", "https://models.example/v1", "MY_KEY")
    assert of(chosen, Role.verdict) == Program("judge", ("judge",), Command())
    assert (chosen.timeout_s(Role.implement), chosen.timeout_s(Role.verdict)) == (60, 5)
    assert len(chosen.distinct()) == 4


def test_with_a_gateway_the_key_stays_outside() -> None:
    lanes = StubLanes(ModelStub(steps()))
    for settings in (
        {"provider": "claude", "env_from": ["ANTHROPIC_API_KEY", "OTHER"]},
        {"provider": "codex", "env_from": ["OPENAI_API_KEY", "OTHER"]},
    ):
        with_gateway = coders(CoderSettings.model_validate(settings), None, lanes)
        assert of(with_gateway, Role.plan).env_from == ("OTHER",)
        assert of(with_gateway, Role.plan).lanes is lanes


def test_whoever_names_a_key_of_their_own_goes_past_the_gateway() -> None:
    settings = CoderSettings.model_validate({"provider": "codex", "env_from": ["MY_KEY"]})
    past = of(coders(settings, None, StubLanes(ModelStub(steps()))), Role.plan)
    assert (past.env_from, past.lanes) == (("MY_KEY",), None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "`argv` is missing: name the program, or another `provider` than command"),
        ({"argv": ["x"], "model": "gpt"}, "`model` is not for the provider command; put it into `argv`"),
        ({"provider": "opencode"}, "`model` is missing: opencode has no model of its own; name one"),
        (
            {"provider": "claude", "roles": {"plan": {"provider": "command"}}},
            "in role plan, `argv` is missing: name the program",
        ),
        ({"provider": "claude", "base_url": "models.example"}, "base_url"),
        ({"provider": "cursor"}, "Input should be 'claude', 'codex', 'command', 'gemini' or 'opencode'"),
    ],
)
def test_a_mistake_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CoderSettings.model_validate(settings)
    assert words in str(caught.value)


def program(directory: Path, says: str) -> Path:
    path = directory / "claude"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


async def test_a_version_that_was_not_tried_is_a_doubt_and_no_error(tmp_path: Path) -> None:
    path = program(tmp_path, 'test "$1 $HOME" != "--version /root" && echo "9.1.2 (Claude Code)"')
    said = await Program("claude", (str(path),), Claude()).ping()
    assert isinstance(said, Doubtful)
    assert said.startswith(f"claude: {path}, version 9.1.2, which was not tried with Moss, as 2.1.329 was; ")
    program(tmp_path, 'echo "2.1.329 (Claude Code)"')
    known = await Program("claude", (str(path),), Claude()).ping()
    assert not isinstance(known, Doubtful)
    assert known == f"claude: {path}, version 2.1.329"


async def test_a_program_that_does_not_start_is_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, "echo 'no such library' >&2; exit 127")
    with pytest.raises(
        Unavailable, match=r"claude --version` exited with 127 \(no such library\), and told no version"
    ):
        await Program("claude", (str(path),), Claude()).ping()
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(Unavailable, match="claude needs ANTHROPIC_API_KEY, which Moss's environment lacks"):
        await of(made(provider="claude", argv=[os.fspath(path)]), Role.plan).ping()
