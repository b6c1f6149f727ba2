"""Looking at a dataset: a server with its pages, and a report in one file. What is shown, others know."""
