"""The mathematics: pure functions of the tidy table, no files, no drawing."""
