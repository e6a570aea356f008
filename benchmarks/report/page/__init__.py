"""The pages of the report: templates, captions, the summary at the top, and the figure that can be explored."""
