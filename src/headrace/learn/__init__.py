"""Training, evaluation, prediction and their pictures, in Keras 3 on any backend. Imports no framework itself."""
