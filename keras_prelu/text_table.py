"""The old place of `keras_prelu.tables`."""

from keras_prelu.tables import text_table as text_table
