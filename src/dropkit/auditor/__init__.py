"""The auditor: runs a model once in each mode and shows every dropout in it, and what is wrong with it."""

from dropkit.auditor.audit import Auditor, audit
from dropkit.auditor.report import AuditFinding, Report

__all__ = ["AuditFinding", "Auditor", "Report", "audit"]
