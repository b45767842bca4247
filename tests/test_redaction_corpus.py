"""Redaction on a corpus made for it: recall and precision do not fall below what was reached. Figures of the whole
benchmark stand in docs/benchmarks.md."""

import pytest

from benchmarks import redaction
from benchmarks.planted import TOKENS, look_alikes, look_alikes_in_code, secrets_in_chat, secrets_in_code
from core.redact import Redactor, secrets_in

SEED = 4
"""None of the benchmark's own."""


def test_the_corpus_is_large_and_of_many_kinds() -> None:
    planted, harmless = secrets_in_chat(SEED), look_alikes(SEED)
    assert len({each.text for each in planted}) >= 400
    assert len({each.kind for each in planted}) >= 50
    assert len({each.text for each in harmless}) >= 200
    assert len({each.kind for each in harmless}) >= 20
    assert [each for each in planted if each.secret not in each.text and each.kind != "private key"] == []


def test_secrets_go_from_chat_and_what_looks_like_them_stays() -> None:
    score = redaction.in_chat(lambda text: Redactor().text(text), SEED)
    print(f"recall {score.recall:.1%}, precision {score.precision:.1%}")
    assert score.recall >= redaction.RECALL, score.missed
    assert score.precision >= redaction.PRECISION, score.wrong


def test_secrets_are_found_in_code_and_what_looks_like_them_is_not() -> None:
    score = redaction.in_code(lambda text: bool(secrets_in(text)), SEED)
    print(f"recall {score.recall:.1%}, precision {score.precision:.1%}")
    assert score.recall >= redaction.RECALL, score.missed
    assert score.precision >= redaction.PRECISION, score.wrong


@pytest.mark.parametrize("kind", TOKENS)
def test_no_token_of_a_known_form_is_ever_missed(kind: str) -> None:
    for seed in (SEED, 5, 6):
        for each in (*secrets_in_chat(seed), *secrets_in_code(seed)):
            if each.kind == kind:
                assert not redaction.remains(each.secret, Redactor().text(each.text)), each.text
                assert secrets_in(each.text), each.text


def test_no_text_of_the_corpus_is_redacted_twice() -> None:
    for each in (*secrets_in_chat(SEED), *look_alikes(SEED), *secrets_in_code(SEED), *look_alikes_in_code(SEED)):
        once = Redactor().text(each.text)
        assert Redactor().text(once) == once
