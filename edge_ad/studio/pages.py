"""The addresses of all pages, and the first of them: the list of products."""

import asyncio
from collections.abc import Callable

from nicegui import ui

from edge_ad.project.folder import CategoryFolder
from edge_ad.studio import collect, deploy, judge, learn, live, look, training
from edge_ad.studio.layout import bare_frame, empty, frame, step_address, told, words_of
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError, counted

Page = Callable[[Studio, str, str], None]
"""Draws a step of a product; the third value is the id of the training it is about, or empty."""

PAGES: dict[str, Page] = {
    "collect": lambda studio, category, run: collect.draw(studio, category),
    "look": lambda studio, category, run: look.draw(studio, category),
    "train": lambda studio, category, run: training.draw(studio, category),
    "judge": judge.draw,
    "live": live.draw,
    "deploy": deploy.draw,
    "learn": learn.draw,
}


def add_pages(studio: Studio) -> None:
    """Give every page its address."""

    @ui.page("/")
    def home() -> None:
        with bare_frame():
            _draw_home(studio)

    @ui.page("/product/{category}/{step}")
    def product(category: str, step: str, run: str = "") -> None:
        try:
            studio.folder(category)
        except EdgeAdError as error:
            with bare_frame():
                sentence = str(error)
                empty(sentence[0].upper() + sentence[1:])
                ui.link("All products", "/")
            return
        if step not in PAGES:
            ui.navigate.to(step_address(category, "collect"))
            return
        with frame(studio, category, step):
            PAGES[step](studio, category, run)


def _draw_home(studio: Studio) -> None:
    ui.html("<h1>Products</h1>", sanitize=False)
    ui.label(
        "A product is a part that you want inspected. Its pictures lie in a folder of its own in "
        f"{studio.data_root}."
    ).classes("lead")
    names, summaries = studio.categories(), dict[str, ui.label]()
    if not names:
        with ui.column().classes("panel"):
            empty("There is no product yet. Name the first one below.")
    for name in names:
        with (
            ui.link(target=step_address(name, "collect")).classes("product-card"),
            ui.row().classes("panel items-center justify-between"),
        ):
            ui.label(name).style("font-weight: 600; font-size: 16px")
            summaries[name] = ui.label().classes("small")
    with ui.row().classes("panel items-center"):
        field = ui.input("Name of a new product", placeholder="cable-M8").style("flex: 1")

        def create() -> None:
            with told():
                folder = CategoryFolder.create(str(field.value or "").strip(), studio.data_root)
                ui.navigate.to(step_address(folder.name, "collect"))

        field.on("keydown.enter", create)
        ui.button("Create", on_click=create).props("unelevated")

    async def summarize() -> None:  # many thousand pictures are looked for on disk
        for name, label in summaries.items():
            label.set_text(await asyncio.to_thread(_summary, studio, name))

    ui.timer(0.05, summarize, once=True)


def _summary(studio: Studio, name: str) -> str:
    try:
        pictures = [one for one in studio.folder(name).pictures() if not one.excluded]
    except (EdgeAdError, OSError) as error:
        return words_of(error)
    good = sum(one.is_good for one in pictures)
    trained = len(studio.trained(name))
    return (
        f"{counted(good, 'good picture')}, {counted(len(pictures) - good, 'defective one')}, "
        f"{counted(trained, 'training')}"
    )
