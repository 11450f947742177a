"""What the API refuses of a request's body, held here on its own: the client's rules are what it is to test.

`parse` and `check` raise `RefusalError` with the status, type and code of the API and a message that names the field,
what was found and what is allowed. Where the API's documents are silent, what its upstreams would refuse is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batchfox.simulator.answers import Shape, shape_of
from batchfox.simulator.catalogue import Catalogue, Model
from batchfox.simulator.media import check_audio, check_images, check_single, check_videos
from batchfox.simulator.messages import check_messages
from batchfox.simulator.refusal import RefusalError, invalid

_MOST_PROMPT = 100_000
_MOST_SYSTEM_PROMPT = 10_000
_MOST_TEMPERATURE = 2
_LEAST_GPT_TOKENS = 16
_AUDIO_BODY_BYTES = 20_000_000
_CAPABILITY = {"vision": "vision", "video": "video", "audio": "audio", "text": "text"}


def parse(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; else 400."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"body: not valid JSON: {error}", status=400) from error
    if not isinstance(request, dict):
        raise invalid(f"body: expected a JSON object, found {_word(request)}", status=400)
    return request


def check(request: dict[str, Any], catalogue: Catalogue, *, body_bytes: int) -> None:
    """Passes, or raises the first refusal. After it, `answers.brief` may take the request as well-formed."""
    model = _check_model(request, catalogue)
    shape = shape_of(request)
    if shape is None:
        raise invalid("prompt: required (or messages)")
    _check_shape(request, shape)
    _check_switches(request)
    _check_max_tokens(request, model, shape)
    if shape == "custom":
        _check_sampling(request)
        check_messages(request["messages"], model)
        return
    _check_prompt_fields(request, shape)
    if _CAPABILITY[shape] not in model.capabilities:
        raise invalid(f"{_field_of(shape)}: model {model.id} takes no {shape}", "model_not_support_capability")
    _check_media(request, shape, model, body_bytes)


def _check_model(request: dict[str, Any], catalogue: Catalogue) -> Model:
    name = request.get("model")
    if not isinstance(name, str) or not name:
        raise invalid(f"model: expected a model's name, found {_word(name)}")
    model = catalogue.find(name)
    if model is None:
        raise invalid(f'model: "{name}" is not supported', "model_not_supported")
    return model


def _field_of(shape: Shape) -> str:
    return {"vision": "image_urls", "video": "video_urls", "audio": "audio_url", "custom": "messages"}.get(
        shape, "prompt"
    )


def _check_shape(request: dict[str, Any], shape: Shape) -> None:
    """No request has the marks of two shapes."""
    marks = [field for field in ("messages", "image_urls", "video_urls", "audio_url") if request.get(field) is not None]
    if shape == "custom" and request.get("prompt") is not None:
        marks.append("prompt")
    if len(marks) > 1:
        raise invalid(f"{', '.join(marks)}: only one of these may be given")


def _check_switches(request: dict[str, Any]) -> None:
    for field in ("sync", "stream"):
        if field in request and not isinstance(request[field], bool):
            raise invalid(f"{field}: expected true or false, found {_word(request[field])}")


def _check_max_tokens(request: dict[str, Any], model: Model, shape: Shape) -> None:
    found = request.get("max_tokens")
    if found is None:
        if shape == "custom" and model.id.startswith("claude-"):
            raise invalid(f"max_tokens: required for {model.id}", "model_rule_violation")
        return
    if not isinstance(found, int) or isinstance(found, bool):
        raise invalid(f"max_tokens: expected a whole number or null, found {_word(found)}")
    if found < 1:
        raise invalid(f"max_tokens: expected 1 or more, found {found}")
    if shape == "custom" and model.id.startswith(("gpt-5.4", "gpt-5.5")) and found < _LEAST_GPT_TOKENS:
        raise invalid(
            f"max_tokens: expected {_LEAST_GPT_TOKENS} or more for {model.id}, found {found}", "model_rule_violation"
        )


def _check_sampling(request: dict[str, Any]) -> None:
    for field in ("temperature", "top_p"):
        found = request.get(field)
        if found is not None and not _is_number(found):
            raise invalid(f"{field}: expected a number or null, found {_word(found)}")
    stop = request.get("stop")
    is_list = isinstance(stop, list) and all(isinstance(word, str) for word in stop)
    if stop is not None and not isinstance(stop, str) and not is_list:
        raise invalid(f"stop: expected a string, a list of strings or null, found {_word(stop)}")


def _check_prompt_fields(request: dict[str, Any], shape: Shape) -> None:
    if shape != "audio" or request.get("prompt") is not None:
        _check_text(request, "prompt", _MOST_PROMPT)
    if request.get("system_prompt") is not None:
        _check_text(request, "system_prompt", _MOST_SYSTEM_PROMPT)
    temperature = request.get("temperature")
    if temperature is not None:
        if not _is_number(temperature):
            raise invalid(f"temperature: expected a number or null, found {_word(temperature)}")
        if not 0 <= temperature <= _MOST_TEMPERATURE:
            raise invalid(f"temperature: expected 0 to {_MOST_TEMPERATURE}, found {temperature}")
    reasoning = request.get("reasoning")
    if reasoning is not None and not isinstance(reasoning, bool):
        raise invalid(f"reasoning: expected true, false or null, found {_word(reasoning)}")


def _check_text(request: dict[str, Any], field: str, most: int) -> None:
    found = request.get(field)
    if not isinstance(found, str):
        raise invalid(f"{field}: expected a string, found {_word(found)}")
    if len(found) > most:
        raise invalid(f"{field}: expected at most {most} characters, found {len(found)}")


def _check_media(request: dict[str, Any], shape: Shape, model: Model, body_bytes: int) -> None:
    match shape:
        case "vision":
            check_images(request["image_urls"])
            check_single(model, images=len(request["image_urls"]), videos=0, field="image_urls")
        case "video":
            check_videos(request["video_urls"], model)
            check_single(model, images=0, videos=len(request["video_urls"]), field="video_urls")
        case "audio":
            if model.id.startswith("gemini-") and body_bytes > _AUDIO_BODY_BYTES:
                raise RefusalError(
                    413,
                    "invalid_request_error",
                    f"audio_url: expected a body of at most {_AUDIO_BODY_BYTES} bytes, found {body_bytes}",
                )
            check_audio(request["audio_url"], model, "audio_url")
        case _:
            return


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(value: object) -> str:
    """What was found, in JSON's own words, short."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a string" if value else "an empty string"
        case list():
            return "a list"
        case _:
            return "an object"
