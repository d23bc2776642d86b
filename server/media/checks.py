"""What can be refused before anything is fetched or decoded; and what one request has used of its limits so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.core import ClipSource, DocumentSource, PictureSource, Source, Url
from server.errors import BadRequest, MediaKind, invalid_media
from server.media.frames import check_choice
from server.media.limits import RequestLimits, WorkLimits, check_dpi, too_many_tokens
from server.media.pixels import check_budget, most_pixels
from server.media.sources import EXAMPLES, NOUNS, Content, Inline, Remote, parse_source, too_large_together
from server.media.workers.jobs import ClipJob, Job, PagesJob, PictureJob


@dataclass(frozen=True, slots=True)
class Checked:
    """A source that may be tried: where its files are, and what is to be done with them."""

    source: Source
    contents: tuple[Content, ...]
    job: Job
    most_tokens: int
    """More it cannot take in the prompt."""


def check(sources: Sequence[Source], limits: RequestLimits, work: WorkLimits) -> list[Checked]:
    """Check all sources of a request.

    Raises BadRequest and its kinds, with the `param` of the source: too many of a kind, controls that nothing can
    satisfy, and what `parse_source` refuses.
    """
    _check_counts(sources, limits)
    return [CHECKS[type(source)](source, limits, work) for source in sources]


def _check_counts(sources: Sequence[Source], limits: RequestLimits) -> None:
    for kind, noun, most in (
        (PictureSource, "pictures", limits.max_pictures),
        (ClipSource, "clips", limits.max_clips),
        (DocumentSource, "documents", limits.max_pages),
    ):
        found = [source for source in sources if isinstance(source, kind)]
        if len(found) > most:
            raise BadRequest(
                f"The request has {len(found)} {noun}, more than the {most} allowed.", param=found[most].param
            )


def _picture(source: PictureSource, limits: RequestLimits, work: WorkLimits) -> Checked:
    check_budget(source.budget, work.pixels, param=source.param)
    job = PictureJob(source.param, limits.max_tokens, source.budget)
    most = min(limits.max_tokens, work.tokens(most_pixels(source.budget, work.pixels)))
    return Checked(source, (_parse(source.url, "image", source.param, limits),), job, most)


def _clip(source: ClipSource, limits: RequestLimits, work: WorkLimits) -> Checked:
    if not limits.takes_clips:
        message = "This model is shown pictures only: send some frames of the clip as pictures."
        raise invalid_media("video", message, code="invalid_image", param=source.param)
    check_choice(source.frames, source.budget, work.clips, param=source.param)
    job = ClipJob(source.param, limits.max_tokens, source.budget, is_file=source.is_file, choice=source.frames)
    if source.is_file:
        contents: tuple[Content, ...] = (_parse(source.urls[0], "video", source.param, limits),)
        return Checked(source, contents, job, limits.max_tokens)
    most = work.clips.hard_max_frames
    if len(source.urls) > most:
        raise BadRequest(f"The clip has {len(source.urls)} frames, more than the {most} allowed.", param=source.param)
    contents = tuple(_parse(url, "image", f"{source.param}[{index}]", limits) for index, url in enumerate(source.urls))
    return Checked(source, contents, job, limits.max_tokens)


def _document(source: DocumentSource, limits: RequestLimits, work: WorkLimits) -> Checked:
    check_budget(source.budget, work.pixels, param=source.param)
    check_dpi(source.dpi, work.documents, param=source.param)
    job = PagesJob(
        source.param,
        limits.max_tokens,
        source.budget,
        pages=source.pages,
        dpi=source.dpi,
        password=source.password,
    )
    each = work.tokens(most_pixels(source.budget, work.pixels))
    contents = (_parse(source.url, "file", source.param, limits),)
    return Checked(source, contents, job, min(limits.max_tokens, each * limits.max_pages))


CHECKS: dict[type[Source], Callable[[Any, RequestLimits, WorkLimits], Checked]] = {
    PictureSource: _picture,
    ClipSource: _clip,
    DocumentSource: _document,
}
"""How each kind of source is checked."""


def _parse(url: Url, kind: MediaKind, param: str, limits: RequestLimits) -> Content:
    content = parse_source(url, kind, max_bytes=limits.max_bytes[kind], param=param)
    if isinstance(content, Remote) and not limits.remote:
        raise invalid_media(
            kind,
            f"This server does not fetch anything: send the {NOUNS[kind]} as a data URL, such as {EXAMPLES[kind]}",
            code="invalid_image_url",
            param=param,
        )
    return content


class Spent:
    """What one request has used of its limits so far."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self.elsewhere = 0
        """Bytes that did not come with the request."""
        self.tokens = 0
        self._pages = 0

    def add_inline(self, checked: Sequence[Checked]) -> None:
        """Count what came along with the request."""
        for one in checked:
            for content in one.contents:
                if isinstance(content, Inline):
                    self.add_bytes(content.size, content.kind, content.param)

    def add_bytes(self, size: int, kind: MediaKind, param: str) -> None:
        """Count bytes of a file. Raises the kind's error (image_file_too_large)."""
        self._bytes += size
        if self._bytes > self._limits.max_request_bytes:
            raise too_large_together(kind, self._limits.max_request_bytes, param)

    def add_tokens(self, tokens: int) -> None:
        """Count prompt tokens. Raises ContextLengthExceeded."""
        self.tokens += tokens
        if self.tokens > self._limits.max_tokens:
            raise too_many_tokens(self._limits.max_tokens)

    def add_pages(self, pages: int, param: str) -> None:
        """Count drawn pages. Raises InvalidFile."""
        self._pages += pages
        if self._pages > self._limits.max_pages:
            raise invalid_media(
                "file",
                f"The documents of this request have more than the {self._limits.max_pages} pages allowed together; "
                "choose some with 'pages'.",
                code="image_too_large",
                param=param,
            )
