"""The pages of the report: their sections, captions, summary and templates, and the figure that can be explored."""
