"""Training, evaluation, prediction and their pictures, in Keras 3 on any backend. Importing this imports no framework."""
