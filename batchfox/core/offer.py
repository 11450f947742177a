"""What each model takes and costs: the API's list of models beside the rules and the price list.

Source: api.md, "Around it": `GET /v1/configs/llm_generations_models` answers what the key may use.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batchfox.core.prices import TOKENS_A_CREDIT, Price
from batchfox.core.rulebook import MOST_MEDIA, ModelFacts, RuleBook
from batchfox.core.shape import Kind

# The API's word for it → ours.
_CAPABILITIES: dict[str, Kind] = {"vision": "image", "video": "video", "audio": "audio", "file": "file"}
KINDS: tuple[Kind, ...] = ("image", "video", "audio", "file")
_MILLION = 1_000_000


class Offer(msgspec.Struct, kw_only=True):
    """One model. `media`: kinds that it takes, by the API's word, else by the rules; None where neither knows.

    `most_*`: how many in `image_urls` and `video_urls`. `refused`: kinds that the API names and batchfox's rules
    refuse. `is_known`: rules for it are known; without them its limits are None. Credits: None where no price is known.
    """

    id: str
    capabilities: list[str]
    is_known: bool
    media: list[Kind] | None = None
    refused: list[Kind] = msgspec.field(default_factory=list)
    most_images: int | None = None
    most_videos: int | None = None
    is_one_visual: bool = False
    requires_max_tokens: bool = False
    least_max_tokens: int | None = None
    youtube: bool = False
    thinks: bool = False
    audio_formats: list[str] | None = None
    credits_per_call: float | None = None
    credits_per_million_prompt_tokens: float | None = None
    credits_per_million_completion_tokens: float | None = None


def read_offers(listed: Any, prices: dict[str, Price], book: RuleBook) -> list[Offer] | None:
    """The models of the endpoint's answer by name, each once; None where the answer is no list of models."""
    data = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(data, list):
        return None
    found: dict[str, Offer] = {}
    for entry in data:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            words = entry.get("capabilities")
            words = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
            found[name] = _offer(name, words, prices.get(name), book.facts_of(name))
    return [found[name] for name in sorted(found)]


def _offer(name: str, words: list[str], price: Price | None, facts: ModelFacts | None) -> Offer:
    offer = Offer(id=name, capabilities=words, is_known=facts is not None)
    named = {_CAPABILITIES[word] for word in words if word in _CAPABILITIES}
    allowed = facts.media if facts is not None else None
    if words:
        offer.media = [kind for kind in KINDS if kind in named]
        offer.refused = [kind for kind in offer.media if allowed is not None and kind not in allowed]
    elif allowed is not None:
        offer.media = [kind for kind in KINDS if kind in allowed]
    if facts is not None:
        takes = offer.media or []
        offer.most_images = (facts.most_images or MOST_MEDIA) if "image" in takes else None
        offer.most_videos = (facts.most_videos or MOST_MEDIA) if "video" in takes else None
        offer.is_one_visual = facts.most_visuals == 1
        offer.requires_max_tokens = facts.requires_max_tokens
        offer.least_max_tokens = facts.least_max_tokens
        offer.youtube = facts.youtube
        offer.thinks = facts.thinks
        offer.audio_formats = list(facts.audio_formats) if facts.audio_formats and "audio" in takes else None
    if price is not None and price.fixed is not None:
        offer.credits_per_call = price.fixed
    elif price is not None:
        offer.credits_per_million_prompt_tokens = price.ratio * _MILLION / TOKENS_A_CREDIT
        offer.credits_per_million_completion_tokens = offer.credits_per_million_prompt_tokens * price.completion_ratio
    return offer
