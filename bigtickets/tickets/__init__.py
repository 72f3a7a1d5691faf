"""The science: units of each model family, importance, selection, tickets, surgery."""
