"""OUT/report.html: what a replay found, on one page that needs nothing but itself."""
