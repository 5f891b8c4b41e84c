"""Certificates: `certify` an estimator, look at the answers, save them as a page, JSON, Markdown, CSV and a badge."""

from vaebench.report.certificate.certificate import Certificate, certify, certify_box
from vaebench.report.certificate.figures import FIGURES

__all__ = ["FIGURES", "Certificate", "certify", "certify_box"]
