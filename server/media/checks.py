"""What can be refused before anything is fetched or decoded; and what one request has used of its limits so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from server.core import ClipSource, DocumentSource, FrameChoice, PictureSource, Source, Url
from server.errors import BadRequest, InvalidFile, MediaKind, invalid_media
from server.media import formats
from server.media.formats import Becomes
from server.media.frames import check_choice
from server.media.limits import RequestLimits, WorkLimits, check_dpi, too_many_tokens
from server.media.pixels import check_budget, most_pixels
from server.media.sources import EXAMPLES, NOUNS, Content, Inline, Remote, parse_source, too_large, too_large_together
from server.media.workers.jobs import KIND_OF, ClipJob, Job, PagesJob, PictureJob

ONE = (1, None)
"""Where a range of pages may end that has one page."""
Kind = TypeVar("Kind")


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
    for kind, (noun, most) in _most_of_each(limits, DocumentSource, PictureSource, ClipSource).items():
        _check_count([source.param for source in sources if isinstance(source, kind)], noun, most)
    return [CHECKS[type(source)](source, limits, work) for source in sources]


def check_counts(checked: Sequence[Checked], limits: RequestLimits) -> None:
    """Count again what a request holds, now that it is known what its files are. Raises BadRequest."""
    for kind, (noun, most) in _most_of_each(limits, PagesJob, PictureJob, ClipJob).items():
        _check_count([one.source.param for one in checked if isinstance(one.job, kind)], noun, most)


def _most_of_each(
    limits: RequestLimits, document: type[Kind], picture: type[Kind], clip: type[Kind]
) -> dict[type[Kind], tuple[str, int]]:
    return {
        picture: ("pictures", limits.max_pictures),
        clip: ("clips", limits.max_clips),
        document: ("documents", limits.max_pages),
    }


def _check_count(params: Sequence[str], noun: str, most: int) -> None:
    if len(params) > most:
        raise BadRequest(f"The request has {len(params)} {noun}, more than the {most} allowed.", param=params[most])


def _picture(source: PictureSource, limits: RequestLimits, work: WorkLimits) -> Checked:
    check_budget(source.budget, work.pixels, param=source.param)
    job = PictureJob(source.param, limits.max_tokens, source.budget)
    contents = (_parse(source.url, "image", source.param, limits),)
    return Checked(source, contents, job, _most_tokens(job, limits, work))


def _clip(source: ClipSource, limits: RequestLimits, work: WorkLimits) -> Checked:
    _require_clips(limits, source.param)
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
    contents = (_parse(source.url, "file", source.param, limits),)
    return Checked(source, contents, job, _most_tokens(job, limits, work))


def _require_clips(limits: RequestLimits, param: str) -> None:
    if not limits.takes_clips:
        message = "This model is shown pictures only: send some frames of the clip as pictures."
        raise invalid_media("video", message, code="invalid_image", param=param)


def _most_tokens(job: Job, limits: RequestLimits, work: WorkLimits) -> int:
    """More the pictures of a job cannot take; clips are bounded by the prompt alone."""
    if isinstance(job, ClipJob):
        return limits.max_tokens
    each = work.tokens(most_pixels(job.budget, work.pixels))
    return min(limits.max_tokens, each * (limits.max_pages if isinstance(job, PagesJob) else 1))


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


# ---- What the bytes decide ----------------------------------------------------------------------------


def settle(checked: Checked, heads: Sequence[bytes | None], limits: RequestLimits, work: WorkLimits) -> Checked:
    """What is to be done with a source, now that its bytes are there: that depends on them, and not on any name.

    `heads` are the beginnings of its files, of HEAD_BYTES at least; None for base64 that cannot be read, about which a
    worker says more.

    Raises the kind's error for a file of no known format, or one that has no place in such a part; and BadRequest and
    its kinds for controls that do not fit it.
    """
    if isinstance(checked.source, ClipSource) and not checked.source.is_file:
        for content, head in zip(checked.contents, heads, strict=True):
            _require_picture(content, head)
        return checked
    [content], [head] = checked.contents, heads
    if head is None:
        return checked
    found = formats.recognised(head)
    if found is None:
        raise formats.unknown(head, content.kind, content.param)
    made = formats.made_of(found, content.kind)
    if made is None:
        raise formats.misplaced(found, content.kind, content.param)
    job = JOBS[made](checked, limits, work)
    return replace(checked, job=job, most_tokens=_most_tokens(job, limits, work))


def check_size(job: Job, size: int, limits: RequestLimits) -> None:
    """Raises the kind's error for a file that is larger than files of its kind may be, whatever part it stands in."""
    kind = KIND_OF[type(job)]
    if size > limits.max_bytes[kind]:
        raise too_large(kind, limits.max_bytes[kind], job.param)


def _require_picture(content: Content, head: bytes | None) -> None:
    if head is None:
        return
    found = formats.recognised(head)
    if found is None:
        raise formats.unknown(head, "image", content.param)
    if found.picture is None:
        raise formats.misplaced(found, "image", content.param)


def _picture_job(checked: Checked, limits: RequestLimits, _: WorkLimits) -> Job:
    job, source = checked.job, checked.source
    if isinstance(source, DocumentSource):
        others = [first if first > 1 else last for first, last in source.pages if first > 1 or last not in ONE]
        if others:
            message = f"The file is a picture, which has 1 page: page {others[0]} is not among them."
            raise InvalidFile(message, param=job.param)
    return PictureJob(job.param, limits.max_tokens, job.budget)


def _pages_job(checked: Checked, limits: RequestLimits, _: WorkLimits) -> Job:
    job, source = checked.job, checked.source
    if isinstance(source, DocumentSource):
        return job
    return PagesJob(job.param, limits.max_tokens, job.budget, as_picture=True)


def _clip_job(checked: Checked, limits: RequestLimits, work: WorkLimits) -> Job:
    job, source = checked.job, checked.source
    _require_clips(limits, job.param)
    if isinstance(source, ClipSource):
        return job
    if isinstance(source, DocumentSource) and source.pages:
        raise InvalidFile("The file is a clip, which has no pages: leave 'pages' out.", param=job.param)
    check_choice(FrameChoice(), job.budget, work.clips, param=job.param)
    return ClipJob(job.param, limits.max_tokens, job.budget)


def _still_job(checked: Checked, limits: RequestLimits, work: WorkLimits) -> Job:
    """A picture in a clip's place is a clip of one frame."""
    return checked.job if isinstance(checked.source, ClipSource) else _picture_job(checked, limits, work)


JOBS: dict[Becomes, Callable[[Checked, RequestLimits, WorkLimits], Job]] = {
    Becomes.PICTURE: _still_job,
    Becomes.PAGES: _pages_job,
    Becomes.CLIP: _clip_job,
}
"""What is to be done with a file, by what it becomes."""


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
