"""`headrace replay`."""
import click
@click.command()
def replay() -> None:
    """x"""
