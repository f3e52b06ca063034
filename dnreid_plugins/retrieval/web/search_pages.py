"""The pages of the search: choose an image, look at its matches."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, HTTPException, Query, UploadFile
from fastapi.responses import RedirectResponse, Response

from ...functional.types import Domain
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


def search_routes(pages: Pages) -> APIRouter:
    """``/`` and ``/search`` of a site."""
    routes = APIRouter()
    NO_GALLERY = "This run has no gallery; make one with `dnreid index` and serve it to search."

    def gallery() -> Search:
        if pages.site.search is None:
            raise HTTPException(404, NO_GALLERY)
        return pages.site.search

    @routes.get("/")
    def choose(show: DomainName | None = None, page: PageNumber = 1) -> Response:
        if pages.site.search is None:
            return RedirectResponse("/clusters", 303)
        index = gallery().index
        rows = [n for n, one in enumerate(index.domains) if show is None or Domain(int(one)).word == show]
        return pages("choose.html", search=gallery(), show=show, page=Page.of(rows, page, PER_PAGE))

    @routes.post("/search")
    def upload(image: UploadFile, domain: Annotated[DomainName, Form()]) -> Response:
        picture = uploaded_image(image.file.read())
        token = gallery().remember(image.filename or "image", picture, Domain.named(domain))
        return RedirectResponse(f"/search?query={token}", 303)

    @routes.get("/search")
    def matches(
        query: str | None = None,
        image: Annotated[int | None, Query(ge=0)] = None,
        k: Count = MATCHES,
        among: Among = "other",
    ) -> Response:
        wanted = _wanted(gallery(), query, image)
        found = gallery().matches(wanted, k, _domain(among, wanted.domain))
        source = {"query": query} if image is None else {"image": image}
        return pages(
            "matches.html",
            search=gallery(),
            query=wanted,
            source=source,
            matches=found,
            k=k,
            most=MOST_MATCHES,
            among=among,
        )

    @routes.get("/query/{token}")
    def picture(token: str) -> Response:
        found = gallery().recall(token)
        if found is None:
            raise HTTPException(404, "This image is no longer remembered.")
        return Response(found.picture, media_type="image/jpeg")

    return routes


def _wanted(search: Search, token: str | None, row: int | None) -> Wanted:
    if row is not None:
        if row >= len(search.index):
            raise HTTPException(404, f"The gallery has no image {row}; it has {len(search.index)}.")
        return search.of_row(row)
    found = search.recall(token or "")
    if found is None:
        raise HTTPException(404, "The image that was searched for is no longer remembered; choose it again.")
    return found


def _domain(among: Among, own: Domain) -> Domain | None:
    if among == "both":
        return None
    return own.other if among == "other" else Domain.named(among)
