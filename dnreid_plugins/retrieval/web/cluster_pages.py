"""The pages of the clusters: look through them, compare two, correct them, take the labels away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Query
from fastapi.responses import RedirectResponse, Response

from ...functional.types import Domain
from .clusters import Cluster, Order, View
from .judgements import Action, Correction, StaleError
from .pages import Page, Pages
from .search_pages import DomainName, PageNumber
from .site import Clusters

#: Clusters on one page, images that stand for one of them, and images on the page of one.
PER_PAGE, SAMPLE, IMAGES = 24, 8, 60
Number = Annotated[int, Query(ge=0)]
#: A cluster for which another one is chosen.
Beside = Annotated[str | None, Query(pattern=r"^(day|night)-\d{1,9}$")]
LABELS = "labels.csv"


class ClusterPages:
    """``/clusters``, ``/correct`` and ``/labels.csv`` of a site."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def routes(self) -> APIRouter:
        router = APIRouter()
        router.get("/clusters")(self.browse)
        router.get("/clusters/{domain}/{number}")(self.one)
        router.post("/correct/undo")(self.undo)
        router.post("/correct/{verb}")(self.correct)
        router.get(f"/{LABELS}")(self.labels)
        return router

    @property
    def clusters(self) -> Clusters:
        if self.pages.site.clusters is None:
            raise HTTPException(404, "The run of this gallery has no clusters.csv, so there are no clusters.")
        return self.pages.site.clusters

    def browse(
        self, domain: DomainName = "day", order: Order = "size", page: PageNumber = 1, beside: Beside = None
    ) -> Response:
        revision, _, view = self.clusters.now()
        which, _, number = (beside or "").partition("-")
        one = _cluster(view, Domain.named(which), int(number)) if beside else None
        found = [other for other in view.sorted(Domain.named(domain), order) if other != one]
        return self.pages(
            "clusters.html",
            view=view,
            revision=revision,
            last=self.clusters.last(),
            domain=Domain.named(domain),
            order=order,
            beside=one,
            page=Page.of(found, page, PER_PAGE),
            count=len(found),
            outliers=view.get(Domain.named(domain), -1),
            sample=SAMPLE,
        )

    def one(
        self,
        domain: DomainName,
        number: int,
        page: PageNumber = 1,
        other_domain: DomainName | None = None,
        other: Number | None = None,
    ) -> Response:
        revision, _, view = self.clusters.now()
        cluster = _cluster(view, Domain.named(domain), number)
        beside = None
        if other is not None:
            beside = _cluster(view, Domain.named(other_domain or cluster.domain.other.word), other)
        elif cluster.partner is not None:
            beside = view.get(cluster.domain.other, cluster.partner)
        return self.pages(
            "cluster.html",
            view=view,
            revision=revision,
            last=self.clusters.last(),
            paths=self.clusters.table.paths,
            cluster=cluster,
            beside=beside if beside != cluster else None,
            page=Page.of(cluster.images, page, IMAGES),
            most=IMAGES,
        )

    def undo(
        self, revision: Annotated[int, Form()], domain: Annotated[DomainName, Form()] = "day"
    ) -> Response:
        if self.clusters.last() is None:
            raise HTTPException(400, "There is nothing to undo.")
        self.clusters.log.append(Action("undo"), revision)
        return RedirectResponse(f"/clusters?domain={domain}", 303)

    def correct(
        self,
        verb: Correction,
        revision: Annotated[int, Form()],
        domain: Annotated[DomainName, Form()],
        number: Annotated[int, Form()],
        other_domain: Annotated[DomainName, Form()] = "night",
        other: Annotated[int, Form()] = -1,
        images: Annotated[list[int] | None, Form()] = None,
    ) -> Response:
        now, _, view = self.clusters.now()
        if now != revision:
            raise StaleError("The clusters have been corrected since this page was made; look at it again.")
        cluster = _cluster(view, Domain.named(domain), number)
        beside = None
        if verb in ("same", "different"):
            beside = _cluster(view, Domain.named(other_domain), other)
        action = _action(verb, cluster, beside, images or [], self.clusters.table.paths)
        self.clusters.log.append(action, revision)
        return RedirectResponse(_place(self.clusters.now()[2], cluster), 303)

    def labels(self) -> Response:
        _, rows, view = self.clusters.now()
        content = self.clusters.table.export(view, rows)
        disposition = {"Content-Disposition": f'attachment; filename="{LABELS}"'}
        return Response(content, media_type="text/csv; charset=utf-8", headers=disposition)


def _cluster(view: View, domain: Domain, number: int) -> Cluster:
    found = view.get(domain, number)
    if found is None:
        raise HTTPException(
            404, f"There is no cluster {domain.word} {number}; it may have been merged with another."
        )
    return found


def _action(
    verb: Correction, cluster: Cluster, beside: Cluster | None, images: list[int], paths: list[str]
) -> Action:
    """The line of the log for a form.

    Raises:
        HTTPException: the form asks for something that makes no sense.
    """

    def named(numbers: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(paths[number] for number in numbers)

    if cluster.number < 0:
        raise HTTPException(400, "These images are in no cluster, so there is nothing to correct.")
    if beside is not None:
        if beside == cluster or beside.number < 0:
            raise HTTPException(400, f"Beside {cluster.name} stands {beside.name}; choose another cluster.")
        return Action(verb, f"{cluster.name}, {beside.name}", named(cluster.images), named(beside.images))
    if verb == "confirm":
        return Action(verb, cluster.name, named(cluster.images))
    chosen = tuple(sorted(set(images)))
    if not chosen or not set(chosen) <= set(cluster.images):
        raise HTTPException(400, f"No image of {cluster.name} is selected; tick some and try again.")
    rest = tuple(image for image in cluster.images if image not in set(chosen))
    if verb == "split" and not rest:
        raise HTTPException(
            400, f"All images of {cluster.name} are selected; leave those that belong together."
        )
    about = f"{len(chosen)} of {cluster.name}"
    return Action(verb, about, named(chosen), named(rest) if verb == "split" else ())


def _place(view: View, cluster: Cluster) -> str:
    """Where most of the images of ``cluster`` are now."""
    best: tuple[int, Cluster | None] = (0, None)
    for one in view.clusters.values():
        common = len(set(one.images) & set(cluster.images)) if one.domain == cluster.domain else 0
        if one.number >= 0 and common > best[0]:
            best = (common, one)
    found = best[1]
    return (
        f"/clusters/{found.domain.word}/{found.number}"
        if found
        else f"/clusters?domain={cluster.domain.word}"
    )
