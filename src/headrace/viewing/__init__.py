"""Looking at a dataset: a server with its pages, and a report in one file. What is shown is left to those who know it."""
