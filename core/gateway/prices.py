"""What models cost: a dated table, the owner's own prices before it, and what a call's tokens come to."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from pydantic import Field

from core.gateway.usage import Usage
from core.model.value import Value

CHECKED_ON = "2026-10-30"
"""When the built-in table was put together from published lists, not confirmed by the makers. Prices change: check
those of your models."""

_MILLION = 1_000_000
_HOUR = 1.6
"""What is kept in Anthropic's cache for an hour costs so much more than what is kept for five minutes."""


class Price(Value):
    """In USD per million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cache_read: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of input that the maker had in its cache; without it, as `input`."""
    cache_write: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of input that was put into the cache; without it, as `input`."""
    long_from: int | None = Field(default=None, ge=1)
    """A prompt of more tokens than this has other prices."""
    long_input: float = Field(default=1, ge=0, allow_inf_nan=False)
    """By how much the prices of input are multiplied then."""
    long_output: float = Field(default=1, ge=0, allow_inf_nan=False)
    """By how much the price of output is multiplied then."""

    def of(self, usage: Usage) -> float:
        """In USD."""
        prompt = usage.input + usage.cache_read + usage.cache_write + usage.cache_write_hour
        long = self.long_from is not None and prompt > self.long_from
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        put_in = (
            usage.input * self.input
            + usage.cache_read * read
            + usage.cache_write * write
            + usage.cache_write_hour * write * _HOUR
        )
        put_out = usage.output * self.output
        return (put_in * (self.long_input if long else 1) + put_out * (self.long_output if long else 1)) / _MILLION


def _claude(input: float, output: float, read: float = 0.1, **more: float) -> Price:
    """Writing into the cache costs a quarter more than input; reading from it is a part of its price."""
    return Price.model_validate(
        {"input": input, "output": output, "cache_read": input * read, "cache_write": input * 1.25, **more}
    )


def _gpt(input: float, output: float) -> Price:
    return Price(input=input, output=output, cache_read=input / 10)


def _gemini(input: float, output: float, long_from: int | None = None) -> Price:
    longer = {"long_from": long_from, "long_input": 2, "long_output": 1.5} if long_from else {}
    return Price.model_validate({"input": input, "output": output, "cache_read": input / 10, **longer})


BUILT_IN: Mapping[str, Price] = {
    "claude-fable-5-1*": _claude(10, 50, 0.025),
    "claude-fable-5*": _claude(10, 50),
    "claude-mythos-5-1*": _claude(10, 50, 0.025),
    "claude-mythos-5*": _claude(10, 50),
    "claude-opus-5-5*": _claude(4, 20, 0.05),
    "claude-opus-5*": _claude(5, 25),
    "claude-opus-4-[5678]*": _claude(5, 25),
    "claude-opus-4*": _claude(15, 75),
    "claude-sonnet-5-5*": _claude(2, 10, 0.05),
    "claude-sonnet-5*": _claude(2, 10),
    "claude-sonnet-4*": _claude(3, 15),
    "claude-3-7-sonnet*": _claude(3, 15),
    "claude-3-5-sonnet*": _claude(3, 15),
    "claude-haiku-5-5*": _claude(0.1, 0.5, long_from=100_000, long_input=5, long_output=5),
    "claude-haiku-4-5*": _claude(1, 5),
    "claude-3-5-haiku*": _claude(0.8, 4),
    "gpt-5.5*": _gpt(5, 30),
    "gpt-5.4*": _gpt(2.5, 15),
    "gpt-5.4-mini*": _gpt(0.75, 4.5),
    "gpt-5.3*": _gpt(1.75, 14),
    "gpt-5.2*": _gpt(1.75, 14),
    "gpt-5.1*": _gpt(1.25, 10),
    "gpt-5": _gpt(1.25, 10),
    "gpt-5-20*": _gpt(1.25, 10),
    "gpt-5-codex*": _gpt(1.25, 10),
    "gpt-5-mini*": _gpt(0.25, 2),
    "gpt-5-nano*": _gpt(0.05, 0.4),
    "gpt-4.1*": Price(input=2, output=8, cache_read=0.5),
    "gpt-4.1-mini*": Price(input=0.4, output=1.6, cache_read=0.1),
    "gpt-4.1-nano*": Price(input=0.1, output=0.4, cache_read=0.025),
    "gpt-4o*": Price(input=2.5, output=10, cache_read=1.25),
    "gpt-4o-mini*": Price(input=0.15, output=0.6, cache_read=0.075),
    "gemini-3-pro*": _gemini(2, 12, 200_000),
    "gemini-2.5-pro*": _gemini(1.25, 10, 200_000),
    "gemini-2.5-flash*": _gemini(0.3, 2.5),
    "gemini-2.5-flash-lite*": _gemini(0.1, 0.4),
}
"""A model that is not here has no price until its owner writes one: a guess would be worse than none. So no name ends
in a star where a dearer kind of the same model is known to exist."""

_DEARER = re.compile(r"gpt-.*-pro\b|-(audio|image|live|realtime|search|transcribe|tts)\b")
"""Of these makes the price is another by far, or not by the token of text, and none is built in."""


def price_of(model: str, own: Mapping[str, Price]) -> Price | None:
    """The owner's price, else the built-in one. Of `openai/gpt-5.5` the maker may be left out."""
    for name in dict.fromkeys((model, model.rpartition("/")[2])):
        if found := _longest(name, own):
            return found
        if not _DEARER.search(name) and (found := _longest(name, BUILT_IN)):
            return found
    return None


def _longest(name: str, prices: Mapping[str, Price]) -> Price | None:
    fitting = [pattern for pattern in prices if fnmatchcase(name, pattern)]
    return prices[max(fitting, key=len)] if fitting else None
