"""Tests of the inspection page in a real browser without a network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from dpo.cli import main
from tests.builders import SAMPLES

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
DATASETS = [f"{name}={SAMPLES / name}.jsonl" for name in ("orca_dpo_pairs", "ultrafeedback", "nectar")]

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver, which .ci/run installs"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, chatml_folder: Path, tmp_path: Path, capsys) -> webdriver.Chrome:
    file = tmp_path / "report.html"
    flags = ["--model_name_or_path", str(chatml_folder), "--output", str(file), "--max_length", "512"]
    code = main(["inspect", "--datasets", *DATASETS, *flags, "--fail-on", "tie>1%", "leakage>0"])
    assert code == 3
    assert "tie>1%: 4 of 340, 1.18%" in capsys.readouterr().err
    browser.get(file.as_uri())
    # On a busy machine the driver can still show the previous page, so wait until this document is complete.
    loaded = "return document.URL === arguments[0] && document.readyState === 'complete'"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(loaded, file.as_uri()))
    return browser


def test_the_page_shows_the_data_report_and_plots_without_an_error(page: webdriver.Chrome) -> None:
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert page.find_element(By.ID, "total").text.split()[:3] == ["total", "340", "331"]
    figures = json.loads(page.find_element(By.ID, "statistics").get_attribute("textContent") or "")
    assert figures["account"]["total"]["kept"] == figures["pairs"] == 331
    assert figures["measures"]["tie"] == [4, 340]
    for place in ("waterfall", "lengths", "kept_at", "differences", "margins"):
        assert page.find_elements(By.CSS_SELECTOR, f"#{place} svg.main-svg"), place
    steps = page.find_elements(By.CSS_SELECTOR, "#waterfall .xtick")
    assert [step.text for step in steps][:2] == ["rows", "tie"] and steps[-1].text == "kept"
    assert page.find_element(By.ID, "failures").text.endswith("tie>1%: 4 of 340, 1.18%")
    shown = page.find_element(By.ID, "longer_wins").text
    assert shown == f"{figures['length_bias']['accuracy']:.1%}"


def test_a_click_sorts_the_rows_and_a_second_click_reverses_the_order(page: webdriver.Chrome) -> None:
    def column(number: int) -> list[str]:
        return [cell.text for cell in page.find_elements(By.CSS_SELECTOR, f"#rows td:nth-child({number})")]

    headings = page.find_elements(By.CSS_SELECTOR, "#rows th")
    before = [int(number) for number in column(3)]
    headings[2].click()
    assert [int(number) for number in column(3)] == sorted(before) != before
    headings[2].click()
    assert [int(number) for number in column(3)] == sorted(before, reverse=True)
    headings[0].click()
    assert column(1) == sorted(column(1))


def test_each_answer_of_the_shown_pair_ends_in_its_end_token(page: webdriver.Chrome) -> None:
    for part in ("chosen", "rejected"):
        tokens = page.find_elements(By.CSS_SELECTOR, f"#tokens_{part} span")
        assert [token for token in tokens if "end" in token.get_attribute("class")] == tokens[-1:]
        assert tokens[-1].text.startswith("<|im_end|>")
        assert tokens[-1].text.endswith(tokens[-1].get_attribute("title"))
    assert not page.find_elements(By.CSS_SELECTOR, "#tokens_prompt .end")
    assert page.find_element(By.CSS_SELECTOR, "#tokens_prompt span").text.startswith("<|im_start|>")
