"""`mmdata recipes`: what of its three things is asked for."""

from collections.abc import Iterator

from flamingo.recipes.catalogue import NAMES, Read, copy_recipes, recipe_path
from flamingo.recipes.options import Recipes


def run_recipes(options: Recipes, read: Read) -> Iterator[str]:
    """What to print, as it comes.

    Args:
        options: of the command.
        read: of a recipe's file, with options changed.

    Raises:
        UserError: there is no such recipe or option, or they do not go together.
    """
    names = options.names or NAMES
    for name in names:
        recipe_path(name)
    if options.copy_to is not None:
        for path in copy_recipes(names, options.copy_to):
            yield f"wrote {path}\n"
    elif options.compare is not None:
        from flamingo.recipes.compare import compare_recipes

        yield compare_recipes(
            options.compare, read, options.set, folder=options.run_name, steps=options.steps
        )
    else:
        from flamingo.recipes.listing import list_recipes

        yield from list_recipes(names, read, options.set, options.budget_gb)
