"""What `make sabotage` breaks in the error index, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "errors")

PAGE = "docs/errors.rst"

CUTS = [
    sabotage(
        "other words", PAGE, "an_entry[refused", (r"Connect call failed \(", "Connection failed (")
    ),
    sabotage("another reason", PAGE, "an_entry[ineq", (r"inequivalent arg", "different arg")),
    sabotage("another code", PAGE, "an_entry[vhost", (r"\(530\)", "(403)")),
    sabotage(
        "an entry nobody has seen",
        PAGE,
        "every_entry",
        (r"\.\. _error-host:", ".. _error-more:\n\nMore\n----\n\n.. _error-host:"),
    ),
]
