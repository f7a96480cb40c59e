"""The steps and workflows of this deployment; every module in here registers itself with `app`."""

from pgflows import WorkflowApp

app = WorkflowApp()
