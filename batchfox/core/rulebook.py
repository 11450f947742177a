"""`RuleBook`: the rules by name, what each model takes, and the user's say in both.

Source: api.md "Submit" and its table of model rules, seeds 000 (video), 002 (vision), 004 (custom). They change, so
they are data: `[rules] off` switches a rule off, `[[rules.models]]` adds a model or knows one better.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from batchfox.core.nearest import nearest
from batchfox.core.sections import ModelRule, Rules
from batchfox.core.shape import Kind
from batchfox.errors import JobError

# Limits. Characters are Python's: code points.
MOST_PROMPT = 100_000
MOST_SYSTEM_PROMPT = 10_000
MOST_MEDIA = 10
# Megabytes of 10^6: the documents do not say which, and these are within the limit either way.
MOST_BODY_BYTES = 100_000_000
MOST_AUDIO_BODY_BYTES = 20_000_000
MOST_DEPTH = 100
LEAST_INTEGER, MOST_INTEGER = -(1 << 63), (1 << 64) - 1
VIDEO_EXTENSIONS = ("mp4", "mpeg", "mpg", "mov", "webm")

RULES: dict[str, str] = {
    "json": "a request is JSON: text without lone surrogates, finite numbers, integers of 64 bits, depth 100 at most",
    "family": "one kind of content: messages, or a prompt with at most one of image_urls, video_urls, audio_url",
    "model": "model is required: text, not empty",
    "prompt": "prompt is text of at most 100,000 characters; required unless there is audio_url or messages",
    "system_prompt": "system_prompt is text of at most 10,000 characters, or null",
    "messages": "messages is a list of objects with role and content, not empty",
    "block": "a block of content is text, image_url, video_url, audio_url or file_url, each with what it names",
    "media_count": "image_urls and video_urls hold 1 to 10",
    "media_url": "a medium is an http(s) URL with a host and without spaces",
    "data_uri": "an inline medium is data:<kind>/<type>;base64,<payload> of the right kind",
    "video_extension": "a direct video URL ends in .mp4, .mpeg, .mpg, .mov or .webm (in messages: a warning)",
    "youtube": "YouTube as watch?v=ID or youtu.be/ID only, and only for gemini",
    "audio_format": "audio is of a format the model reads",
    "max_tokens": "max_tokens is an integer, 1 or more, or null",
    "temperature": "temperature is 0 to 2, in messages any finite number, or null",
    "top_p": "top_p is a number or null",
    "flags": 'sync and stream are booleans (stream may be "auto"); reasoning is a boolean or null',
    "modality": "the model takes this kind of medium",
    "model_media_count": "the model takes this many media",
    "max_tokens_required": "the model needs max_tokens with messages",
    "max_tokens_least": "the model needs max_tokens of at least this, with messages",
    "sync_custom": "sync is not documented with messages (a warning)",
    "body_size": "the body is at most 100 MB, for gemini with audio_url at most 20 MB",
}
FIXED = frozenset({"json"})


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes. None: no rule is known, the API decides.

    `match` is a name, or a prefix with `*`. `most_visuals`: images and videos together. `thinks`: it reasons unless
    told not to, and its reasoning is in the stream only (seed 004).
    """

    match: str
    media: frozenset[Kind] | None = None
    most_images: int | None = None
    most_videos: int | None = None
    most_visuals: int | None = None
    requires_max_tokens: bool = False
    least_max_tokens: int | None = None
    least_max_tokens_severity: Literal["refusal", "warning"] = "refusal"
    youtube: bool = False
    thinks: bool = False
    audio_formats: tuple[str, ...] | None = None
    most_audio_body_bytes: int | None = None

    def fits(self, model: str) -> bool:
        if self.match.endswith("*"):
            return model.startswith(self.match[:-1])
        return model == self.match


_IMAGE = frozenset[Kind]({"image"})
_ALL = frozenset[Kind]({"image", "video", "audio", "file"})
_GEMINI_AUDIO = ("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a")

# The first that fits holds.
MODELS: tuple[ModelFacts, ...] = (
    ModelFacts(match="claude-*", media=frozenset[Kind]({"image", "file"}), requires_max_tokens=True),
    ModelFacts(match="gpt-5.4", media=_IMAGE, least_max_tokens=16),
    ModelFacts(match="gpt-5.5", media=_IMAGE, least_max_tokens=16, most_images=1),
    ModelFacts(match="gpt-*", media=_IMAGE, least_max_tokens=16, least_max_tokens_severity="warning"),
    ModelFacts(match="kimi-k2.6", media=_IMAGE, thinks=True),
    ModelFacts(
        match="gemini-2.5-pro",
        media=_ALL,
        youtube=True,
        audio_formats=_GEMINI_AUDIO,
        most_audio_body_bytes=MOST_AUDIO_BODY_BYTES,
        thinks=True,
    ),
    ModelFacts(
        match="gemini-*",
        media=_ALL,
        youtube=True,
        audio_formats=_GEMINI_AUDIO,
        most_audio_body_bytes=MOST_AUDIO_BODY_BYTES,
    ),
    ModelFacts(
        match="nemotron-3-nano-omni",
        media=_ALL - {"file"},
        most_images=1,
        most_videos=1,
        most_visuals=1,
        audio_formats=("wav", "mp3"),
    ),
)


MOST_FOUND = 1000


class RuleBook(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in force: which are off, and what is known of the models, the user's word first."""

    off: frozenset[str] = frozenset()
    models: tuple[ModelFacts, ...] = MODELS
    # What was looked up before, by the name as rows spell it.
    found: dict[str, ModelFacts | None] = msgspec.field(default_factory=dict)

    @classmethod
    def build(cls, rules: Rules) -> RuleBook:
        """The book for `[rules]`. Raises `JobError` for a rule that does not exist or cannot be switched off."""
        for at, name in enumerate(rules.off):
            if name not in RULES:
                raise JobError(
                    f'rules.off[{at}]: no rule is called "{name}"{nearest(name, RULES)}; there are: {", ".join(RULES)}'
                )
            if name in FIXED:
                raise JobError(f'rules.off[{at}]: "{name}" cannot be switched off: {RULES[name]}')
        for at, model in enumerate(rules.models):
            if not model.match.strip() or "*" in model.match[:-1]:
                raise JobError(
                    f'rules.models[{at}].match: expected a model\'s name, or a prefix with "*" at its end, '
                    f"got {model.match!r}"
                )
        # A name beats a prefix, a long prefix a short one.
        added = sorted(rules.models, key=lambda rule: (rule.match.endswith("*"), -len(rule.match)))
        return cls(off=frozenset(rules.off), models=(*map(_facts_of, added), *MODELS))

    def facts_of(self, model: object) -> ModelFacts | None:
        """What is known of a model, or None; case does not matter."""
        if not isinstance(model, str):
            return None
        try:
            return self.found[model]
        except KeyError:
            name = model.lower()
            facts = next((facts for facts in self.models if facts.fits(name)), None)
            if len(self.found) < MOST_FOUND:  # rows may name any number of models
                self.found[model] = facts
            return facts


def rule_names() -> dict[str, str]:
    """Every rule by the name `[rules] off` takes, with one line on what it demands."""
    return dict(RULES)


def _facts_of(rule: ModelRule) -> ModelFacts:
    return ModelFacts(
        match=rule.match.strip().lower(),
        # An empty list cannot be told from one left out: it says nothing of media.
        media=frozenset(rule.media) or None,
        most_images=rule.most_images,
        most_videos=rule.most_videos,
        requires_max_tokens=rule.requires_max_tokens,
        least_max_tokens=rule.least_max_tokens,
        youtube=rule.youtube,
        thinks=rule.thinks,
    )
