"""A result as one page to look at: `report.page.write_report` is the way in."""
