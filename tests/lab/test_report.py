"""The report in a real browser: every plot drawn, a quiet console, no overflow, hostile names
as text.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser

from lossary.advice import describe
from lossary.lab.data import from_arrays, read
from lossary.lab.files import write_files, write_saved_files
from lossary.lab.run import Settings, run
from lossary.lab.samples import as_images
from lossary.lab.saved import judge_saved

HOSTILE = "<script>alert(1)</script>"
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report on a table whose column names and class labels try to be HTML."""
    place = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    kinds = [HOSTILE, "<img src=x onerror=alert(2)>", 'a "quoted" & long label ' * 3]
    lines = [f'"{HOSTILE}",plain,{HOSTILE}-target']
    for row in range(150):
        kind = row % 3
        label = kinds[kind].replace('"', '""')
        lines.append(f'{random.normal() + kind:.3f},{random.normal():.3f},"{label}"')
    path = place / "hostile.csv"
    path.write_text("\n".join(lines))
    data = read(path, f"{HOSTILE}-target")
    settings = Settings(seeds=3, epochs=3, noise=(0.3,), sweep=True)
    losses = ["cross_entropy", "squared_error", "categorical_hinge", "categorical_focal"]
    account = run(data, losses, settings)
    account["command"] = f"lossary compare hostile.csv --target {HOSTILE}"
    write_files(account, place)
    return place


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1400, False), (1400, True)])
def test_every_plot_is_drawn_and_nothing_overflows(folder, browser, width, dark):
    browser.open(folder / "report.html", width, dark=dark)
    browser.wait("document.body && document.body.dataset.drawn")
    places = browser.evaluate("document.querySelectorAll('.plot').length")
    drawn = browser.evaluate(
        "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.main-svg') &&"
        " p.querySelector('.trace, .scatterlayer path, .boxlayer path, .barlayer path')).length"
    )
    assert places >= 9
    assert drawn == places == int(browser.evaluate("document.body.dataset.drawn"))
    assert browser.errors == []
    root = "document.documentElement"
    assert browser.evaluate(f"{root}.scrollWidth") <= width
    wide = browser.evaluate(
        "[...document.querySelectorAll('body > *, section, .plot, .main-svg')]"
        f".filter(e => e.getBoundingClientRect().right > {width} + 1).length"
    )
    assert wide == 0
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    SHOTS.mkdir(parents=True, exist_ok=True)
    browser.screenshot(SHOTS / f"report-{width}{'-dark' if dark else ''}.png")


def test_the_loss_alone_and_the_peak_of_memory_are_shown(folder, browser):
    browser.open(folder / "report.html", 1400)
    browser.wait("document.body && document.body.dataset.drawn")
    table = browser.evaluate(
        "[...document.querySelectorAll('section')].find(s => s.innerText.startsWith('Cost'))"
        ".querySelector('table').innerText"
    )
    header, first = (line.split("\t") for line in table.splitlines()[:2])
    cells = dict(zip(header, first, strict=True))
    assert float(cells["loss alone"].removesuffix(" ms")) > 0
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert 50 < float(cells["peak memory"].removesuffix(" MiB")) < machine


def test_names_that_are_html_stay_text(folder, browser):
    browser.open(folder / "report.html", 1400)
    browser.wait("document.body && document.body.dataset.drawn")
    assert browser.evaluate("document.body.innerText").count(HOSTILE) >= 3
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.querySelectorAll('script').length") == 3
    axis = browser.evaluate(
        "[...document.querySelectorAll('.xtick')].map(e => e.textContent).join('|')"
    )
    assert HOSTILE in axis
    assert "&quot;" not in axis


def test_the_report_needs_no_network_and_prints(folder, browser):
    browser.open(folder / "report.html", 1400)
    browser.wait("document.body && document.body.dataset.drawn")
    fetched = browser.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert browser.pdf().startswith(b"%PDF")


def test_long_names_break_after_underscores_on_a_telephone(folder, browser):
    browser.open(folder / "report.html", 400)
    browser.wait("document.body && document.body.dataset.drawn")
    cell = (
        "[...document.querySelectorAll('tbody td')].find(c => c.innerText === 'categorical_hinge')"
    )
    assert browser.evaluate(f"{cell}.innerHTML") == "categorical_<wbr>hinge"
    titles = browser.evaluate(
        "[...document.querySelectorAll('.annotation-text')].map(e => {"
        " const box = e.getBoundingClientRect(); return [box.left, box.right, box.top]; })"
    )
    for left, right, top in titles:
        others = [box for box in titles if box[2] == top and box[0] > left]
        assert all(right < box[0] for box in others)
    assert len(titles) >= 4


def test_saved_predictions_get_a_page_of_their_own(tmp_path, browser):
    random = np.random.default_rng(0)
    truth = np.array(["no", HOSTILE])[random.integers(0, 2, 80)]
    yes = np.clip(0.5 + 0.3 * (truth == "no") + random.normal(0, 0.1, 80), 0.01, 0.99)
    target = describe(truth, name=f"{HOSTILE} target")
    account = judge_saved(target, yes, ["binary_cross_entropy", "squared_hinge"])
    page, report = write_saved_files(account | {"command": f"lossary {HOSTILE}"}, tmp_path)
    browser.open(page, 400)
    browser.wait("document.body && document.body.dataset.drawn")
    assert browser.evaluate("document.querySelectorAll('.plot .main-svg').length") >= 3
    assert browser.errors == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    text = browser.evaluate("document.body.innerText")
    assert text.count(HOSTILE) >= 3
    assert "better than constant" in text
    gradients = json.loads(report.read_text())["losses"]["squared_hinge"]
    assert sum(gradients["tenths"]) == pytest.approx(1, abs=1e-5)


def test_worst_samples_are_shown_where_rows_are_pictures(tmp_path, browser):
    random = np.random.default_rng(1)
    labels = np.arange(60) % 3
    pixels = random.random((60, 3, 5, 7)) + labels[:, None, None, None]
    data = from_arrays(pixels, np.array([f"{HOSTILE} {k}" for k in range(3)])[labels])
    losses = ["cross_entropy", "squared_error"]
    account = run(data, losses, Settings(seeds=2, epochs=2, rate=0.01))
    account["command"] = "lossary compare"
    page = write_files(account, tmp_path)[0]
    browser.open(page, 1400)
    browser.wait("document.body && document.body.dataset.drawn")
    sizes = browser.evaluate(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt])"
    )
    assert len(sizes) == 8 * (len(losses) + 1)
    assert all(size[:3] == [True, 7, 5] for size in sizes)
    assert all(HOSTILE in size[3] for size in sizes)
    assert browser.errors == []


def test_pixels_in_columns_are_pictures_only_if_the_grid_is_whole():
    digits = read("digits")
    images = as_images(digits)
    np.testing.assert_array_equal(images[7, 0].ravel(), digits.features[7])
    assert as_images(read("wine")) is None
    part = replace(digits, features=digits.features[:, 1:], columns=digits.columns[1:])
    assert as_images(part) is None


def test_json_and_csv_hold_the_same_numbers(folder):
    account = json.loads((folder / "report.json").read_text())
    assert set(account["tables"]) == {"as is", "30% label noise"}
    row = account["tables"]["as is"]["losses"]["cross_entropy"]
    lines = (folder / "losses.csv").read_text().splitlines()
    assert lines[0] == "setting,loss,seed,epoch,training loss,validation score"
    first = next(line for line in lines if line.startswith("as is,cross_entropy,0,1,"))
    assert float(first.split(",")[4]) == pytest.approx(row["loss"][0][0])
    assert len(lines) == 1 + 2 * 4 * 3 * 3  # settings, losses, seeds, epochs
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")
