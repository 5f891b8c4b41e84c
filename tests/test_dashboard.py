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


def test_assets_are_the_ones_that_the_notice_names():
    notice = (dashboard.ASSETS / "NOTICE.md").read_text("utf-8")
    named = dict(re.findall(r"^\| (\S+\.(?:js|css)) \|.*\| ([0-9a-f]{64}) \|$", notice, re.MULTILINE))
    assert named.keys() == set(dashboard.VENDORED.values())
    for name, sha256 in named.items():
        assert hashlib.sha256((dashboard.ASSETS / name).read_bytes()).hexdigest() == sha256, name


def test_reports_lie_beside_the_dashboard_and_are_linked(pages, tmp_path):
    report = tmp_path / "activations"
    (report / "figures").mkdir(parents=True)
    (report / "report.json").write_text("{}")
    (report / "figures" / "one.svg").write_text("<svg/>")
    (tmp_path / "index.html").write_text("all reports")
    dashboard.improve(pages)
    dashboard.add_reports(tmp_path, pages)
    assert (pages / "reports" / "activations" / "figures" / "one.svg").is_file()
    assert (pages / "reports" / "index.html").read_text() == "all reports"
    assert 'href="reports/index.html">Reports</a>' in (pages / "index.html").read_text("utf-8")


def test_without_reports_there_is_no_link(pages, tmp_path):
    dashboard.improve(pages)
    before = (pages / "index.html").read_bytes()
    dashboard.add_reports(tmp_path, pages)
    assert (pages / "index.html").read_bytes() == before
