"""The pages of the search: choose an image, look at its matches."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, HTTPException, Query, UploadFile
from fastapi.responses import RedirectResponse, Response

from ...functional.types import Domain
from ..threshold import ACROSS, Direction
from .images import uploaded_image
from .pages import Page, Pages
from .site import Query as Wanted
from .site import Search

#: Images of the gallery on one page, matches at first and at most.
PER_PAGE, MATCHES, MOST_MATCHES = 60, 20, 200
DomainName = Literal["day", "night"]
#: Which domain the matches are of; "other" than the query's.
Among = Literal["other", "day", "night", "both"]
Count = Annotated[int, Query(ge=1, le=MOST_MATCHES)]
PageNumber = Annotated[int, Query(ge=1)]


class SearchPages:
    """``/``, ``/search`` and ``/query`` of a site."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def routes(self) -> APIRouter:
        router = APIRouter()
        router.get("/")(self.choose)
        router.post("/search")(self.upload)
        router.get("/search")(self.matches)
        router.get("/query/{token}")(self.picture)
        return router

    @property
    def search(self) -> Search:
        if self.pages.site.search is None:
            raise HTTPException(
                404, "This is a run; make a gallery with `dnreid index` and serve it to search."
            )
        return self.pages.site.search

    def choose(self, show: DomainName | None = None, page: PageNumber = 1) -> Response:
        if self.pages.site.search is None:
            return RedirectResponse("/clusters", 303)
        domains = self.search.index.domains
        rows = [row for row, one in enumerate(domains) if show is None or Domain(int(one)).word == show]
        return self.pages("choose.html", search=self.search, show=show, page=Page.of(rows, page, PER_PAGE))

    def upload(self, image: UploadFile, domain: Annotated[DomainName, Form()]) -> Response:
        picture = uploaded_image(image.file.read())
        token = self.search.remember(image.filename or "image", picture, Domain.named(domain))
        return RedirectResponse(f"/search?query={token}", 303)

    def matches(
        self,
        query: str | None = None,
        image: Annotated[int | None, Query(ge=0)] = None,
        k: Count = MATCHES,
        among: Among = "other",
    ) -> Response:
        wanted = _wanted(self.search, query, image)
        return self.pages(
            "matches.html",
            search=self.search,
            query=wanted,
            source={"query": query} if image is None else {"image": image},
            matches=self.search.matches(wanted, k, _domain(among, wanted.domain)),
            limits=_limits(self.search, wanted, among),
            k=k,
            most=MOST_MATCHES,
            among=among,
        )

    def picture(self, token: str) -> Response:
        found = self.search.recall(token)
        if found is None:
            raise HTTPException(404, "This image is no longer remembered.")
        return Response(found.picture, media_type="image/jpeg")


def _wanted(search: Search, token: str | None, row: int | None) -> Wanted:
    if row is not None:
        if row >= len(search.index):
            raise HTTPException(404, f"The gallery has no image {row}; it has {len(search.index)}.")
        return search.of_row(row)
    found = search.recall(token or "")
    if found is None:
        raise HTTPException(404, "The image that was searched for is no longer remembered; choose it again.")
    return found


def _limits(search: Search, query: Wanted, among: Among) -> list[tuple[str, Direction]]:
    """The thresholds that count for these matches, each with the pairs that it is for."""
    if search.threshold is None:
        return []
    domain, known = _domain(among, query.domain), search.threshold.directions
    found = []
    if domain != query.domain:
        found.append(("across day and night", known.get(ACROSS, search.threshold.main)))
    if domain != query.domain.other:
        found.append((f"within {query.domain.word}", known.get(query.domain.word, search.threshold.main)))
    return found


def _domain(among: Among, own: Domain) -> Domain | None:
    if among == "both":
        return None
    return own.other if among == "other" else Domain.named(among)
