"""What a reply means: the error table of api.md, entry by entry, for submits and for polls."""

from __future__ import annotations

import pytest

from batchfox.core.event import ApiError
from batchfox.core.verdict import is_transient, of_poll, of_submit

NOTHING = ApiError()


def said(code: str | None = None, kind: str | None = None, message: str | None = None) -> ApiError:
    return ApiError(code=code, type=kind, message=message)


WRONG_ROW = [
    "invalid_param",
    "model_rule_violation",
    "model_not_support_capability",
    "unsupported_content_type",
    "unsupported_advanced_options",
    "no_available_model",
    "model_not_supported",
]


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("code", WRONG_ROW)
def test_a_wrong_row_is_refused(status: int, code: str) -> None:
    assert of_submit(status, said(code, "invalid_request_error"), b"{}") == "refused"


@pytest.mark.parametrize(
    ("status", "error", "body", "meaning"),
    [
        (400, NOTHING, b"", "refused"),
        (422, NOTHING, b"<html>", "refused"),
        (422, said("no_compatible_channel", "service_unavailable_error"), b"{}", "row"),
        (422, said("no_compatible_channel"), b"{}", "row"),
        (422, said(None, "service_unavailable_error"), b"{}", "row"),
        (422, said("no_compatible_channel", "invalid_request_error"), b"{}", "row"),
        (400, said("no_compatible_channel"), b"{}", "refused"),
        (401, said(None, "authentication_error"), b"{}", "key"),
        (401, NOTHING, b"", "key"),
        (403, said(None, "authentication_error"), b"{}", "key"),
        (403, said("authentication_error"), b"{}", "key"),
        (403, said("model_not_allowed", "permission_error"), b"{}", "refused"),
        (403, NOTHING, b"", "refused"),
        (403, NOTHING, b"error code: 1010", "gateway"),
        (403, NOTHING, b"<html><title>Access denied</title>Error 1010</html>", "gateway"),
        (403, said(None, "authentication_error"), b"error code: 1010", "gateway"),
        (403, NOTHING, b"request 2101077", "refused"),
        (400, NOTHING, b"1010", "refused"),
        (402, said("insufficient_quota"), b"{}", "balance"),
        (402, NOTHING, b"", "balance"),
        (404, said("not_found"), b"{}", "refused"),
        (413, NOTHING, b"<html>", "refused"),
        (429, said(None, "rate_limit_error"), b"{}", "rate"),
        (429, NOTHING, b"", "rate"),
        (503, said(None, "service_unavailable"), b"{}", "service"),
        (503, NOTHING, b"<html>", "service"),
        *((status, NOTHING, b"", "doubt") for status in (500, 502, 504, 408, 520, 521, 522, 523, 524, 530, 599)),
        # Nobody documents these; a redirect is not followed, since it would repeat the POST.
        *((status, NOTHING, b"", "doubt") for status in (301, 302, 303, 307, 308, 405, 406, 409, 410, 415, 418, 451)),
    ],
)
def test_the_error_table_of_submits(status: int, error: ApiError, body: bytes, meaning: str) -> None:
    assert of_submit(status, error, body) == meaning


@pytest.mark.parametrize(
    ("status", "error", "body", "meaning"),
    [
        (401, NOTHING, b"", "key"),
        (403, said(None, "authentication_error"), b"{}", "key"),
        (403, said("authentication_error"), b"{}", "key"),
        (403, NOTHING, b"error code: 1010", "gateway"),
        (403, NOTHING, b"", "again"),
        (404, said("not_found"), b"{}", "missing"),
        (404, NOTHING, b"<html>", "missing"),
        (429, NOTHING, b"", "rate"),
        *((status, NOTHING, b"", "again") for status in (400, 402, 408, 413, 422, 500, 502, 503, 504, 520, 524, 302)),
    ],
)
def test_the_error_table_of_polls(status: int, error: ApiError, body: bytes, meaning: str) -> None:
    assert of_poll(status, error, body) == meaning


def test_only_documented_refusals_say_that_no_task_exists() -> None:
    # A new entry here is a promise about money: it needs a source.
    clear = {status for status in range(300, 600) if of_submit(status, NOTHING, b"") != "doubt"}
    assert clear == {400, 401, 402, 403, 404, 413, 422, 429, 503}


def test_no_status_of_a_poll_ends_a_row_by_itself() -> None:
    ends = {status: of_poll(status, NOTHING, b"") for status in range(300, 600)}
    assert {status for status, meaning in ends.items() if meaning != "again"} == {401, 404, 429}


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (said("upstream_timeout"), True),
        (said("timeout"), True),
        (said("server_error"), True),
        (said("internal_error"), True),
        (said("no_compatible_channel"), True),
        (said("rate_limit_exceeded"), True),
        (said("503"), True),
        (said(None, None, "The upstream is overloaded, try again"), True),
        (said("task_failed", "task_error", "Connection reset by peer"), True),
        (said("task_failed", "task_error", "request timed out"), True),
        (said("task_failed", "task_error", "HTTP 502 from provider"), True),
        (said("task_failed", "task_error", "image 5021 is broken"), False),
        (said("content_policy_violation"), False),
        (said("invalid_param", None, "upstream says try again"), False),
        (said("task_failed", None, "blocked by safety system upstream"), False),
        (said("model_not_supported"), False),
        (said("task_failed", "task_error", "the dog ate it"), False),
        (said("task_failed"), False),
        (NOTHING, False),
    ],
)
def test_a_failed_task_is_transient_only_where_its_error_says_so(error: ApiError, is_so: bool) -> None:
    assert is_transient(error) is is_so


def test_the_code_of_a_failed_task_speaks_before_its_message() -> None:
    assert is_transient(said("upstream_timeout", None, "invalid response"))
    assert not is_transient(said("invalid_image", None, "timeout while fetching"))
