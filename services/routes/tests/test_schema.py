"""The published schema is that of the code."""

import json
from pathlib import Path

from rabbitbal.routes.schema import json_schema

PUBLISHED = Path(__file__).parents[3] / "docs" / "routes.schema.json"


def test_the_published_schema_is_that_of_the_code() -> None:
    """`just rabbitbal routes schema > docs/routes.schema.json` writes it anew."""
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(json_schema()))
