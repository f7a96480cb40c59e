"""The types of single values.

PostgreSQL cannot store NUL characters, lone surrogates, NaN and infinities as jsonb. They are
refused here, with the place where they stand, and so never become a server error.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from pgflows.database.storable import check_object, check_text

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
StepStatus = Literal["requested", "running", "completed", "failed", "cancelled"]

FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
LAST_TIME = datetime(9000, 1, 1, tzinfo=UTC)

AN_ID = "019aa7d2-6b1c-7c3e-9b0a-3f2f6f0d9a11"  # for examples
A_TIME = "2025-11-21T09:30:00.123456+00:00"  # for examples


def _storable_time(value: datetime) -> datetime:
    if not FIRST_TIME <= value <= LAST_TIME:
        raise ValueError("a time between the years 1970 and 9000 is expected")
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(check_object)]
# the length first: checked after a function, it would be called a number of items
Label = Annotated[str, Field(max_length=255), AfterValidator(check_text)]
Reason = Annotated[str, Field(max_length=1000), AfterValidator(check_text)]
Time = Annotated[AwareDatetime, AfterValidator(_storable_time)]
