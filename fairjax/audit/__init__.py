"""Audits of a table of predictions: gaps between groups, and their uncertainty."""

from fairjax.audit._errors import AuditError
from fairjax.audit.document import audit
from fairjax.audit.options import Options
from fairjax.audit.output import write
from fairjax.audit.rules import Rule, gate_fails

__all__ = ["AuditError", "Options", "Rule", "audit", "gate_fails", "write"]
