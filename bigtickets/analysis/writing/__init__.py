"""How a report is written: words, cells, colours, Markdown, HTML. Knows no study."""
