"""A guess over rows: the id, the media, the prompt; and above all what must not be guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.glance import Glance
from batchfox.core.guess import MAX_TOKENS, MODEL, Guess, guess
from batchfox.core.hints import reach, words_of
from batchfox.core.render import Renderer
from batchfox.core.row import Row
from batchfox.core.sandbox import Sandbox
from batchfox.core.template import Template


def guess_of(*rows: dict[str, Any], is_whole: bool = True) -> Guess:
    glance = Glance()
    for row in rows:
        glance.see(row)
    return guess(glance, is_whole=is_whole)


def content(found: Guess) -> dict[str, Any]:
    """[request] without what every guess has."""
    return {name: value for name, value in found.request.items() if name not in ("model", "max_tokens")}


def picture(number: int) -> str:
    return f"https://x.org/{number}.jpg"


# The id.


def test_an_id_is_a_column_that_is_called_so_and_unique() -> None:
    rows = [{"url": picture(n), "image_id": f"i{n}", "name": f"n{n}"} for n in range(3)]
    found = guess_of(*rows)
    assert found.id == "image_id"
    assert found.roles == {"image_id": "id", "url": "image_urls"}
    assert guess_of(*({"uuid": n, "id": n} for n in range(3))).id == "id"


def test_an_id_that_stands_there_twice_or_not_at_all_names_no_row() -> None:
    for rows in ([{"id": 1, "text": "a b"}, {"id": 1, "text": "c d"}], [{"id": 1, "text": "a b"}, {"text": "c d"}]):
        found = guess_of(*rows)
        assert found.id is None
        assert any("id looks like an id, but" in note for note in found.notes)


def test_numbers_and_texts_that_are_the_same_id_are_no_two_ids() -> None:
    assert guess_of({"id": 1, "text": "a b"}, {"id": "1", "text": "c d"}).id is None


def test_of_a_part_of_the_rows_only_a_name_that_says_so_makes_an_id() -> None:
    files = [{"file": f"{n}.png"} for n in range(3)]
    assert guess_of(*files).id == "file"
    assert guess_of(*files, is_whole=False).id is None
    named = [{"file": f"{n}.png", "row_id": n} for n in range(3)]
    assert guess_of(*named, is_whole=False).id == "row_id"


@pytest.mark.parametrize("value", [1.5, True, ["a"], "some words in prose that are unique", "x" * 300])
def test_what_can_be_no_id(value: Any) -> None:
    assert guess_of({"id": value, "text": "a b"}).id is None


# Media.


def test_a_question_goes_with_its_picture() -> None:
    found = guess_of(*({"id": n, "photo": picture(n), "question": f"What is {n}?"} for n in range(3)))
    assert content(found) == {"prompt": "{{ question }}", "image_urls": ["{{ photo }}"]}
    assert found.request["model"] == MODEL
    assert found.request["max_tokens"] == MAX_TOKENS


def test_a_link_without_an_ending_is_what_its_column_is_called() -> None:
    found = guess_of({"imageURL": "https://x.org/17", "home page": "https://x.org/"})
    assert content(found)["image_urls"] == ["{{ imageURL }}"]
    assert found.roles["home page"] == "links (to what?)"


def test_columns_with_odd_names_are_reached_through_row() -> None:
    assert content(guess_of({"image URL": picture(1)}))["image_urls"] == ['{{ row["image URL"] }}']


def test_a_row_without_the_medium_that_the_prompt_is_about_is_not_paid_for() -> None:
    found = guess_of({"id": 1, "url": picture(1)}, {"id": 2, "url": None})
    assert content(found)["image_urls"] == ["{{ url }}"], "null makes the row invalid"
    assert found.notes == ["1 of 2 rows come without image: invalid"]


def test_with_a_question_of_its_own_a_row_may_do_without_a_medium() -> None:
    found = guess_of({"url": picture(1), "question": "What?"}, {"url": "", "question": "Why?"})
    assert content(found)["image_urls"] == "{{ url | default('', true) }}"
    assert not found.notes


def test_columns_that_are_filled_in_turn_are_one_medium() -> None:
    found = guess_of({"id": 1, "url": picture(1)}, {"id": 2, "path": "a.png"})
    assert content(found)["image_urls"] == ["{{ url | default(path, true) }}"]
    assert found.paths == ["a.png"]


def test_kinds_in_turn_fill_a_field_each_and_kinds_together_do_not() -> None:
    turns = guess_of({"id": 1, "a": "x.mp4"}, {"id": 2, "b": "y.png"})
    assert content(turns) == {
        "prompt": "Describe this in one sentence.",
        "video_urls": "{{ a | default('', true) }}",
        "image_urls": "{{ b | default('', true) }}",
    }
    both = guess_of({"id": 1, "thumbnail": picture(1), "clip": "https://x.org/1.mp4"})
    assert content(both)["video_urls"] == ["{{ clip }}"]
    assert "image_urls" not in both.request
    assert both.notes == ["media too, and not in the request: thumbnail"]


def test_documents_travel_in_messages() -> None:
    found = guess_of({"id": 1, "pdf": "https://x.org/a.pdf"})
    (message,) = content(found)["messages"]
    assert message["content"][1] == {"type": "file_url", "file_url": {"url": "{{ pdf }}"}}


# Text.


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"text": "a b"}, "Write one sentence about {{ text }}."),
        ({"review": "long and " * 20}, "Summarize this text in one sentence.\n\n{{ review }}"),
        ({"question": "Q?", "context": "C"}, "{% if context %}{{ context }}\n\n{% endif %}{{ question }}"),
        ({"instruction": "I", "input": "x"}, "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}"),
        ({"question": "Q?", "answer": "A", "label": "L"}, "{{ question }}"),
        ({"a": 1, "b": 2.5}, "Describe this record in one sentence.\n\na: {{ a }}\nb: {{ b }}"),
    ],
)
def test_the_prompt_is_made_of_what_rows_ask_or_tell(row: dict[str, Any], prompt: str) -> None:
    assert content(guess_of(row, row)) == {"prompt": prompt}


# Columns under the API's own names.


def test_fields_that_rows_bring_are_left_to_them() -> None:
    found = guess_of(
        {"prompt": "a", "image_urls": ["a.png"], "max_tokens": 3, "model": "gpt-5.5", "system_prompt": "s"}
    )
    assert found.request == {}
    assert found.fields is None
    assert set(found.taken) == {"prompt", "image_urls", "max_tokens", "model", "system_prompt"}


def test_columns_that_mean_something_else_are_no_fields() -> None:
    row = {"text": "a b", "temperature": 25.3, "model": "Toyota", "stop": "Main Street", "reasoning": "because"}
    found = guess_of(row)
    assert (found.fields, found.taken) == ([], [])
    assert {name for name, role in found.roles.items() if role == "no request field"} == set(row) - {"text"}
    assert len(found.notes) == 4


def test_messages_go_before_a_prompt_and_the_last_answer_is_left_out() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    found = guess_of({"prompt": "hi", "messages": chat, "prompt_id": "p"})
    assert content(found) == {"messages": "{{ messages[:-1] }}"}
    assert (found.fields, found.id) == (["messages"], "prompt_id")
    other = guess_of({"id": 1, "conversation": chat[:1]})
    assert content(other) == {"messages": "{{ conversation }}"}


def test_lines_in_the_batch_form_need_nothing() -> None:
    found = guess_of({"custom_id": "a", "body": {"model": "m", "messages": []}})
    assert (found.id, found.request) == ("custom_id", {})


# Names.


def test_names_fall_into_words() -> None:
    assert words_of("imageURL") == ["image", "url"]
    assert words_of("Product title (EN)") == ["product", "title", "en"]
    assert words_of("user_id2") == ["user", "id", "2"]


NAMES = st.text("ab1_ .-\"'\\{}%#\n\t\x00\x7f\u2028\u202eé日😀", min_size=1, max_size=8)


@given(NAMES)
def test_every_name_is_reached_by_a_template(name: str) -> None:
    template = Template(f"{{{{ {reach(name)} }}}}", "request.prompt", Sandbox())
    assert template.render({name: "the value", "other": 1}) == "the value"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text('ab "{}%é\n', max_size=20),
    st.sampled_from(["a.png", "https://x.org/a.mp4", "data:image/png;base64,AAAA", "https://x.org/", "[", "[{}]"]),
    st.lists(st.sampled_from(["a.png", "b.wav", 1, None, {}]), max_size=3),
    st.fixed_dictionaries({"role": st.just("user"), "content": st.sampled_from(["", "hi", None])}),
)
COLUMNS = st.one_of(
    NAMES,
    st.sampled_from(
        ["id", "prompt", "messages", "model", "image_urls", "audio_url", "stop", "text", "question", "row"]
    ),
)


@given(st.lists(st.dictionaries(COLUMNS, VALUES, max_size=6), min_size=1, max_size=5), st.booleans())
def test_whatever_the_rows_hold_the_guess_is_a_request_that_can_be_rendered(
    rows: list[dict[str, Any]], is_whole: bool
) -> None:
    found = guess_of(*rows, is_whole=is_whole)
    renderer = Renderer(found.request, fields=found.fields)
    for index, columns in enumerate(rows):
        renderer.render(Row(index=index, id=str(index), key=b"", columns=columns, line=index + 1))
    assert set(found.roles) <= {name for row in rows for name in row} | {"custom_id", "body"}
    if found.id is not None:
        assert len({str(row[found.id]) for row in rows}) == len(rows)
