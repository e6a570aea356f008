"""Tables of the report, one a module; ``formatting``: how a number becomes a cell, and a table Markdown or HTML."""
