"""One self-contained page for a profile: results/<profile>/report.html, which opens from disk and asks for nothing."""
