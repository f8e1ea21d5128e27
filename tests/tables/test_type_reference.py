"""The page of the shipped device types."""

from headrace.tables.type_reference import PAGE, reference


def test_the_page_is_up_to_date() -> None:
    """`python -m headrace.tables.type_reference` writes it anew."""
    assert PAGE.read_text(encoding="utf-8") == reference()
