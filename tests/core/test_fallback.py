"""Which words say that the API could not fetch a medium, and what of a request can be fetched here."""

from __future__ import annotations

import pytest

from batchfox.core.event import ApiError
from batchfox.core.fallback import is_unfetched, may_fall_back, to_fetch

UNFETCHED = [
    "Failed to download image from https://example.com/a.png",
    "Error while downloading https://example.com/a.png: the image could not be fetched",
    "Timeout while fetching the image URL",
    "Unable to fetch the provided URL",
    "Cannot fetch content from the provided URL. Please ensure the URL is valid",
    "image_urls[0]: URL is unreachable",
    "The video at https://example.com/v.mp4 is not accessible",
    "could not retrieve audio file",
    "Downloading the file failed with HTTP 403",
    "Failed to download a medium from its URL",
]
OTHERS = [
    "The request was rejected by the content policy",
    "The upstream could not read the request: invalid content",
    "The upstream is temporarily unavailable, please try again later",
    "model gpt-5.5 takes one image, found 2",
    "audio_url: expected one string",
    "this key may not use the model",
    "Rate limit reached (rpm 600), please try again in 3 s",
    "image_urls: expected 1 to 10 items, found 11",
    "video_urls[0]: YouTube Shorts are not supported; rewrite the URL to watch?v=<id>",
    "Internal error",
    "",
]


@pytest.mark.parametrize("message", UNFETCHED)
def test_words_that_say_so(message: str) -> None:
    assert is_unfetched(ApiError(message=message))


@pytest.mark.parametrize("message", OTHERS)
def test_words_that_do_not(message: str) -> None:
    assert not is_unfetched(ApiError(message=message))


@pytest.mark.parametrize("code", ["media_download_failed", "image_url_unreachable", "fetch_failed", "url_fetch_error"])
def test_codes_that_say_so(code: str) -> None:
    assert is_unfetched(ApiError(code=code))
    assert not is_unfetched(ApiError(code="invalid_param"))


def test_only_what_can_be_fetched_here_or_uploaded_anew_is_a_reason_to_send_a_row_again() -> None:
    error = ApiError(message=UNFETCHED[0])
    remote = {"image_urls": ["https://example.com/a.png", "data:image/png;base64,AAAA"]}
    youtube = {"video_urls": ["https://youtu.be/x"]}
    assert [medium.place for medium in to_fetch(remote)] == [("image_urls", 0)]
    assert to_fetch(youtube) == []
    assert may_fall_back(remote, ["url", "inline"], error)
    assert may_fall_back(None, ["url"], error)
    assert may_fall_back({"image_urls": ["a.png"]}, ["upload"], error)
    assert not may_fall_back(youtube, ["url"], error)
    assert not may_fall_back({"image_urls": ["a.png"]}, ["inline"], error)
    assert not may_fall_back(remote, ["url", "inline"], ApiError(message=OTHERS[0]))
