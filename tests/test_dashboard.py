"""The published pages: whole without a network, and an error when asv's template moves."""

import hashlib
import re
import shutil
from pathlib import Path

import asv
import pytest
from asv.util import UserError

from benchmarks.harness import dashboard

TEMPLATE = Path(asv.__file__).with_name("www")
RESOURCE = re.compile(r'<(?:script|link|img)\b[^>]*?\b(?:src|href)="([^"]+)"')


@pytest.fixture
def pages(tmp_path):
    return Path(shutil.copytree(TEMPLATE, tmp_path / "html"))


def test_pages_load_only_what_lies_beside_them(pages):
    dashboard.improve(pages)
    html = (pages / "index.html").read_text("utf-8")
    resources = set(RESOURCE.findall(html)) - {"regressions.xml"}  # asv writes the feed itself
    assert len(resources) > len(dashboard.VENDORED)
    assert [name for name in resources if not (pages / name).is_file()] == []
    assert "integrity=" not in html


def test_a_new_remote_asset_is_refused():
    html = (TEMPLATE / "index.html").read_text("utf-8")
    with pytest.raises(UserError, match=r"loads //example\.org/new\.js, which is not vendored"):
        dashboard.localize(html + '<script async src="//example.org/new.js"></script>')


def test_a_moved_asset_is_refused():
    html = (TEMPLATE / "index.html").read_text("utf-8")
    with pytest.raises(UserError, match="which is not vendored"):
        dashboard.localize(html.replace("jquery-3.3.1", "jquery-3.7.1"))


def test_a_dropped_asset_is_refused():
    with pytest.raises(UserError, match="no longer loads"):
        dashboard.localize("<html></html>")


def test_an_edit_that_does_not_fit_is_refused(pages):
    page = pages / "error.html"
    with pytest.raises(UserError, match=r"error\.html has 'nowhere' 0 times"):
        dashboard.substitute(page, "nowhere", "somewhere")


@pytest.fixture
def reports(tmp_path):
    source = tmp_path / "reports"
    for name in ("study/figures", "faults", ".study.1.new", "html"):
        (source / name).mkdir(parents=True)
    for name in ("study/report.json", "study/index.html", "study/figures/a.svg", ".study.1.new/report.json"):
        (source / name).write_text(name, "utf-8")
    (source / "index.html").write_text('<a href="study/index.html">', "utf-8")
    return source


def test_reports_are_copied_and_linked(pages, reports):
    dashboard.improve(pages)
    dashboard.add_reports(pages, reports)
    (address,) = re.findall('<a href="([^"]+)">Reports</a>', (pages / "index.html").read_text("utf-8"))
    copied = (pages / address).parent
    names = {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()}
    assert names == {"index.html", "study/index.html", "study/report.json", "study/figures/a.svg"}
    assert (copied / "study/index.html").read_text("utf-8") == "study/index.html"


def test_without_reports_there_is_no_link(pages, tmp_path):
    dashboard.add_reports(pages, tmp_path / "nowhere")
    assert "Reports</a>" not in (pages / "index.html").read_text("utf-8")
    assert not (pages / "reports").exists()


def test_reports_without_an_index_are_refused(pages, reports):
    (reports / "index.html").unlink()
    with pytest.raises(UserError, match=r"has reports, but no index\.html"):
        dashboard.add_reports(pages, reports)


def test_assets_are_the_ones_that_the_notice_names():
    notice = (dashboard.ASSETS / "NOTICE.md").read_text("utf-8")
    named = dict(re.findall(r"^\| (\S+\.(?:js|css)) \|.*\| ([0-9a-f]{64}) \|$", notice, re.MULTILINE))
    assert named.keys() == set(dashboard.VENDORED.values())
    for name, sha256 in named.items():
        assert hashlib.sha256((dashboard.ASSETS / name).read_bytes()).hexdigest() == sha256, name
